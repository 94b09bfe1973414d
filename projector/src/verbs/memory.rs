//! A read model in memory, for the verbs that show what would be (`test`, `trace`, `try`): the core that a host drives ([`Batch`]), over the in-memory
//! store. It does what a host does with a batch, but waits for nothing: what stops is tried again at once, and what is held is
//! given up only when [`Memory::give_up`] says so.

use crate::apply::{Batch, Delivery, Finished, Lane, Parked, Part, Partition, Question, TRIES, TRIES_TO_FIND};
use crate::expr::Object;
use crate::host::Lookups;
use crate::projection::{Compiled, ReadModelKind};
use crate::sink::memory::{MemorySink, MemoryStore};
use crate::sink::{Place, Sink, SinkError, Stored};
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module.
pub(crate) struct Memory {
    answers: Answers,
    compiled: Arc<Compiled>,
    store: Arc<MemoryStore>,
    sink: MemorySink,
    owned: BTreeMap<Partition, Owned>,
    parked: Vec<Parked>,
}

/// Where lookups find something.
pub(crate) enum Answers {
    /// In what a test gives: by lookup, then by key.
    Given(Vec<BTreeMap<String, Object>>),
    /// Where a host finds it.
    Stores(Box<Lookups>),
}

impl Answers {
    async fn ask(&self, question: &Question) -> Result<Vec<Option<Object>>, SinkError> {
        match self {
            Self::Given(given) => {
                let found = given.get(question.lookup);
                Ok(question.keys.iter().map(|key| found?.get(key).cloned()).collect())
            }
            Self::Stores(lookups) => lookups.ask(question).await,
        }
    }
}

#[derive(Default)]
struct Owned {
    lane: Lane,
    /// What came and isn't handled yet, by rising offset: the topic, as far as a rewind needs it.
    log: Vec<Delivery>,
    next_offset: i64,
}

/// Why the read model would stand still.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Halt {
    /// A partition stopped, and trying again doesn't help.
    #[error("{}/{} stands still: {reason}", .partition.topic, .partition.number)]
    Stopped { partition: Partition, reason: String },
    /// The store, which is ours.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl Memory {
    pub(crate) async fn new(compiled: Arc<Compiled>, answers: Answers) -> Result<Self, Halt> {
        let store = Arc::new(MemoryStore::default());
        let read_model = compiled.projection.name.value.clone();
        let place = Place { read_model, generation: 1, document: compiled.document.clone() };
        let sink = MemorySink::open(Arc::clone(&store), &place);
        sink.prepare().await?;
        Ok(Self { answers, compiled, store, sink, owned: BTreeMap::new(), parked: Vec::new() })
    }

    /// The offset that the partition's next message has.
    pub(crate) fn next_offset(&self, partition: &Partition) -> i64 {
        self.owned.get(partition).map_or(0, |owned| owned.next_offset)
    }

    /// Takes messages as one batch, each with an offset above its partition's last one.
    pub(crate) async fn take(&mut self, messages: Vec<(Partition, Delivery)>) -> Result<(), Halt> {
        let mut parts: BTreeMap<Partition, Vec<Delivery>> = BTreeMap::new();
        for (partition, delivery) in messages {
            parts.entry(partition).or_default().push(delivery);
        }
        for (partition, deliveries) in &parts {
            let owned = self.owned.entry(partition.clone()).or_default();
            owned.log.extend(deliveries.iter().cloned());
            owned.next_offset = deliveries.last().map_or(owned.next_offset, |last| last.offset + 1);
        }
        // Once for each try of each message, and once more.
        let tries = if self.compiled.lookups.is_empty() { TRIES } else { TRIES_TO_FIND };
        let rounds = parts.values().map(Vec::len).sum::<usize>() * tries as usize + 1;
        let mut stopped = None;
        for _ in 0..rounds {
            let batch = std::mem::take(&mut parts).into_iter().map(|(p, deliveries)| self.part(p, deliveries, false));
            let batch = batch.collect();
            let finished = self.fold(batch).await?;
            stopped = finished.stops.first().map(|(p, stop)| (p.clone(), stop.reason.clone()));
            for (partition, _) in self.settle(finished) {
                if let Some(owned) = self.owned.get(&partition) {
                    let next = owned.lane.progress().next_offset;
                    let again = owned.log.iter().filter(|delivery| delivery.offset >= next);
                    parts.insert(partition, again.cloned().collect());
                }
            }
            if parts.is_empty() {
                return Ok(());
            }
        }
        let (partition, reason) = stopped.unwrap_or_else(|| (Partition { topic: "".into(), number: 0 }, String::new()));
        Err(Halt::Stopped { partition, reason })
    }

    /// What is held waits no longer: it is parked.
    pub(crate) async fn give_up(&mut self) -> Result<(), Halt> {
        let holding: Vec<_> = self.owned.iter().filter(|(_, o)| o.lane.is_holding()).map(|(p, _)| p.clone()).collect();
        let parts: Vec<_> = holding.into_iter().map(|partition| self.part(partition, Vec::new(), true)).collect();
        let finished = self.fold(parts).await?;
        self.settle(finished);
        Ok(())
    }

    /// One document; a tombstone too.
    pub(crate) async fn document(&self, key: &str) -> Result<Option<Stored>, Halt> {
        Ok(self.sink.load(&[key.to_owned()]).await?.into_iter().next().flatten())
    }

    /// All documents, or rows, by key; tombstones too, but nothing that the projector keeps for itself.
    pub(crate) fn documents(&self) -> BTreeMap<String, Stored> {
        let mut documents = self.store.documents();
        documents.retain(|key, _| self.compiled.kind != ReadModelKind::Join || !key.starts_with('_'));
        documents
    }

    /// The messages that were parked, in that order.
    pub(crate) fn parked(&self) -> &[Parked] {
        &self.parked
    }

    fn part(&mut self, partition: Partition, deliveries: Vec<Delivery>, give_up: bool) -> (Partition, Part) {
        let lane = self.owned.get_mut(&partition).map(|owned| std::mem::take(&mut owned.lane)).unwrap_or_default();
        (partition, Part { lane, deliveries, give_up, ..Part::default() })
    }

    async fn fold(&self, parts: Vec<(Partition, Part)>) -> Result<Finished, Halt> {
        let mut batch = Batch::new(Arc::clone(&self.compiled), parts);
        let mut answers = Vec::new();
        for question in batch.questions() {
            let found = self.answers.ask(&question).await?;
            answers.push((question, found));
        }
        if !answers.is_empty() {
            batch.told(answers);
        }
        while !batch.is_done() {
            for search in batch.searches() {
                let found = self.sink.children(&search.parent, search.after.as_deref(), search.limit).await?;
                batch.found(&search, found);
            }
            let writes = batch.fold(self.sink.load(&batch.keys()).await?);
            if writes.is_empty() {
                continue;
            }
            batch.answered(self.sink.write(&writes).await?);
        }
        Ok(batch.finish())
    }

    /// Keeps what a batch came to; gives the partitions that stopped.
    fn settle(&mut self, finished: Finished) -> Vec<(Partition, crate::apply::Stop)> {
        self.parked.extend(finished.parked);
        for (partition, lane) in finished.lanes {
            let owned = self.owned.entry(partition).or_default();
            owned.log.retain(|delivery| delivery.offset >= lane.progress().next_offset);
            owned.lane = lane;
        }
        finished.stops
    }
}
