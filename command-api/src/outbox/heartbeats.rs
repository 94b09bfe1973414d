//! Heartbeats, read back from Kafka.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use uuid::Uuid;

/// Where the connector sends heartbeats. Its one partition is the outbox's order.
pub const TOPIC: &str = "events.heartbeat";
const POLL: Duration = Duration::from_millis(500);
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// None for so long, and another client reads on: librdkafka (2.10 and later) forgets all brokers once it is told that none is there,
/// as a cluster of one says of itself after it stood still for too long, and asks nobody any more. Otherwise they come every second.
const SILENT_AFTER: Duration = Duration::from_secs(15);
/// A day of them; far more than wait for a mark at any time.
const REMEMBERED_MAX: usize = 100_000;

/// Where heartbeats arrive.
pub trait Heartbeats: Send {
    /// Whether all of these arrived. What did is not asked for again.
    fn read_back(&mut self, sent: &[Uuid]) -> impl Future<Output = bool> + Send;
}

/// Reads the heartbeats' topic, on a thread of its own.
#[derive(Debug)]
pub struct KafkaHeartbeats {
    seen: Arc<Mutex<HashSet<Uuid>>>,
    stop: Arc<AtomicBool>,
}

impl KafkaHeartbeats {
    /// Begins with those sent at `from_ms` (since 1970), and goes on until it is dropped. Kafka need not be there yet.
    #[must_use]
    pub fn start(brokers: &str, topic: &str, from_ms: i64) -> Self {
        let (seen, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let reader = Self { seen: Arc::clone(&seen), stop: Arc::clone(&stop) };
        let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
        std::thread::spawn(move || {
            let mut from_ms = from_ms;
            while !stop.load(Ordering::Relaxed) {
                match read(&brokers, &topic, from_ms, &seen, &stop) {
                    Ok(newest_ms) => from_ms = newest_ms,
                    Err(error) => {
                        tracing::warn!(%error, topic, "heartbeats can't be read back");
                        std::thread::sleep(RETRY_AFTER);
                    }
                }
            }
        });
        reader
    }
}

impl Heartbeats for KafkaHeartbeats {
    async fn read_back(&mut self, sent: &[Uuid]) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let all = sent.iter().all(|id| seen.contains(id));
        if all || seen.len() > REMEMBERED_MAX {
            // Those that are still asked for stay, in case stamping them fails.
            seen.retain(|id| sent.contains(id));
        }
        all
    }
}

impl Drop for KafkaHeartbeats {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Until none comes any more; then when the newest was sent.
fn read(
    brokers: &str,
    topic: &str,
    from_ms: i64,
    seen: &Mutex<HashSet<Uuid>>,
    stop: &AtomicBool,
) -> Result<i64, KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("client.id", "command-api")
        // Never joined nor committed to: librdkafka wants a name.
        .set("group.id", "command-api-heartbeats")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()?;
    // Asked for first: what comes after it is read in any case.
    let (_, end) = consumer.fetch_watermarks(topic, 0, KAFKA_TIMEOUT)?;
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_offset(topic, 0, Offset::Offset(from_ms))?;
    let found = consumer.offsets_for_times(wanted, KAFKA_TIMEOUT)?;
    let offset = match found.find_partition(topic, 0).map(|partition| partition.offset()) {
        Some(Offset::Offset(offset)) => Offset::Offset(offset),
        // None so young.
        _ => Offset::Offset(end),
    };
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition_offset(topic, 0, offset)?;
    consumer.assign(&assigned)?;
    let (mut newest_ms, mut heard) = (from_ms, Instant::now());
    while !stop.load(Ordering::Relaxed) && heard.elapsed() < SILENT_AFTER {
        let Some(message) = consumer.poll(POLL) else { continue };
        let message = message?;
        (newest_ms, heard) = (message.timestamp().to_millis().unwrap_or(newest_ms), Instant::now());
        let header = message.headers().and_then(|all| all.iter().find(|header| header.key == "id"));
        let id = header.and_then(|header| std::str::from_utf8(header.value?).ok()?.parse().ok());
        if let Some(id) = id {
            seen.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
    }
    Ok(newest_ms)
}
