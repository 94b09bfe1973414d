//! The outbox's heartbeats, read back from Kafka: the newest one tells what has been published.
//!
//! They come to a topic of one partition, so only its end is read, without a group: whoever begins sees the last one at once.

use super::kafka::{KafkaConfig, SourceError};
use super::poll::raw;
use crate::event::Envelope;
use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// None for so long, and another client reads on: this one may have forgotten its brokers (`brokers.rs`). Otherwise they come
/// every second; where nobody writes any, a new client now and then is no loss.
const SILENT_AFTER: Duration = Duration::from_secs(15);

/// A heartbeat that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The life of the write database that it is of.
    pub epoch: String,
    /// The transaction that wrote it.
    pub txid: i64,
    /// When it was written.
    pub occurred_at: DateTime<Utc>,
}

/// Reads heartbeats on a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Heartbeats {
    newest: Arc<Mutex<Option<Beat>>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Heartbeats {
    /// Begins with the last one of `topic`. Kafka need not be there yet.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn start(kafka: &KafkaConfig, topic: &str) -> Result<Self, SourceError> {
        let reader = Self { newest: Arc::default(), stop: Arc::default() };
        let (newest, stop) = (Arc::clone(&reader.newest), Arc::clone(&reader.stop));
        let (brokers, topic) = (kafka.kafka_brokers.clone(), topic.to_owned());
        std::thread::Builder::new().name("heartbeats".to_owned()).spawn(move || {
            let mut said = false;
            while !stop.load(Ordering::Relaxed) {
                if let Err(error) = read(&brokers, &topic, &newest, &stop) {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%error, topic, "the outbox's heartbeats can't be read back; trying again");
                    }
                    std::thread::sleep(RETRY_AFTER);
                }
            }
        })?;
        Ok(reader)
    }

    /// The newest one.
    #[must_use]
    pub fn newest(&self) -> Option<Beat> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(brokers: &str, topic: &str, newest: &Mutex<Option<Beat>>, stop: &AtomicBool) -> Result<(), SourceError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("client.id", "projector-monitor")
        // Never joined nor committed to: librdkafka wants a name.
        .set("group.id", "projector-monitor")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "latest")
        .create()?;
    let (first, end) = consumer.fetch_watermarks(topic, 0, LIMIT)?;
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition_offset(topic, 0, Offset::Offset((end - 1).max(first)))?;
    consumer.assign(&assigned)?;
    let mut heard = Instant::now();
    while !stop.load(Ordering::Relaxed) && heard.elapsed() < SILENT_AFTER {
        let Some(message) = consumer.poll(POLL) else { continue };
        heard = Instant::now();
        if let Some(beat) = beat(&message?) {
            *newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(beat);
        }
    }
    Ok(())
}

fn beat(message: &BorrowedMessage<'_>) -> Option<Beat> {
    match Envelope::read(&raw(message)) {
        Ok(envelope) => Some(Beat {
            epoch: envelope.reference.epoch.to_string(),
            txid: envelope.reference.txid.cast_signed(),
            occurred_at: envelope.occurred_at,
        }),
        Err(error) => {
            tracing::debug!(%error, offset = message.offset(), "not a heartbeat");
            None
        }
    }
}
