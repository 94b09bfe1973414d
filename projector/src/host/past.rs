//! Folding a generation's past from somewhere else than Kafka, before the hosts feed it: the whole history is handed over in an
//! order that keeps invariant I0 ([`crate::source::History`]), and goes through the very lanes and batches that the owner uses.
//!
//! Events from there have offsets of their own, far below any of Kafka's and rising over interruptions ([`BEGIN`]): so dead
//! letters keep their order, and saved progress tells that the past isn't complete yet. What was folded before an
//! interruption is known by the watermark and passed over. When all is folded, each partition's progress gets the offset in
//! Kafka from which it goes on; what is read again from there is known by the watermark too.

use super::cache::Share;
use super::calls::Calls;
use super::fold::{Folding, Manner};
use super::letters::Letters;
use super::read::Reader;
use super::saver::SAVE_EVERY_PUT_OFF;
use super::stats::Stats;
use super::{HostError, Lookups, put_off};
use crate::apply::{Delivery, Finished, Lane, Part, Partition};
use crate::control::{Control, Ends, Generation};
use crate::event::{Catalog, Decoder, Raw};
use crate::sink::{Sink, StoreUrls};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The offset of a partition's first event that doesn't come from Kafka.
const BEGIN: i64 = -(1 << 40);
/// Events folded in one go.
const BATCH_MAX: usize = 4_000;
/// How often what can't be folded is tried again at once; then it is parked.
const ROUNDS_MAX: u32 = 2 * crate::apply::TRIES;

struct Owned {
    lane: Lane,
    fence: i64,
    next: i64,
}

/// A generation that is being filled.
pub struct Past {
    sink: Arc<dyn Sink>,
    calls: Calls,
    folding: Folding,
    letters: Letters,
    owned: BTreeMap<Partition, Owned>,
    waiting: BTreeMap<Partition, Vec<Delivery>>,
    size: usize,
    next_save: Instant,
}

impl Past {
    /// Makes the place and becomes the owner of all partitions, in the place of whoever began this before.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn take_over(
        generation: &Generation,
        control: &Control,
        catalog: &Arc<Catalog>,
        decoder: &Decoder,
        urls: &StoreUrls,
    ) -> Result<Self, HostError> {
        let (compiled, sink) = super::open(generation, catalog, urls)?;
        let (compiled, stats) = (Arc::new(compiled), Arc::<Stats>::default());
        let behind = put_off(&compiled, &sink, &stats);
        let sink = behind.clone().map_or(sink, |behind| behind);
        let lookups = Lookups::new(Arc::clone(&compiled), control.clone(), Arc::clone(catalog), urls.clone());
        let calls = Calls {
            generation: generation.id(),
            sink: Arc::clone(&sink),
            reader: Reader::new(compiled, decoder),
            lookups: Arc::new(lookups),
            stats,
            stop: CancellationToken::new(),
            standing: Arc::new(Mutex::new(None)),
        };
        let letters =
            Letters { control: control.clone(), generation_id: generation.generation_id, calls: calls.clone() };
        calls.store(|sink| Box::pin(async move { sink.prepare_aside().await })).await?;
        calls.store(|sink| Box::pin(async move { sink.replaying(true).await })).await?;
        if let Some(behind) = behind {
            behind.put_off(true).await.map_err(HostError::from)?;
        }
        let of = |(topic, count): (&String, &i32)| {
            let topic: Arc<str> = topic.as_str().into();
            (0..*count).map(|number| Partition { topic: Arc::clone(&topic), number }).collect::<Vec<_>>()
        };
        let partitions: Arc<Vec<Partition>> = Arc::new(generation.topics.iter().flat_map(of).collect());
        // First the fence, then the progress: what a former owner still saves after this is refused.
        let claims = letters.claim(&partitions).await?;
        let asked = Arc::clone(&partitions);
        let saved = calls.store(|sink| {
            let asked = Arc::clone(&asked);
            Box::pin(async move { sink.load_progress(&asked).await })
        });
        let saved = saved.await?;
        let accepted = Arc::new(calls.control(|| Box::pin(control.accepted_epochs())).await?);
        let mut owned = BTreeMap::new();
        for ((partition, (fence, parked)), progress) in partitions.iter().zip(claims).zip(saved) {
            let begun = progress.is_some();
            let mut progress = progress.unwrap_or_default();
            if !begun {
                progress.next_offset = BEGIN;
            }
            let next = progress.next_offset;
            let mut lane = Lane::new(progress, parked);
            lane.fence(fence);
            lane.accept(Arc::clone(&accepted));
            owned.insert(partition.clone(), Owned { lane, fence, next });
        }
        let folding = Folding::new(calls.clone(), Share::default(), Duration::ZERO);
        let (waiting, next_save) = (BTreeMap::new(), Instant::now());
        let past = Self { sink, calls, folding, letters, owned, waiting, size: 0, next_save };
        past.save().await?;
        Ok(past)
    }

    /// Whether a partition has all of its past already.
    #[must_use]
    pub fn is_complete(&self, partition: &Partition) -> bool {
        self.owned.get(partition).is_none_or(|owned| owned.next >= 0)
    }

    /// Takes the next event; now and then that folds what waits. Tells how many were folded.
    ///
    /// # Errors
    /// [`HostError`]; among them a partition that can't go on before something is done about it.
    pub async fn take(&mut self, partition: &Partition, raw: Raw) -> Result<usize, HostError> {
        let Some(owned) = self.owned.get_mut(partition).filter(|owned| owned.next < 0) else { return Ok(0) };
        let delivery = self.calls.read(owned.next, raw).await?;
        if owned.lane.covers(&delivery) {
            return Ok(0);
        }
        owned.next += 1;
        self.waiting.entry(partition.clone()).or_default().push(delivery);
        self.size += 1;
        if self.size < BATCH_MAX { Ok(0) } else { self.fold().await }
    }

    /// Folds what waits.
    ///
    /// # Errors
    /// As [`Past::take`].
    pub async fn fold(&mut self) -> Result<usize, HostError> {
        let size = std::mem::take(&mut self.size);
        let mut waiting = std::mem::take(&mut self.waiting);
        for _ in 0..ROUNDS_MAX {
            if waiting.is_empty() {
                break;
            }
            let parts = std::mem::take(&mut waiting);
            let mut again = parts.clone();
            let parts = parts.into_iter().map(|(partition, deliveries)| self.part(partition, deliveries, false));
            let parts = parts.collect();
            let stopped = self.settle(parts).await?;
            // What comes at or behind the place where a partition stopped is tried again.
            again.retain(|partition, deliveries| {
                let Some((at, _)) = stopped.get(partition) else { return false };
                deliveries.retain(|delivery| delivery.offset >= *at);
                true
            });
            waiting = again;
            if let Some((partition, (_, reason))) =
                stopped.into_iter().find(|(_, (_, reason))| reason.contains("epoch"))
            {
                return Err(HostError::Lost { generation: self.calls.generation.clone(), partition, reason });
            }
        }
        if let Some(partition) = waiting.into_keys().next() {
            let reason = "an event is refused again and again, and can't be parked".to_owned();
            return Err(HostError::Lost { generation: self.calls.generation.clone(), partition, reason });
        }
        Ok(size)
    }

    fn part(&mut self, partition: Partition, deliveries: Vec<Delivery>, give_up: bool) -> (Partition, Part) {
        let lane = self.owned.get_mut(&partition).map(|owned| std::mem::take(&mut owned.lane)).unwrap_or_default();
        (partition, Part { lane, deliveries, give_up, ..Part::default() })
    }

    /// Folds, parks what must be, saves; gives the partitions that stopped, with where and why.
    async fn settle(&mut self, parts: Vec<(Partition, Part)>) -> Result<BTreeMap<Partition, (i64, String)>, HostError> {
        let Finished { lanes, stops, parked, .. } =
            self.folding.fold(parts, Manner { large: true, saves: false }).await?.finished;
        let mut letters: BTreeMap<Partition, Vec<_>> = BTreeMap::new();
        for letter in parked {
            letters.entry(letter.partition.clone()).or_default().push(letter);
        }
        for (partition, letters) in letters {
            let fence = self.owned.get(&partition).map_or(0, |owned| owned.fence);
            self.letters.park(fence, letters).await?;
        }
        for (partition, lane) in lanes {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.lane = lane;
            }
        }
        if self.next_save <= Instant::now() {
            self.save().await?;
            self.next_save = Instant::now() + SAVE_EVERY_PUT_OFF;
        }
        Ok(stops.into_iter().map(|(partition, stop)| (partition, (stop.offset, stop.reason))).collect())
    }

    async fn save(&self) -> Result<(), HostError> {
        let progress = self.owned.iter().map(|(partition, owned)| (partition.clone(), owned.lane.progress().clone()));
        let progress: Arc<Vec<_>> = Arc::new(progress.collect());
        let call = self.calls.store(|sink| {
            let progress = Arc::clone(&progress);
            Box::pin(async move { sink.save_progress(&progress).await })
        });
        call.await
    }

    /// All of these partitions' past was taken: they go on in Kafka from these offsets.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn complete(&mut self, ends: &Ends) -> Result<(), HostError> {
        self.fold().await?;
        // What still waits for an event of before waits in vain.
        let holding =
            self.owned.iter().filter(|(partition, owned)| ends.contains_key(partition) && owned.lane.is_holding());
        let holding: Vec<Partition> = holding.map(|(partition, _)| partition.clone()).collect();
        let parts: Vec<_> = holding.into_iter().map(|partition| self.part(partition, Vec::new(), true)).collect();
        if !parts.is_empty() {
            self.settle(parts).await?;
        }
        let accepted = Arc::new(self.calls.control(|| Box::pin(self.letters.control.accepted_epochs())).await?);
        for (partition, end) in ends {
            let Some(owned) = self.owned.get_mut(partition).filter(|owned| owned.next < 0) else { continue };
            let mut progress = owned.lane.progress().clone();
            (progress.next_offset, progress.last) = (*end, None);
            owned.next = *end;
            // Nothing is folded in this lane any more; what is parked is the next owner's.
            owned.lane = Lane::new(progress, BTreeMap::new());
            owned.lane.accept(Arc::clone(&accepted));
        }
        self.save().await?;
        if self.sink.needs_refresh() {
            self.calls.store(|sink| Box::pin(async move { sink.refresh().await })).await?;
        }
        Ok(())
    }
}
