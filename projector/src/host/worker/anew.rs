//! Making one document anew, from its aggregate's events in the event store. In the owner, between two batches, so that nothing
//! races it: exactly the events that the partition has handled are folded, and those that follow find the document as if nothing
//! had been wrong with it.

use super::{HostError, Worker};
use crate::apply::{Batch, Delivery, Lane, Outcome, Part, Partition, Write};
use crate::projection::ReadModelKind;
use crate::source::{History, Selection, partition_of};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Worker {
    /// Does the next one, and says what came of it.
    pub(super) async fn make_anew(&mut self) -> Result<(), HostError> {
        let Some((id, key)) = self.documents.pop_front() else { return Ok(()) };
        self.land_all().await?;
        let Some(partition) = self.partition_of(&key) else { return self.say_anew(id, Err(NOT_ONE.to_owned())).await };
        if !self.owned.contains_key(&partition) {
            // Another host's.
            return Ok(());
        }
        let outcome = self.fold_anew(&partition, &key).await?;
        self.say_anew(id, outcome).await
    }

    /// The partition whose events alone make a document.
    fn partition_of(&self, key: &str) -> Option<Partition> {
        let compiled = &self.setup.reader.compiled;
        let (ReadModelKind::Entity, [aggregate_type]) = (compiled.kind, compiled.aggregate_types.as_slice()) else {
            return None;
        };
        let topic = format!("events.{aggregate_type}");
        let count = *self.setup.generation.topics.get(&topic)?;
        Some(Partition { topic: topic.into(), number: partition_of(key, count) })
    }

    async fn fold_anew(&mut self, partition: &Partition, key: &str) -> Result<Result<String, String>, HostError> {
        let Some(url) = self.setup.event_store.clone() else {
            return Ok(Err(
                "its host doesn't know the event store: --write-database-url (WRITE_DATABASE_URL)".to_owned()
            ));
        };
        let aggregate_type = self.setup.reader.compiled.aggregate_types.first().cloned().unwrap_or_default();
        let selection = Selection { aggregate_type, from_position: 0, aggregate_ids: vec![key.to_owned()] };
        let mut deliveries = Vec::new();
        match events(&url, &selection).await {
            Ok(events) => {
                for (offset, raw) in (0..).zip(events) {
                    deliveries.push(self.calls.read(offset, raw).await?);
                }
            }
            Err(error) => return Ok(Err(error.to_string())),
        }
        let Some(owned) = self.owned.get(partition) else { return Ok(Err("its partition went elsewhere".to_owned())) };
        let parked = owned.lane.published().parked.get(key).copied().unwrap_or(i64::MAX);
        let is_in = |delivery: &Delivery| {
            owned.lane.covers(delivery) && delivery.reference().is_some_and(|r| r.sequence < parked)
        };
        deliveries.truncate(deliveries.iter().take_while(|delivery| is_in(delivery)).count());
        let events = deliveries.len();
        let accepted = Arc::new(self.calls.control(|| Box::pin(self.setup.control.accepted_epochs())).await?);
        let write = match self.in_memory(partition, deliveries, accepted).await? {
            Ok(Some(write)) => Arc::new(vec![write]),
            Ok(None) => return Ok(Err("no event of it was handled yet".to_owned())),
            Err(reason) => return Ok(Err(reason)),
        };
        self.folding.forget(key);
        let outcomes = self
            .calls
            .store(|sink| {
                let write = Arc::clone(&write);
                Box::pin(async move { sink.write(&write).await })
            })
            .await?;
        if self.setup.sink.needs_refresh() {
            self.calls.store(|sink| Box::pin(async move { sink.refresh().await })).await?;
        }
        Ok(match outcomes.first() {
            Some(Outcome::Written) => Ok(format!("made anew from {events} events")),
            Some(Outcome::Rejected(reason)) => Err(format!("the store refuses it: {reason}")),
            _ => Err("the store has a newer version than its events make; `projector rebuild repair` builds all of it"
                .to_owned()),
        })
    }

    /// What the events come to, from nothing.
    async fn in_memory(
        &self,
        partition: &Partition,
        deliveries: Vec<Delivery>,
        accepted: Arc<std::collections::BTreeSet<Arc<str>>>,
    ) -> Result<Result<Option<Write>, String>, HostError> {
        let mut lane = Lane::default();
        lane.accept(accepted);
        let part = Part { lane, deliveries, ..Part::default() };
        let mut batch = Batch::new(Arc::clone(&self.setup.reader.compiled), vec![(partition.clone(), part)]);
        let questions = batch.questions();
        if !questions.is_empty() {
            batch.told(self.calls.look_up(questions).await?);
        }
        let mut made: BTreeMap<String, Write> = BTreeMap::new();
        while !batch.is_done() {
            let loaded = batch.keys().iter().map(|key| made.get(key).map(Write::stored)).collect();
            let writes = batch.fold(loaded);
            let outcomes = writes.iter().map(|_| Outcome::Written).collect();
            made.extend(writes.into_iter().map(|write| (write.key.clone(), write)));
            batch.answered(outcomes);
        }
        if let Some((_, stop)) = batch.finish().stops.into_iter().next() {
            return Ok(Err(stop.reason));
        }
        Ok(Ok(made.into_values().next().map(|write| Write { again: true, changed: None, ..write })))
    }

    async fn say_anew(&self, id: i64, outcome: Result<String, String>) -> Result<(), HostError> {
        tracing::info!(generation = self.calls.generation, ?outcome, "a document was to be made anew");
        let said = outcome.as_deref().map_err(String::as_str);
        self.calls.control(|| Box::pin(self.setup.control.settle_remake(id, said))).await
    }
}

const NOT_ONE: &str =
    "its documents aren't made by one aggregate's events each; `projector rebuild repair` builds all of it";

async fn events(url: &str, selection: &Selection) -> Result<Vec<crate::event::Raw>, crate::source::EventStoreError> {
    let mut history = History::open(url, selection).await?;
    let mut all = Vec::new();
    loop {
        let events = history.events().await?;
        if events.is_empty() {
            return Ok(all);
        }
        all.extend(events.iter().map(crate::source::StoredEvent::raw));
    }
}
