//! A topic's partitions, read by one consumer group a generation.
//!
//! One OS thread polls a `BaseConsumer` and feeds a bounded queue: rdkafka's `StreamConsumer` and split queues lose wake-ups
//! (rust-rdkafka #638, #665). A queue that stays full pauses the partitions; polling goes on, so that the group doesn't think
//! this member dead while its store is down.
//!
//! The queue is the order of all things: an [`Item::Revoked`] comes behind the last message of the partitions it takes away,
//! an [`Item::Assigned`] before their first. Where to start isn't Kafka's to say: whoever reads the queue answers with the
//! offsets of the progress that is saved in the read store.

use super::brokers::{self, Unconnected};
use super::poll::{Queue, poll};
use crate::apply::{Event, Partition};
use crate::event::Raw;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Bytes of one partition in an answer of a broker's.
const PARTITION_FETCH_BYTES: &str = "131072";
/// How long a revocation waits for the events before it to be handled.
pub(super) const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// The cluster, and who we are in it.
#[derive(Clone, Debug, clap::Args)]
pub struct KafkaConfig {
    /// Kafka's bootstrap servers, host:port,…
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    pub kafka_brokers: String,
    /// A name for this host that outlives its process: a restart then takes its partitions back at once. Must differ from host to host
    #[arg(long, env = "PROJECTOR_INSTANCE_ID")]
    pub instance_id: Option<String>,
}

/// Why the source can't work.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Kafka refused or can't be reached.
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// The topic isn't there.
    #[error("topic `{0}` doesn't exist; `connectors apply` creates it with its partitions")]
    NoTopic(String),
    /// The thread couldn't be started.
    #[error("can't start the polling thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Reads a message as far as that needs nobody's answer.
pub type Read = Box<dyn Fn(&Raw) -> Option<Result<Box<Event>, String>> + Send>;

/// What may wait between Kafka and who reads the queue.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Items in the queue.
    pub items: usize,
    /// KiB of the messages in the queue; one that is larger waits until the queue is empty.
    pub queue_kib: u32,
    /// KiB that the client library fetches ahead of the queue, and in one answer of a broker's.
    pub fetch_kib: u32,
}

/// What waits between Kafka and who reads the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Items.
    pub items: usize,
    /// KiB of messages, at most.
    pub kib: u32,
}

/// A message and where it stood.
#[derive(Debug)]
pub struct Message {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: i64,
    /// When it was sent, by its sender's clock, in ms.
    pub sent_ms: Option<i64>,
    /// What it says.
    pub raw: Raw,
    /// The same, read; none if somebody has to be asked for that.
    pub event: Option<Result<Box<Event>, String>>,
    /// Its part of the queue's [`Room`], given back when this is dropped.
    pub room: Option<OwnedSemaphorePermit>,
}

impl Message {
    /// About what it takes in memory, in KiB: the bytes, and what was read.
    pub fn kib(&self) -> u32 {
        /// Values have names and nodes about them.
        const READ: usize = 3;
        let is_read = self.event.as_ref().is_some_and(|event| event.as_ref().is_ok_and(|event| event.data.is_some()));
        let read = if is_read { READ * self.raw.payload().map_or(0, <[u8]>::len) } else { 0 };
        u32::try_from((size_of::<Self>() + self.raw.bytes() + read).div_ceil(1024)).unwrap_or(u32::MAX)
    }
}

/// What the queue carries.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are messages")]
pub enum Item {
    /// A message of an assigned partition.
    Message(Message),
    /// These partitions are ours now: answer with the offset to start at, for each.
    Assigned(Vec<Partition>, oneshot::Sender<Vec<i64>>),
    /// These are no longer ours; dropping the sender says that all before is done.
    Revoked(Vec<Partition>, oneshot::Sender<()>),
    /// Reading of the partition starts again at the offset that was asked for.
    Rewound(Partition),
}

/// The reading end's handle on the consumer.
#[derive(Clone)]
pub struct KafkaSource {
    consumer: Arc<BaseConsumer<Context>>,
    rewinds: std::sync::mpsc::Sender<(Partition, i64)>,
    stop: Arc<AtomicBool>,
    fatal: Arc<OnceLock<String>>,
    queue: mpsc::WeakSender<Item>,
    kib: Arc<Semaphore>,
    kib_max: u32,
}

impl KafkaSource {
    /// Joins `group`, reads `topics` and feeds the queue, which holds as much as there is `room`. `read` runs on a thread of its own.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn start(
        config: &KafkaConfig,
        group: &str,
        topics: &[String],
        room: Room,
        read: Read,
    ) -> Result<(Self, mpsc::Receiver<Item>), SourceError> {
        let (queue, items) = mpsc::channel(room.items);
        let fetch_bytes = u64::from(room.fetch_kib) * 1024;
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &config.kafka_brokers)
            .set("client.id", "projector")
            .set("group.id", group)
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("fetch.queue.backoff.ms", "10")
            // What may wait here while a store is away; and come in one answer, of all partitions.
            .set("queued.max.messages.kbytes", room.fetch_kib.to_string())
            .set("fetch.max.bytes", fetch_bytes.to_string())
            // Of one partition little at a time, so that others are there to be worked on beside it.
            .set("max.partition.fetch.bytes", PARTITION_FETCH_BYTES)
            .set("statistics.interval.ms", "1000")
            .set_log_level(RDKafkaLogLevel::Warning);
        if let Some(instance) = &config.instance_id {
            client.set("group.instance.id", format!("{instance}-{group}"));
        }
        let context = Context {
            queue: Mutex::new(Some(queue.clone())),
            end_offsets: Mutex::default(),
            revocations: Mutex::default(),
            brokers: config.kafka_brokers.clone(),
            unconnected: Unconnected::default(),
            leaving: AtomicBool::new(false),
        };
        let consumer: Arc<BaseConsumer<Context>> = Arc::new(client.create_with_context(context)?);
        consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
        let (rewinds, asked) = std::sync::mpsc::channel();
        let (kib, kib_max) = (Arc::new(Semaphore::new(room.queue_kib as usize)), room.queue_kib);
        let source = Self {
            consumer: Arc::clone(&consumer),
            rewinds,
            stop: Arc::default(),
            fatal: Arc::default(),
            queue: queue.downgrade(),
            kib: Arc::clone(&kib),
            kib_max,
        };
        let queue = Queue { items: queue, kib, kib_max };
        let (stop, fatal) = (Arc::clone(&source.stop), Arc::clone(&source.fatal));
        std::thread::Builder::new()
            .name(format!("kafka-{group}"))
            .spawn(move || poll(&consumer, &queue, &read, &asked, &stop, &fatal))?;
        Ok((source, items))
    }

    /// Lets the group know what is handled: `offset` is the next to read. Committed within a second and when leaving.
    pub fn handled(&self, partition: &Partition, offset: i64) {
        let mut list = TopicPartitionList::new();
        let stored = list
            .add_partition_offset(&partition.topic, partition.number, Offset::Offset(offset))
            .and_then(|()| self.consumer.store_offsets(&list));
        if let Err(error) = stored {
            // Only other tools read it, and a partition just revoked can't be stored: not worth more than a word.
            tracing::debug!(%error, ?partition, "offset not stored");
        }
    }

    /// Reads a partition again from `offset`; an [`Item::Rewound`] tells where in the queue that begins.
    pub fn rewind(&self, partition: Partition, offset: i64) {
        if self.rewinds.send((partition, offset)).is_err() {
            tracing::debug!("rewind after the consumer has stopped");
        }
    }

    /// Where each partition ended a second ago at most.
    #[must_use]
    pub fn end_offsets(&self) -> HashMap<Partition, i64> {
        self.consumer.context().end_offsets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What waits in the queue now.
    #[must_use]
    pub fn queued(&self) -> Queued {
        // Only for a moment: the queue must end with the reading.
        let items = self.queue.upgrade().map_or(0, |queue| queue.max_capacity() - queue.capacity());
        let free = u32::try_from(self.kib.available_permits()).unwrap_or(u32::MAX);
        Queued { items, kib: self.kib_max.saturating_sub(free) }
    }

    /// Whether nothing more has room, so that reading waits for who reads the queue.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Queued { kib, .. } = self.queued();
        kib > self.kib_max - self.kib_max / 8
    }

    /// Why this consumer is at its end, if it is: the client library can't go on after such an error, and the queue has ended.
    /// A new consumer can (a static member that was away longer than its session is fenced, for one).
    #[must_use]
    pub fn fatal(&self) -> Option<&str> {
        self.fatal.get().map(String::as_str)
    }

    /// Leaves the group; the queue ends once all of it was read.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The number of partitions of each topic.
///
/// # Errors
/// [`SourceError`]; among them a topic that doesn't exist.
pub fn partition_counts(config: &KafkaConfig, topics: &[String]) -> Result<BTreeMap<String, i32>, SourceError> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &config.kafka_brokers).create()?;
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(10))?;
    topics
        .iter()
        .map(|name| {
            let topic = metadata.topics().iter().find(|t| t.name() == name && !t.partitions().is_empty());
            let count = topic.and_then(|t| i32::try_from(t.partitions().len()).ok());
            count.map(|n| (name.clone(), n)).ok_or_else(|| SourceError::NoTopic(name.clone()))
        })
        .collect()
}

pub(super) struct Context {
    /// Taken away when the reading ends: handles on the consumer live longer, and the queue must end all the same.
    queue: Mutex<Option<mpsc::Sender<Item>>>,
    end_offsets: Mutex<HashMap<Partition, i64>>,
    /// How often each partition was taken from us: a message in hand from before is then worth nothing.
    revocations: Mutex<HashMap<Partition, u64>>,
    brokers: String,
    unconnected: Unconnected,
    /// Nobody reads the queue any more: what comes last must not wait for it.
    leaving: AtomicBool,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        self.unconnected.note(statistics.brokers.values());
        let mut ends = self.end_offsets.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, topic) in statistics.topics {
            let name: Arc<str> = name.into();
            for (number, partition) in topic.partitions {
                if partition.hi_offset >= 0 {
                    ends.insert(Partition { topic: Arc::clone(&name), number }, partition.hi_offset);
                }
            }
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        // The last handle may be dropped on an async thread, where nothing may block.
        if self.leaving.load(Ordering::Relaxed) {
            if let Err(error) = consumer.unassign() {
                tracing::debug!(%error, "leaving the group");
            }
            return;
        }
        let partitions = partitions(list);
        let result = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                let (answer, offsets) = oneshot::channel();
                // The reader asks the read store, for as long as that takes; without it reading can't begin anyway.
                let asked = self.send(Item::Assigned(partitions, answer));
                let offsets = if asked { offsets.blocking_recv().unwrap_or_default() } else { Vec::new() };
                if offsets.len() < list.count() {
                    tracing::error!(
                        partitions = list.count(),
                        "no offsets to start at: nothing of these partitions is read"
                    );
                }
                start_at(list, &offsets).and_then(|start| consumer.incremental_assign(&start))
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                self.drain(partitions);
                consumer.incremental_unassign(list)
            }
            other => Err(KafkaError::Rebalance(other.into())),
        };
        if let Err(error) = result {
            tracing::error!(%error, "rebalance failed");
        }
    }
}

impl Context {
    /// Nothing comes any more: whoever reads the queue finds its end.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the queue took it; blocks while it is full.
    fn send(&self, item: Item) -> bool {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        queue.is_some_and(|queue| queue.blocking_send(item).is_ok())
    }

    /// Helps a client that has forgotten its brokers.
    pub(super) fn remind(&self, consumer: &BaseConsumer<Self>) {
        if self.unconnected.is_due() {
            brokers::tell(consumer, &self.brokers);
        }
    }

    pub(super) fn revocations(&self, item: &Item) -> u64 {
        let Item::Message(message) = item else { return 0 };
        self.revocations.lock().unwrap_or_else(PoisonError::into_inner).get(&message.partition).copied().unwrap_or(0)
    }

    fn drain(&self, partitions: Vec<Partition>) {
        for partition in &partitions {
            *self.revocations.lock().unwrap_or_else(PoisonError::into_inner).entry(partition.clone()).or_default() += 1;
        }
        let (done, mut waiting) = oneshot::channel();
        if partitions.is_empty() || !self.send(Item::Revoked(partitions, done)) {
            return;
        }
        let deadline = Instant::now() + DRAIN_DEADLINE;
        while matches!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            if Instant::now() > deadline {
                // Harmless: every write is conditional, so what comes late is refused where the new owner was faster.
                tracing::warn!("partitions revoked before their last events were handled");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements().iter().map(|e| Partition { topic: e.topic().into(), number: e.partition() }).collect()
}

fn start_at(list: &TopicPartitionList, offsets: &[i64]) -> Result<TopicPartitionList, KafkaError> {
    let mut start = TopicPartitionList::new();
    for (element, offset) in list.elements().iter().zip(offsets) {
        // Offset 0 may be gone by retention: then the beginning is what is left.
        let offset = if *offset == 0 { Offset::Beginning } else { Offset::Offset(*offset) };
        start.add_partition_offset(element.topic(), element.partition(), offset)?;
    }
    Ok(start)
}
