//! Going on with a refill that was interrupted: is what a topic holds the beginning of what it shall hold?
//!
//! A producer that is idempotent leaves in each partition a beginning of what was sent to it, wherever it is cut off. Each
//! partition's messages are compared with the event store by count and by a hash over their aggregates and sequences in order.
//! Only then is the rest sent behind them, and the topic is as if the refill had never stopped.

use super::edges::Bounds;
use super::event_store::{EventStoreError, History};
use super::kafka::{KafkaConfig, SourceError};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// A broker that gives nothing for so long is away.
const SILENCE: Duration = Duration::from_secs(20);

/// What a partition holds: how many messages, and a hash of which they are, in order.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// How many.
    pub count: u64,
    hasher: DefaultHasher,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        (self.count, self.hasher.finish()) == (other.count, other.hasher.finish())
    }
}

impl Held {
    fn add(&mut self, aggregate_id: &[u8], sequence: &[u8]) {
        (aggregate_id, sequence).hash(&mut self.hasher);
        self.count += 1;
    }
}

/// Reads a topic from its beginning to its end, which must not move.
///
/// # Errors
/// Kafka can't be reached, or falls silent.
pub async fn held(kafka: &KafkaConfig, topic: &str, bounds: &Bounds) -> Result<BTreeMap<i32, Held>, SourceError> {
    let (brokers, topic, bounds) = (kafka.kafka_brokers.clone(), topic.to_owned(), bounds.clone());
    let read = tokio::task::spawn_blocking(move || read(&brokers, &topic, &bounds));
    read.await.map_err(|error| SourceError::Thread(std::io::Error::other(error)))?
}

fn read(brokers: &str, topic: &str, bounds: &Bounds) -> Result<BTreeMap<i32, Held>, SourceError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // Never committed to; a consumer must name one.
        .set("group.id", "projector-republish")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut list = TopicPartitionList::new();
    let mut missing: BTreeMap<i32, i64> = BTreeMap::new();
    for (partition, (low, high)) in bounds.iter().filter(|(_, (low, high))| high > low) {
        list.add_partition_offset(topic, *partition, Offset::Offset(*low))?;
        missing.insert(*partition, *high);
    }
    consumer.assign(&list)?;
    let (mut all, mut last) = (BTreeMap::<i32, Held>::new(), Instant::now());
    while !missing.is_empty() {
        let Some(message) = consumer.poll(Duration::from_millis(200)) else {
            if last.elapsed() > SILENCE {
                return Err(SourceError::Thread(std::io::Error::other(format!(
                    "no message of {topic} for {SILENCE:?}"
                ))));
            }
            continue;
        };
        let message = message?;
        last = Instant::now();
        let sequence = message.headers().and_then(|all| all.iter().find(|header| header.key == "sequence")?.value);
        let held = all.entry(message.partition()).or_default();
        held.add(message.key().unwrap_or_default(), sequence.unwrap_or_default());
        if missing.get(&message.partition()).is_some_and(|high| message.offset() + 1 >= *high) {
            missing.remove(&message.partition());
        }
    }
    Ok(all)
}

/// The first partition whose messages aren't the beginning of what the event store has for it; none if all are. Returns to
/// the history's beginning.
///
/// # Errors
/// [`EventStoreError`].
pub async fn other_than(
    history: &mut History,
    held: &BTreeMap<i32, Held>,
    partition_of: impl Fn(&str) -> i32,
) -> Result<Option<i32>, EventStoreError> {
    let mut stored: BTreeMap<i32, Held> = BTreeMap::new();
    loop {
        let keys = history.keys().await?;
        if keys.is_empty() {
            break;
        }
        for key in keys {
            let partition = partition_of(&key.aggregate_id);
            let begin = stored.entry(partition).or_default();
            if held.get(&partition).is_some_and(|held| begin.count < held.count) {
                begin.add(key.aggregate_id.as_bytes(), key.sequence.to_string().as_bytes());
            }
        }
    }
    history.rewind().await?;
    Ok(held.iter().find(|(partition, held)| stored.get(partition) != Some(held)).map(|(partition, _)| *partition))
}
