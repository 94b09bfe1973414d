//! The owner of one generation: takes what the queue brings, folds, writes, saves progress, in that order and never otherwise.

mod anew;
mod flight;
mod lost;
mod owned;
mod refresh;
mod standstill;
mod waiting;

use super::cache::Share;
use super::calls::Calls;
use super::fold::Folding;
use super::letters::Letters;
use super::orders::Orders;
use super::publisher::Publisher;
use super::read::Reader;
use super::saver::Saver;
use super::stats::Stats;
use super::traced::Unseen;
use super::{HostError, Lookups};
use crate::apply::{Finished, Lane, Partition, Progress, occurrence};
use crate::control::{Control, Generation};
use crate::projection::ReadModelKind;
use crate::sink::Sink;
use crate::sink::behind::Behind;
use crate::source::{Item, KafkaSource, Message};
use chrono::{DateTime, Utc};
use flight::{Flights, Messages};
use futures::future::BoxFuture;
use owned::{Owned, Stopped};
use refresh::{Refreshing, join};
use standstill::{HELD_BACK_MAX, Standstill};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Messages that are decoded before others get their turn.
const READ_AT_ONCE: usize = 64;
/// Pauses before a partition that stopped is tried again. A poison event is parked at its third try.
const STOPPED_RETRY: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(30),
];
/// How long an event waits for a missing one before it.
const HOLD: Duration = Duration::from_secs(10);
/// Poison events in a minute that are parked; more mean that it isn't the events' fault, and the read model stands still.
const PARKED_A_MINUTE: usize = 50;

/// What an owner is given.
pub(super) struct Setup {
    pub(super) generation: Generation,
    pub(super) reader: Reader,
    pub(super) lookups: Arc<Lookups>,
    pub(super) sink: Arc<dyn Sink>,
    /// The same, where its writes may be put off.
    pub(super) behind: Option<Arc<Behind>>,
    pub(super) source: KafkaSource,
    pub(super) publisher: Publisher,
    pub(super) control: Control,
    pub(super) stats: Arc<Stats>,
    pub(super) fault_delay: Duration,
    pub(super) event_store: Option<String>,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) stop: CancellationToken,
    pub(super) cache_share: Share,
}

pub(super) struct Worker {
    setup: Setup,
    calls: Calls,
    folding: Folding,
    /// Messages whose partition is in a batch already, or for which no batch more may be under way.
    waiting: Messages,
    flights: Flights,
    /// How many batches may be under way at once.
    beside: usize,
    letters: Letters,
    owned: BTreeMap<Partition, Owned>,
    saver: Saver,
    /// Events written but not visible yet, where the store needs a refresh.
    invisible: Vec<DateTime<Utc>>,
    /// Those of them whose traces are kept.
    traced: Vec<Unseen>,
    refreshing: Option<Refreshing>,
    next_refresh: Instant,
    next_batch: Instant,
    next_letters: Instant,
    /// Documents to be made anew, with the orders' keys.
    documents: VecDeque<(i64, String)>,
    /// When the last poison events were parked.
    poison: VecDeque<Instant>,
    /// Set while a barrier holds us.
    standstill: Option<Standstill>,
    /// What was read beyond it.
    held_back: VecDeque<Item>,
}

impl Worker {
    pub(super) fn new(setup: Setup) -> Self {
        let calls = Calls {
            generation: setup.generation.id(),
            sink: Arc::clone(&setup.sink),
            reader: setup.reader.clone(),
            lookups: Arc::clone(&setup.lookups),
            stats: Arc::clone(&setup.stats),
            stop: setup.stop.clone(),
            standing: Arc::new(Mutex::new(None)),
        };
        let saver = Saver::new(calls.clone());
        let control = setup.control.clone();
        let letters = Letters { control, generation_id: setup.generation.generation_id, calls: calls.clone() };
        let now = Instant::now();
        Self {
            folding: Folding::new(calls.clone(), setup.cache_share.clone(), setup.fault_delay),
            waiting: Messages::new(),
            flights: Flights::new(),
            // Documents of other kinds are made from several partitions: batches beside each other would be in each other's way.
            beside: if calls.reader.compiled.kind == ReadModelKind::Entity { setup.sink.writers() } else { 1 },
            calls,
            setup,
            letters,
            owned: BTreeMap::new(),
            saver,
            invisible: Vec::new(),
            traced: Vec::new(),
            refreshing: None,
            next_refresh: now,
            next_batch: now,
            next_letters: now,
            documents: VecDeque::new(),
            poison: VecDeque::new(),
            standstill: None,
            held_back: VecDeque::new(),
        }
    }

    /// Works until the queue ends.
    pub(super) async fn run(mut self, mut items: mpsc::Receiver<Item>) -> Result<(), HostError> {
        let aside = !self.setup.generation.is_live();
        self.calls
            .store(|sink| {
                Box::pin(async move { if aside { sink.prepare_aside().await } else { sink.prepare().await } })
            })
            .await?;
        self.put_off().await?;
        let (far, stop) = (Duration::from_secs(3600), self.setup.stop.clone());
        loop {
            let stopped =
                self.owned.values().filter_map(|o| o.stopped.as_ref().filter(|s| !s.rewinding).map(|s| s.retry_at));
            let stopped = stopped.min();
            let give_up = self.owned.values().filter_map(|o| o.give_up_at).min();
            let later = |at: Option<Instant>| tokio::time::sleep_until(at.unwrap_or_else(|| Instant::now() + far));
            let (has_room, moves) = (self.held_back.len() < HELD_BACK_MAX, self.standstill.is_none());
            tokio::select! {
                item = paced(&mut items, self.next_batch), if has_room && self.takes_more() => match item {
                    Some(item) => self.take(item, &mut || items.try_recv().ok()).await?,
                    None => return self.save_all().await,
                },
                () = standstill::changed(&mut self.setup.orders) => self.ordered().await?,
                // Let go: what waits in the queue is read again by the next owner.
                () = stop.cancelled() => {
                    self.waiting.clear();
                    return self.save_all().await;
                }
                () = later(stopped), if stopped.is_some() => self.rewind_stopped().await?,
                () = later(give_up), if moves && give_up.is_some() => self.give_up().await?,
                () = std::future::ready(()), if moves && !self.documents.is_empty() => self.make_anew().await?,
                () = tokio::time::sleep_until(self.next_letters), if moves && self.has_letters() => self.look_at_letters().await?,
                () = tokio::time::sleep_until(self.next_refresh), if self.wants_refresh() => self.start_refresh(),
                Some(landed) = self.flights.join_next(), if !self.flights.is_empty() => {
                    self.landed(landed).await?;
                    self.start_what_may().await?;
                    if self.calls.sink.puts_off() && self.flights.is_empty() && self.is_caught_up() {
                        // What is put off has nothing more to wait for.
                        self.saver.hurry();
                    }
                }
                result = join(&mut self.refreshing), if self.refreshing.is_some() => self.refreshed(result),
                saved = self.saver.saved(), if self.saver.has_work() => self.saved(&saved?),
            }
            self.arrive().await?;
        }
    }

    /// Takes one item and all that wait behind it, up to a batch; what isn't a message ends the batch.
    async fn take(&mut self, first: Item, more: &mut (dyn FnMut() -> Option<Item> + Send)) -> Result<(), HostError> {
        let (began, was_full) = (Instant::now(), self.setup.source.is_full());
        let wait = Duration::from_millis(self.setup.reader.compiled.projection.limits.batch_wait_ms.into());
        let batch_max = self.batch_max().min(self.room().max(1));
        if self.standstill.is_some() {
            // What lies beyond the place is told by the lanes.
            self.land_all().await?;
        }
        let (mut next, mut size) = (Some(first), 0);
        while let Some(item) = next {
            match item {
                Item::Message(mut message) if self.is_beyond(&message) => {
                    // What waits here must not keep the queue from what comes before the barrier.
                    message.room = None;
                    // Nor so much memory: it is read again when its turn comes.
                    message.event = None;
                    self.held_back.push_back(Item::Message(message));
                }
                Item::Message(message) => {
                    self.verify(&message).await?;
                    if self.is_wanted(&message) {
                        self.waiting.entry(message.partition.clone()).or_default().push(message);
                    }
                }
                other => {
                    self.land_all().await?;
                    self.turn(other).await?;
                }
            }
            size += 1;
            next = if size < batch_max { more() } else { None };
        }
        let events = self.waiting();
        if events == 0 {
            return Ok(());
        }
        self.start_what_may().await?;
        let is_large = size >= batch_max.min(flight::BATCH_MIN) || self.setup.source.is_full();
        if !(is_large && self.setup.orders.borrow().flows()) {
            self.land_all().await?;
        }
        let is_followed = is_large || self.more_than_a_few();
        let pause = self.setup.orders.borrow().pause_after(events, is_followed, began.elapsed());
        // A batch that has all there is room for doesn't get larger by waiting.
        let pace = if was_full || size >= batch_max { Duration::ZERO } else { self.setup.sink.pace() };
        self.next_batch = began + pace.max(wait).max(pause);
        Ok(())
    }

    /// Whether a message is for us: of a partition that we own and that goes on, and not handled yet.
    fn is_wanted(&self, message: &Message) -> bool {
        let next = self.next(&message.partition);
        self.owned.get(&message.partition).is_some_and(|owned| owned.stopped.is_none()) && message.offset >= next
    }

    /// Finds out whether the topic is still the one that was read before. One that was deleted and made anew begins again at
    /// offset 0; what it brings again is known by the watermark, at whatever offset.
    async fn verify(&mut self, message: &Message) -> Result<(), HostError> {
        let next = self.next(&message.partition);
        let Some(owned) = self.owned.get_mut(&message.partition).filter(|owned| owned.stopped.is_none()) else {
            return Ok(());
        };
        let verify = std::mem::take(&mut owned.verify);
        if message.offset >= next {
            if verify && message.offset > next {
                self.stand_before_lost(next, message)?;
            }
            return Ok(());
        }
        if verify && message.offset + 1 == next {
            let found = self.calls.read(message.offset, message.raw.clone()).await?;
            let expected = self.owned.get(&message.partition).and_then(|o| o.lane.progress().last.clone());
            if expected.is_none() || found.reference().map(occurrence) == expected {
                return Ok(());
            }
        }
        // What came of the old topic is settled first.
        self.land_all().await?;
        tracing::warn!(generation = self.calls.generation, topic = %message.partition.topic, partition = message.partition.number,
            offset = message.offset, expected = next, "the topic was made anew: beginning with it again");
        if let Some(owned) = self.owned.get_mut(&message.partition) {
            owned.lane.restart();
            if message.offset > 0 {
                let retry_at = Instant::now();
                owned.stopped =
                    Some(Stopped { retry_at, rewinding: false, reason: "the topic was made anew".to_owned() });
            }
        }
        Ok(())
    }

    /// Whether all that was in the topic a second ago is handled.
    fn is_caught_up(&self) -> bool {
        let ends = self.setup.source.end_offsets();
        self.owned.iter().all(|(partition, owned)| ends.get(partition).is_some_and(|end| owned.next() >= *end))
    }

    async fn turn(&mut self, item: Item) -> Result<(), HostError> {
        match item {
            Item::Message(_) => {}
            Item::Assigned(partitions, answer) => self.assigned(partitions, answer).await?,
            Item::Revoked(partitions, done) => {
                self.save_all().await?;
                self.folding.forget_all();
                for partition in &partitions {
                    self.forget_held_back(partition);
                    self.owned.remove(partition);
                    self.setup.stats.with(|s| s.next.remove(partition));
                }
                let standing = self.standing_error();
                self.setup.stats.with(|s| s.doing.stands(standing.as_deref()));
                tracing::info!(generation = self.calls.generation, partitions = partitions.len(), "revoked");
                drop(done);
            }
            Item::Rewound(partition) => {
                // It all comes again.
                self.forget_held_back(&partition);
                if let Some(owned) = self.owned.get_mut(&partition) {
                    owned.stopped = None;
                }
            }
        }
        Ok(())
    }

    async fn assigned(
        &mut self,
        partitions: Vec<Partition>,
        answer: oneshot::Sender<Vec<i64>>,
    ) -> Result<(), HostError> {
        // First the fence, then the progress: what a former owner still saves after this is refused.
        let claims = self.letters.claim(&partitions).await?;
        let asked = Arc::new(partitions.clone());
        let saved = self
            .calls
            .store(|sink| {
                let asked = Arc::clone(&asked);
                Box::pin(async move { sink.load_progress(&asked).await })
            })
            .await?;
        let accepted = Arc::new(self.calls.control(|| Box::pin(self.setup.control.accepted_epochs())).await?);
        tracing::info!(generation = self.calls.generation, partitions = partitions.len(), "assigned");
        let mut offsets = Vec::with_capacity(partitions.len());
        let mut now = Vec::with_capacity(partitions.len());
        let mut published = Vec::with_capacity(partitions.len());
        for ((partition, (fence, parked)), progress) in partitions.into_iter().zip(claims).zip(saved) {
            let mut lane = Lane::new(progress.unwrap_or_default(), parked);
            lane.fence(fence);
            lane.accept(Arc::clone(&accepted));
            let next = lane.progress().next_offset;
            let verify = next > 0;
            offsets.push(if verify { next - 1 } else { 0 });
            now.push((partition.clone(), lane.progress().clone()));
            published.push((partition.clone(), lane.published()));
            self.setup.stats.with(|s| s.next.insert(partition.clone(), next));
            self.owned.insert(partition, Owned { lane, fence, verify, ..Owned::default() });
        }
        self.setup.publisher.publish(self.setup.generation.generation_id, &published);
        // The fence is saved at once, or with the first batch, so that it holds from the beginning.
        self.saver.save(&now);
        // Since the fence is ours, no decision falls without us: a barrier that is there now holds us too.
        self.look_for_barrier().await?;
        self.documents = self.setup.orders.borrow().documents.clone().into();
        self.setup.stats.assigned.store(true, Ordering::Relaxed);
        if answer.send(offsets).is_err() {
            tracing::debug!("assignment was withdrawn meanwhile");
        }
        Ok(())
    }

    /// Whether so many events were parked lately that it isn't the events' fault.
    fn parks_too_many(&mut self) -> bool {
        let minute_ago = Instant::now().checked_sub(Duration::from_secs(60));
        while self.poison.front().is_some_and(|at| minute_ago.is_some_and(|ago| *at < ago)) {
            self.poison.pop_front();
        }
        self.poison.len() >= PARKED_A_MINUTE
    }

    /// Parks, saves (unless that is done) and publishes what a batch came to.
    async fn settle(&mut self, finished: Finished, is_saved: bool) -> Result<(), HostError> {
        let now = Instant::now();
        let poison = finished.parked.iter().filter(|parked| parked.reason.is_some()).count();
        self.poison.extend(std::iter::repeat_n(now, poison));
        self.setup.stats.measures.parked.inc_by(poison as u64);
        self.setup.stats.measures.failures.inc_by(finished.stops.len() as u64);
        let mut parked: BTreeMap<Partition, Vec<_>> = BTreeMap::new();
        for letter in finished.parked {
            parked.entry(letter.partition.clone()).or_default().push(letter);
        }
        for (partition, letters) in parked {
            let fence = self.owned.get(&partition).map_or(0, |owned| owned.fence);
            self.letters.park(fence, letters).await?;
        }
        let progress: Vec<_> = finished.lanes.iter().map(|(p, lane)| (p.clone(), lane.progress().clone())).collect();
        // Waiting queries may go on: the store has the documents. Kafka learns of it when the store has the progress too.
        let published: Vec<_> = finished.lanes.iter().map(|(p, lane)| (p.clone(), lane.published())).collect();
        self.setup.publisher.publish(self.setup.generation.generation_id, &published);
        if is_saved {
            self.saved(&progress);
        } else {
            self.saver.save(&progress);
        }
        for (partition, lane) in finished.lanes {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.give_up_at = lane.is_holding().then(|| owned.give_up_at.unwrap_or(now + HOLD));
                (owned.lane, owned.away) = (lane, None);
                owned.watch_recent(&self.calls.generation, &partition);
            }
        }
        for (partition, stop) in &finished.stops {
            if let Some(owned) = self.owned.get_mut(partition) {
                let tries = owned.lane.failed();
                let pause = STOPPED_RETRY[(tries.saturating_sub(1) as usize).min(STOPPED_RETRY.len() - 1)];
                let reason =
                    format!("{}/{} stopped at {}: {}", partition.topic, partition.number, stop.offset, stop.reason);
                owned.stopped = Some(Stopped { retry_at: Instant::now() + pause, rewinding: false, reason });
                tracing::warn!(generation = self.calls.generation, topic = %partition.topic, partition = partition.number,
                    offset = stop.offset, tries, reason = stop.reason, "partition stopped");
            }
        }
        let (needs_refresh, standing) = (self.setup.sink.needs_refresh(), self.standing_error());
        let (live, replaying) = self.setup.orders.borrow().phase();
        self.setup.stats.with(|s| {
            s.applied += finished.applied.len() as u64;
            s.duplicates += finished.duplicates;
            s.errors += finished.stops.len() as u64;
            s.doing.stands(standing.as_deref());
            s.last_error = standing;
            for (partition, progress) in &progress {
                let before = s.next.insert(partition.clone(), progress.next_offset).unwrap_or(progress.next_offset);
                s.handled += u64::try_from(progress.next_offset - before).unwrap_or_default();
            }
            s.doing.last_applied = s.doing.last_applied.max(finished.applied.iter().max().copied());
        });
        self.note_in_hand();
        if !needs_refresh && live {
            self.setup.stats.visible(&finished.applied);
        }
        if needs_refresh && !replaying {
            self.invisible.extend(finished.applied);
            self.note_unrefreshed();
        }
        Ok(())
    }

    /// Tells Kafka what the read store knows to be handled.
    fn saved(&self, saved: &[(Partition, Progress)]) {
        for (partition, progress) in saved {
            self.setup.source.handled(partition, progress.next_offset);
        }
    }

    /// Puts writes off as long as nobody reads what is replayed. No batch may be under way.
    async fn put_off(&self) -> Result<(), HostError> {
        let Some(behind) = &self.setup.behind else { return Ok(()) };
        let (_, replaying) = self.setup.orders.borrow().phase();
        let call = |_| -> BoxFuture<'_, _> { Box::pin(behind.put_off(replaying)) };
        self.calls.store(call).await
    }

    /// Waits until every batch has landed and is written, and all progress is saved.
    async fn save_all(&mut self) -> Result<(), HostError> {
        self.land_all().await?;
        if let Some(behind) = &self.setup.behind {
            let call = |_| -> BoxFuture<'_, _> { Box::pin(behind.write_all()) };
            self.calls.store(call).await?;
        }
        while self.saver.has_work() {
            self.saver.hurry();
            let saved = self.saver.saved().await?;
            self.saved(&saved);
        }
        Ok(())
    }

    /// The error of a partition that stands still, if any does.
    fn standing_error(&self) -> Option<String> {
        let standing =
            self.owned.values().find_map(|owned| owned.stopped.as_ref().map(|stopped| stopped.reason.clone()));
        self.calls.standing.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&standing);
        standing
    }

    async fn rewind_stopped(&mut self) -> Result<(), HostError> {
        let accepted = Arc::new(self.calls.control(|| Box::pin(self.setup.control.accepted_epochs())).await?);
        let now = Instant::now();
        for (partition, owned) in &mut self.owned {
            if let Some(stopped) = owned.stopped.as_mut().filter(|s| !s.rewinding && s.retry_at <= now) {
                stopped.rewinding = true;
                owned.lane.accept(Arc::clone(&accepted));
                // What is to be verified comes first, as after an assignment.
                let from = owned.lane.progress().next_offset - i64::from(owned.verify);
                self.setup.source.rewind(partition.clone(), from);
            }
        }
        Ok(())
    }
}

/// The next item, from `at` on.
async fn paced(items: &mut mpsc::Receiver<Item>, at: Instant) -> Option<Item> {
    tokio::time::sleep_until(at).await;
    items.recv().await
}
