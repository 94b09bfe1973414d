//! The owner of one generation: takes what the queue brings, folds, writes, saves progress, in that order and never otherwise.

use super::cache::Cache;
use super::publisher::Publisher;
use super::retry::Backoff;
use super::saver::Saver;
use super::stats::Stats;
use super::{HostError, next_offset};
use crate::apply::{Batch, Delivery, Event, Finished, Part, Partition, Progress};
use crate::control::Generation;
use crate::event::{Decoder, Envelope};
use crate::projection::{Compiled, ReadModelKind};
use crate::sink::{Outcome, Sink, SinkError, Stored, Write};
use crate::source::{Item, KafkaSource, Message};
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Events in a batch at most.
const BATCH_MAX: usize = 500;
/// How long writes to a store with refreshes may stay invisible to those who don't wait.
const REFRESH_EVERY: Duration = Duration::from_millis(100);
/// Pauses before a partition that stopped is tried again.
const STOPPED_RETRY: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(30)];

/// A partition of ours.
#[derive(Debug, Default)]
struct Owned {
    progress: Progress,
    /// Set while the partition stands before a message that couldn't be handled; its messages are dropped until the source
    /// has gone back to it.
    stopped: Option<Stopped>,
    tries: usize,
}

#[derive(Debug)]
struct Stopped {
    retry_at: Instant,
    rewinding: bool,
    reason: String,
}

/// A refresh under way, and the events that it will make visible.
struct Refreshing {
    task: JoinHandle<Result<(), SinkError>>,
    events: Vec<DateTime<Utc>>,
}

/// What an owner is given.
pub(super) struct Setup {
    pub(super) generation: Generation,
    pub(super) compiled: Arc<Compiled>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) decoder: Arc<Decoder>,
    pub(super) source: KafkaSource,
    pub(super) publisher: Publisher,
    pub(super) stats: Arc<Stats>,
    pub(super) fault_delay: Duration,
    pub(super) stop: CancellationToken,
}

pub(super) struct Worker {
    setup: Setup,
    owned: BTreeMap<Partition, Owned>,
    cache: Cache,
    saver: Saver,
    /// Events written but not visible yet, where the store needs a refresh.
    invisible: Vec<DateTime<Utc>>,
    refreshing: Option<Refreshing>,
    next_refresh: Instant,
    next_batch: Instant,
}

impl Worker {
    pub(super) fn new(setup: Setup) -> Self {
        let saver = Saver::new(Arc::clone(&setup.sink), setup.stop.clone());
        Self {
            setup,
            owned: BTreeMap::new(),
            cache: Cache::default(),
            saver,
            invisible: Vec::new(),
            refreshing: None,
            next_refresh: Instant::now(),
            next_batch: Instant::now(),
        }
    }

    /// Works until the queue ends.
    pub(super) async fn run(mut self, mut items: mpsc::Receiver<Item>) -> Result<(), HostError> {
        self.retry(|sink| Box::pin(async move { sink.prepare().await })).await?;
        loop {
            let stopped = self
                .owned
                .values()
                .filter_map(|o| o.stopped.as_ref().filter(|s| !s.rewinding).map(|s| s.retry_at))
                .min();
            let far = Instant::now() + Duration::from_secs(3600);
            tokio::select! {
                item = paced(&mut items, self.next_batch) => match item {
                    Some(item) => self.take(item, &mut items).await?,
                    None => return self.save_all().await,
                },
                () = tokio::time::sleep_until(stopped.unwrap_or(far)), if stopped.is_some() => self.rewind_stopped(),
                () = tokio::time::sleep_until(self.next_refresh), if self.wants_refresh() => self.start_refresh(),
                result = join(&mut self.refreshing), if self.refreshing.is_some() => self.refreshed(result),
                saved = self.saver.saved(), if self.saver.has_work() => self.saved(&saved?),
            }
        }
    }

    /// Takes one item and all that wait behind it, up to a batch; what isn't a message ends the batch.
    async fn take(&mut self, first: Item, items: &mut mpsc::Receiver<Item>) -> Result<(), HostError> {
        let mut batch: BTreeMap<Partition, Vec<Message>> = BTreeMap::new();
        let (mut next, mut size) = (Some(first), 0);
        while let Some(item) = next {
            match item {
                Item::Message(message) => {
                    if self.is_wanted(&message) {
                        batch.entry(message.partition.clone()).or_default().push(message);
                    }
                }
                other => {
                    self.process(std::mem::take(&mut batch)).await?;
                    self.turn(other).await?;
                }
            }
            size += 1;
            next = if size < BATCH_MAX { items.try_recv().ok() } else { None };
        }
        self.process(batch).await
    }

    /// Whether a message is for us: of a partition that we own and that goes on, and not handled yet.
    fn is_wanted(&self, message: &Message) -> bool {
        self.owned
            .get(&message.partition)
            .is_some_and(|o| o.stopped.is_none() && message.offset >= o.progress.next_offset)
    }

    async fn turn(&mut self, item: Item) -> Result<(), HostError> {
        match item {
            Item::Message(_) => {}
            Item::Assigned(partitions, answer) => self.assigned(partitions, answer).await?,
            Item::Revoked(partitions, done) => {
                self.save_all().await?;
                self.cache.clear();
                for partition in &partitions {
                    self.owned.remove(partition);
                    self.setup.stats.with(|s| s.next.remove(partition));
                }
                tracing::info!(generation = self.setup.generation.id(), partitions = partitions.len(), "revoked");
                drop(done);
            }
            Item::Rewound(partition) => {
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
        let asked = Arc::new(partitions.clone());
        let saved = self
            .retry(|sink| {
                let asked = Arc::clone(&asked);
                Box::pin(async move { sink.load_progress(&asked).await })
            })
            .await?;
        let offsets = saved.iter().map(|p| next_offset(p.as_ref())).collect();
        tracing::info!(generation = self.setup.generation.id(), partitions = partitions.len(), "assigned");
        let now: Vec<_> = partitions
            .into_iter()
            .zip(saved)
            .map(|(partition, progress)| (partition, progress.unwrap_or_default()))
            .collect();
        self.setup.publisher.publish(self.setup.generation.generation_id, &now);
        for (partition, progress) in now {
            self.setup.stats.with(|s| s.next.insert(partition.clone(), progress.next_offset));
            self.owned.insert(partition, Owned { progress, ..Owned::default() });
        }
        self.setup.stats.assigned.store(true, Ordering::Relaxed);
        if answer.send(offsets).is_err() {
            tracing::debug!("assignment was withdrawn meanwhile");
        }
        Ok(())
    }

    async fn process(&mut self, messages: BTreeMap<Partition, Vec<Message>>) -> Result<(), HostError> {
        if messages.is_empty() {
            return Ok(());
        }
        self.next_batch = Instant::now() + self.setup.sink.pace();
        let mut parts = Vec::with_capacity(messages.len());
        for (partition, messages) in messages {
            let mut deliveries = Vec::with_capacity(messages.len());
            for message in messages {
                deliveries.push(Delivery { offset: message.offset, event: self.read(&message).await });
            }
            let progress = self.owned.get(&partition).map(|o| o.progress.clone()).unwrap_or_default();
            parts.push(Part { partition, progress, deliveries });
        }
        let mut batch = Batch::new(Arc::clone(&self.setup.compiled), parts);
        let started = Instant::now();
        loop {
            let loaded = self.load(&batch.keys()).await?;
            let writes = Arc::new(batch.fold(loaded));
            if writes.is_empty() {
                break;
            }
            if !self.setup.fault_delay.is_zero() {
                tokio::time::sleep(self.setup.fault_delay).await;
            }
            let outcomes = self
                .retry(|sink| {
                    let writes = Arc::clone(&writes);
                    Box::pin(async move { sink.write(&writes).await })
                })
                .await?;
            self.remember(&writes, &outcomes);
            batch.answered(outcomes);
            if batch.is_done() {
                break;
            }
        }
        tracing::debug!(generation = self.setup.generation.id(), ms = started.elapsed().as_millis(), "batch written");
        self.settle(batch.finish());
        Ok(())
    }

    /// The documents of `keys`: those that we wrote last from the cache, the others from the store.
    async fn load(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, HostError> {
        let missing: Vec<String> = keys.iter().filter(|key| self.cache.get(key).is_none()).cloned().collect();
        let mut loaded = Vec::new();
        if !missing.is_empty() {
            let missing = Arc::new(missing);
            loaded = self
                .retry(|sink| {
                    let missing = Arc::clone(&missing);
                    Box::pin(async move { sink.load(&missing).await })
                })
                .await?;
        }
        let mut loaded = loaded.into_iter();
        Ok(keys.iter().map(|key| self.cache.get(key).cloned().or_else(|| loaded.next().flatten())).collect())
    }

    fn remember(&mut self, writes: &[Write], outcomes: &[Outcome]) {
        if self.setup.compiled.kind == ReadModelKind::Facts {
            return;
        }
        for (write, outcome) in writes.iter().zip(outcomes) {
            match outcome {
                Outcome::Written => self.cache.put(write.key.clone(), write.stored()),
                Outcome::Stale | Outcome::Rejected(_) => self.cache.forget(&write.key),
            }
        }
    }

    /// Saves and publishes what a batch came to.
    fn settle(&mut self, finished: Finished) {
        let progress = finished.progress;
        // Waiting queries may go on: the store has the documents. Kafka learns of it when the store has the progress too.
        self.setup.publisher.publish(self.setup.generation.generation_id, &progress);
        self.saver.save(&progress);
        for (partition, progress) in &progress {
            if let Some(owned) = self.owned.get_mut(partition) {
                if progress.next_offset > owned.progress.next_offset {
                    owned.tries = 0;
                }
                owned.progress = progress.clone();
            }
        }
        for (partition, stop) in &finished.stops {
            if let Some(owned) = self.owned.get_mut(partition) {
                let pause = STOPPED_RETRY[owned.tries.min(STOPPED_RETRY.len() - 1)];
                owned.tries += 1;
                let reason =
                    format!("{}/{} stopped at {}: {}", partition.topic, partition.number, stop.offset, stop.reason);
                owned.stopped = Some(Stopped { retry_at: Instant::now() + pause, rewinding: false, reason });
                tracing::error!(generation = self.setup.generation.id(), topic = %partition.topic, partition = partition.number,
                    offset = stop.offset, tries = owned.tries, reason = stop.reason, "partition stopped");
            }
        }
        let (needs_refresh, standing) = (self.setup.sink.needs_refresh(), self.standing_error());
        self.setup.stats.with(|s| {
            s.applied += finished.applied.len() as u64;
            s.duplicates += finished.duplicates;
            s.errors += finished.stops.len() as u64;
            s.last_error = standing;
            for (partition, progress) in &progress {
                s.next.insert(partition.clone(), progress.next_offset);
            }
            if !needs_refresh {
                s.lag.record(&finished.applied, Utc::now());
            }
        });
        if needs_refresh {
            self.invisible.extend(finished.applied);
        }
    }

    /// Tells Kafka what the read store knows to be handled.
    fn saved(&self, saved: &[(Partition, Progress)]) {
        for (partition, progress) in saved {
            self.setup.source.handled(partition, progress.next_offset);
        }
    }

    /// Waits until all progress is saved.
    async fn save_all(&mut self) -> Result<(), HostError> {
        while self.saver.has_work() {
            self.saver.hurry();
            let saved = self.saver.saved().await?;
            self.saved(&saved);
        }
        Ok(())
    }

    async fn read(&self, message: &Message) -> Result<Event, String> {
        let envelope =
            Envelope::read(message.key.as_deref(), |name| message.header(name)).map_err(|e| e.to_string())?;
        if self.setup.compiled.program(&envelope.event_type).is_none() {
            return Ok(Event { envelope, data: None });
        }
        let payload = message.payload.as_deref().unwrap_or_default();
        let mut backoff = Backoff::default();
        loop {
            match self.setup.decoder.decode(&envelope, payload).await {
                Ok(data) => return Ok(Event { envelope, data: Some(data) }),
                Err(error) if error.is_transient() && !self.setup.stop.is_cancelled() => {
                    self.failed(&error.to_string(), backoff.tries());
                    tokio::time::sleep(backoff.next_pause()).await;
                }
                Err(error) => return Err(format!("{} {}: {error}", envelope.event_type, envelope.id)),
            }
        }
    }

    /// Calls the store until it answers; what isn't the store being away ends the worker.
    async fn retry<'a, T>(
        &self,
        call: impl Fn(Arc<dyn Sink>) -> futures::future::BoxFuture<'a, Result<T, SinkError>>,
    ) -> Result<T, HostError> {
        let mut backoff = Backoff::default();
        loop {
            match call(Arc::clone(&self.setup.sink)).await {
                Ok(answer) => {
                    if backoff.tries() > 0 {
                        tracing::info!(generation = self.setup.generation.id(), "store is back");
                        self.setup.stats.with(|s| s.last_error = self.standing_error());
                    }
                    return Ok(answer);
                }
                Err(error @ SinkError::Unavailable { .. }) if !self.setup.stop.is_cancelled() => {
                    self.failed(&error.to_string(), backoff.tries());
                    tokio::time::sleep(backoff.next_pause()).await;
                }
                Err(error) => {
                    self.failed(&error.to_string(), 0);
                    return Err(error.into());
                }
            }
        }
    }

    /// The error of a partition that stands still, if any does.
    fn standing_error(&self) -> Option<String> {
        self.owned.values().find_map(|owned| owned.stopped.as_ref().map(|stopped| stopped.reason.clone()))
    }

    fn failed(&self, error: &str, tries: u32) {
        if tries.is_power_of_two() || tries == 0 {
            tracing::warn!(generation = self.setup.generation.id(), error, tries, "waiting, then trying again");
        }
        self.setup.stats.with(|s| {
            s.errors += 1;
            s.last_error = Some(error.to_owned());
        });
    }

    fn rewind_stopped(&mut self) {
        let now = Instant::now();
        for (partition, owned) in &mut self.owned {
            if let Some(stopped) = owned.stopped.as_mut().filter(|s| !s.rewinding && s.retry_at <= now) {
                stopped.rewinding = true;
                self.setup.source.rewind(partition.clone(), owned.progress.next_offset);
            }
        }
    }

    fn wants_refresh(&self) -> bool {
        !self.invisible.is_empty() && self.refreshing.is_none()
    }

    fn start_refresh(&mut self) {
        let sink = Arc::clone(&self.setup.sink);
        let id = self.setup.generation.id();
        let task = tokio::spawn(async move {
            let started = Instant::now();
            let result = sink.refresh().await;
            tracing::debug!(generation = id, ms = started.elapsed().as_millis(), "refreshed");
            result
        });
        self.refreshing = Some(Refreshing { task, events: std::mem::take(&mut self.invisible) });
        self.next_refresh = Instant::now() + REFRESH_EVERY;
    }

    fn refreshed(&mut self, result: Result<(), String>) {
        let Some(refreshing) = self.refreshing.take() else { return };
        match result {
            Ok(()) => self.setup.stats.with(|s| s.lag.record(&refreshing.events, Utc::now())),
            Err(error) => {
                self.failed(&error, 0);
                self.invisible.extend(refreshing.events);
            }
        }
    }
}

/// The next item, from `at` on.
async fn paced(items: &mut mpsc::Receiver<Item>, at: Instant) -> Option<Item> {
    tokio::time::sleep_until(at).await;
    items.recv().await
}

async fn join(refreshing: &mut Option<Refreshing>) -> Result<(), String> {
    match refreshing {
        Some(refreshing) => match (&mut refreshing.task).await {
            Ok(result) => result.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        },
        None => std::future::pending().await,
    }
}
