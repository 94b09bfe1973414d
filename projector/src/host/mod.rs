//! The host: runs the generations that are to be fed on this machine, and follows the control store ([`follow`]): a new one is
//! taken up and one that is gone let go without a restart.
//!
//! Each generation has one task, its **owner** ([`worker`]): all that changes its documents passes through that task in
//! order, partition by partition. One owner a generation rather than one a partition, so that whatever the partitions have
//! brought meanwhile goes to the store in one call; a partition that must stop doesn't stop the others.

mod cache;
mod calls;
mod fold;
mod follow;
mod lag;
mod letters;
mod lookup;
mod measures;
mod meter;
mod orders;
mod past;
mod present;
mod publisher;
mod read;
mod retry;
mod saver;
mod stats;
mod traced;
mod upkeep;
mod worker;

use crate::apply::Partition;
use crate::control::{Control, ControlError, Generation};
use crate::event::{Catalog, Decoder};
use crate::projection::{Compiled, Finding, ReadModelKind, Source};
use crate::sink::behind::Behind;
use crate::sink::{self, Place, Sink, SinkError, StoreUrls};
use crate::source::{KafkaConfig, KafkaSource, Queued, Room, SourceError};
use orders::Orders;
use publisher::Publisher;
use read::Reader;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use upkeep::Upkeep;
use uuid::Uuid;
use worker::{Setup, Worker};

pub use lookup::Lookups;
pub use measures::Measures;
pub use meter::LagMeter;
pub use past::Past;
pub use present::Promise;
pub use retry::Backoff;
pub use stats::{Reported, Stats};

/// What may wait between Kafka and a live generation's owner. A store that is away fills it.
const LIVE_ROOM: Room = Room { items: 4_096, queue_kib: 3 << 10, fetch_kib: 1 << 10 };
/// What may wait for all of a host's owners, where they are so many that each gets less.
const LIVE_QUEUES_KIB: u32 = 18 << 10;
/// Of a generation that is replayed: its batches are large, and there are few.
const REPLAY_ROOM: Room = Room { items: 16_384, queue_kib: 16 << 10, fetch_kib: 8 << 10 };
/// How long all generations together may take to come to rest when the host stops.
const REST_WITHIN: Duration = Duration::from_secs(15);
/// How long the last progress may take to be published, where coming to rest took all the time there was.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);
/// How often the control store is looked at where it doesn't notify.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// What a host needs to know.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Kafka.
    pub kafka: KafkaConfig,
    /// The read stores.
    pub stores: StoreUrls,
    /// The database with the event store, from which single documents are made anew, if it was named.
    pub event_store: Option<String>,
    /// How long each write is held back; zero but in tests.
    pub fault_delay: Duration,
}

/// Why a generation can't run here.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its frozen projection doesn't compile against this host's schemas.
    #[error("{generation}: {}", .findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Projection {
        /// Which.
        generation: String,
        /// All that is wrong.
        findings: Vec<Finding>,
    },
    /// Its store can't be used.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// Kafka.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The control store.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Messages are gone that it hasn't handled.
    #[error("{generation}: {}/{}: {reason}", .partition.topic, .partition.number)]
    Lost {
        /// Which.
        generation: String,
        /// Where.
        partition: Partition,
        /// What, and what to do.
        reason: String,
    },
    /// Its task ended by a fault of ours.
    #[error("{0} ended unexpectedly")]
    Died(String),
}

/// Compiles a generation's frozen projection and opens its place.
///
/// # Errors
/// [`HostError`].
pub fn open(
    generation: &Generation,
    catalog: &Catalog,
    urls: &StoreUrls,
) -> Result<(Compiled, Arc<dyn Sink>), HostError> {
    let source =
        Source { name: format!("{} (as applied)", generation.id()).into(), text: generation.config.as_str().into() };
    let compiled = Compiled::new(&source, catalog)
        .map_err(|findings| HostError::Projection { generation: generation.id(), findings })?;
    let place = Place {
        read_model: generation.read_model.clone(),
        generation: u32::try_from(generation.generation).unwrap_or_default(),
        document: compiled.document.clone(),
    };
    let sink = sink::open(&compiled.projection.store, place, urls)?;
    Ok((compiled, sink))
}

/// A place whose writes may be put off: where each document has one owner, and its aggregate's sequence for a version.
fn put_off(compiled: &Compiled, sink: &Arc<dyn Sink>, stats: &Arc<Stats>) -> Option<Arc<Behind>> {
    let stats = Arc::clone(stats);
    let told = move |documents: u64, took: Duration| {
        stats.measures.written.inc_by(documents);
        stats.measures.write_seconds.observe(took.as_secs_f64());
    };
    let may = compiled.kind == ReadModelKind::Entity;
    may.then(|| Arc::new(Behind::new(Arc::clone(sink), Box::new(told))))
}

/// The room of a live generation, of so many.
fn live_room(of: usize) -> Room {
    let share = LIVE_QUEUES_KIB / u32::try_from(of).unwrap_or(u32::MAX).max(1);
    let queue_kib = share.clamp(LIVE_ROOM.queue_kib / 3, LIVE_ROOM.queue_kib);
    // The client library fetches no less than the largest message.
    Room { queue_kib, ..LIVE_ROOM }
}

/// A running generation.
struct Running {
    generation: Generation,
    stats: Arc<Stats>,
    source: KafkaSource,
    orders: watch::Sender<Orders>,
    promise: Promise,
    stop: CancellationToken,
    task: JoinHandle<Result<(), HostError>>,
    _upkeep: Upkeep,
}

/// What operators may watch of a generation that runs here.
#[derive(Clone)]
pub struct Watched {
    /// The read model.
    pub read_model: String,
    /// The generation's number.
    pub generation: i32,
    /// Whether queries read it.
    pub live: bool,
    /// What it has done since it was started here.
    pub stats: Arc<Stats>,
    /// What its projection promises, and where it writes.
    pub promise: Promise,
    /// A [`State`](crate::control::State)'s name.
    pub state: String,
    /// Messages and KiB of them that wait for its owner.
    pub queued: Queued,
}

/// The generations that run on this host.
pub struct Host {
    id: Uuid,
    running: Vec<Running>,
    /// Those that were let go and come to rest, by their key.
    leaving: HashMap<i64, JoinHandle<()>>,
    /// Those that can't run here, so that it is said once.
    refused: HashMap<i64, String>,
    watched: Arc<RwLock<Vec<Watched>>>,
    stop: CancellationToken,
    publisher: Publisher,
    control: Control,
    catalog: Arc<Catalog>,
    decoder: Arc<Decoder>,
    cache_share: cache::Share,
    config: HostConfig,
}

impl Host {
    /// Starts all generations that are to be fed.
    ///
    /// # Errors
    /// The first live generation that can't run; none runs then.
    pub async fn start(
        control: Control,
        catalog: Arc<Catalog>,
        decoder: Arc<Decoder>,
        config: &HostConfig,
    ) -> Result<Self, HostError> {
        let mut host = Self {
            id: Uuid::now_v7(),
            running: Vec::new(),
            leaving: HashMap::new(),
            refused: HashMap::new(),
            watched: Arc::default(),
            stop: CancellationToken::new(),
            publisher: Publisher::start(control.clone()),
            control,
            catalog,
            decoder,
            cache_share: cache::Share::default(),
            config: config.clone(),
        };
        // Of what is live now each must run, or the host says why it can't start.
        let live = host.control.live().await?;
        let among = live.len();
        for generation in live {
            host.run(generation, Arc::default(), Orders { live: true, ..Orders::default() }, among)?;
        }
        host.follow().await?;
        Ok(host)
    }

    /// Starts one of `among` generations, which share the room that there is.
    fn run(
        &mut self,
        generation: Generation,
        stats: Arc<Stats>,
        orders: Orders,
        among: usize,
    ) -> Result<(), HostError> {
        let (compiled, sink) = open(&generation, &self.catalog, &self.config.stores)?;
        let group = format!("projector.{}", generation.id());
        // For as long as this host runs: what was replayed keeps its room when it becomes live.
        let room = if orders.replaying { REPLAY_ROOM } else { live_room(among) };
        let reader = Reader::new(Arc::new(compiled), &self.decoder);
        let (compiled, reading) = (Arc::clone(&reader.compiled), reader.clone());
        let read = Box::new(move |raw: &_| reading.read(raw));
        let (source, items) = KafkaSource::start(&self.config.kafka, &group, &compiled.topics(), room, read)?;
        let (kind, store) = (compiled.kind.name(), compiled.projection.store.name());
        tracing::info!(generation = generation.id(), state = generation.state, kind, store, "running");
        let upkeep = Upkeep::start(generation.id(), Arc::clone(&sink), Arc::clone(&stats));
        let behind = orders.replaying.then(|| put_off(&compiled, &sink, &stats)).flatten();
        let sink = behind.clone().map_or(sink, |behind| behind);
        let (orders, ordered) = watch::channel(orders);
        let stop = self.stop.child_token();
        let limits = &compiled.projection.limits;
        let promise = Promise {
            lag_max: Duration::from_millis(limits.lag_ms_max.into()),
            lag_critical: Duration::from_millis(limits.lag_ms_critical.into()),
            store,
        };
        let (catalog, stores) = (Arc::clone(&self.catalog), self.config.stores.clone());
        let lookups = Arc::new(Lookups::new(Arc::clone(&compiled), self.control.clone(), catalog, stores));
        let worker = Worker::new(Setup {
            generation: generation.clone(),
            reader,
            lookups,
            sink,
            behind,
            source: source.clone(),
            publisher: self.publisher.clone(),
            control: self.control.clone(),
            stats: Arc::clone(&stats),
            fault_delay: self.config.fault_delay,
            event_store: self.config.event_store.clone(),
            orders: ordered,
            stop: stop.clone(),
            cache_share: self.cache_share.clone(),
        });
        let task = tokio::spawn(worker.run(items));
        self.running.push(Running { generation, stats, source, orders, promise, stop, task, _upkeep: upkeep });
        Ok(())
    }

    /// Gives a generation whose consumer came to its end another one. Gives it back if it ended for another reason.
    async fn run_again(&mut self, ended: Running) -> Result<Option<Running>, HostError> {
        let Some(reason) = ended.source.fatal().map(str::to_owned) else { return Ok(Some(ended)) };
        let Running { generation, stats, source, task, orders, .. } = ended;
        match task.await {
            Ok(result) => result?,
            Err(_) => return Err(HostError::Died(generation.id())),
        }
        tracing::warn!(generation = generation.id(), reason, "the consumer can't go on; beginning with another one");
        stats.joins_again();
        close(source);
        let orders = orders.borrow().clone();
        self.run(generation, stats, orders, self.running.len() + 1)?;
        Ok(None)
    }

    /// What runs here, kept current.
    #[must_use]
    pub fn watched(&self) -> Arc<RwLock<Vec<Watched>>> {
        Arc::clone(&self.watched)
    }

    /// Follows the control store and reports to it until `stop`, then lets all generations come to rest.
    ///
    /// # Errors
    /// A live generation that ended by itself: it was fenced, or its store isn't what it should be.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), HostError> {
        tokio::pin!(stop);
        let wake = follow::listen(self.control.clone());
        let mut every = tokio::time::interval(Duration::from_secs(1));
        let ended = loop {
            let report = tokio::select! {
                () = &mut stop => break Ok(None),
                () = wake.notified() => false,
                () = tokio::time::sleep(FOLLOW_EVERY) => false,
                _ = every.tick() => true,
            };
            // Whoever stops us doesn't wait for a control store that is slow to answer.
            tokio::select! {
                () = &mut stop => break Ok(None),
                () = self.look_around(report) => {}
            }
            match self.look_at_ended().await {
                Ok(None) => {}
                ended => break ended,
            }
        };
        let (ended, result) = match ended {
            Ok(ended) => (ended, Ok(())),
            Err(error) => (None, Err(error)),
        };
        let rested = self.come_to_rest(ended).await;
        result.and(rested)
    }

    /// Lets all generations come to rest, and leaves their groups.
    async fn come_to_rest(mut self, ended: Option<Running>) -> Result<(), HostError> {
        tracing::info!(generations = self.running.len(), "coming to rest");
        self.running.iter().for_each(|r| r.source.stop());
        // One limit for all: with a store away, each of its generations would take the whole of its own.
        let until = Instant::now() + REST_WITHIN;
        let (mut result, mut closing) = (Ok(()), Vec::new());
        for running in ended.into_iter().chain(self.running.drain(..)) {
            let Running { generation, source, task, .. } = running;
            let outcome = tokio::time::timeout_at(until, task).await;
            match outcome {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => result = Err(error),
                Ok(Err(_)) => result = Err(HostError::Died(generation.id())),
                Err(_) => tracing::warn!(
                    generation = generation.id(),
                    "didn't come to rest in time; what is left is done again, harmlessly, by the next owner"
                ),
            }
            closing.push(close(source));
        }
        self.stop.cancel();
        for closed in closing {
            if tokio::time::timeout_at(until, closed).await.is_err() {
                tracing::warn!("a consumer didn't leave its group in time; the group will notice by itself");
                break;
            }
        }
        if tokio::time::timeout_at(until.max(Instant::now() + FLUSH_WITHIN), self.publisher.flush()).await.is_err() {
            tracing::warn!("progress not published; the next owner will publish it");
        }
        result
    }

    async fn look_around(&mut self, report: bool) {
        if report {
            self.report().await;
        }
        if let Err(error) = self.follow().await {
            // What is known goes on.
            tracing::debug!(%error, "the control store wasn't followed");
        }
    }

    async fn report(&self) {
        for running in &self.running {
            let status = running.stats.status(self.id, &running.generation, &running.source, running.promise);
            if let Err(error) = self.control.report(&status).await {
                tracing::warn!(%error, "status not reported");
            }
        }
    }
}

/// Closes a consumer aside: its last handle waits for the broker, which may be away.
fn close(source: KafkaSource) -> JoinHandle<()> {
    tokio::task::spawn_blocking(move || drop(source))
}

/// Messages in these partitions that aren't handled yet.
fn behind(ends: &HashMap<Partition, i64>, next: &HashMap<Partition, i64>) -> i64 {
    next.iter().map(|(partition, next)| ends.get(partition).map_or(0, |end| (end - next).max(0))).sum()
}
