//! Writes stored events to their topic as Debezium would: the same key, headers, payload and partition.
//!
//! Idempotent and to all replicas; the first message that can't be delivered ends the run. The record's time is now, as it is with Debezium: Kafka's retention
//! begins with it, and history in its own time would be deleted as soon as it is written.

use super::event_store::StoredEvent;
use super::kafka::{KafkaConfig, SourceError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::time::Duration;

/// Messages on their way at a time.
const IN_FLIGHT_MAX: usize = 10_000;

/// Writes to one topic.
pub struct TopicWriter {
    producer: FutureProducer,
    topic: String,
    deliveries: Deliveries,
}

impl TopicWriter {
    /// A producer for `topic`.
    ///
    /// # Errors
    /// [`SourceError::Kafka`].
    pub fn new(kafka: &KafkaConfig, topic: &str) -> Result<Self, SourceError> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &kafka.kafka_brokers)
            .set("client.id", "projector-republish")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Where the Java clients, and so Connect, put a key.
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("message.timeout.ms", "120000")
            // How large a message may be is the topic's to say.
            .set("message.max.bytes", "100000000")
            .set("queue.buffering.max.messages", (2 * IN_FLIGHT_MAX).to_string())
            .set("queue.buffering.max.kbytes", "65536")
            .create()?;
        Ok(Self { producer, topic: topic.to_owned(), deliveries: Deliveries::default() })
    }

    /// Sends an event behind those sent before; waits while many are on their way.
    ///
    /// # Errors
    /// This one or an earlier one can't be delivered.
    pub async fn send(&mut self, event: &StoredEvent) -> Result<(), SourceError> {
        let Self { producer, topic, deliveries } = self;
        while deliveries.on_their_way.len() >= IN_FLIGHT_MAX {
            deliveries.next().await?;
        }
        let mut headers = OwnedHeaders::new_with_capacity(event.headers().len());
        for (key, value) in event.headers() {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record =
            FutureRecord::to(topic).key(event.aggregate_id.as_str()).payload(&event.payload).headers(headers);
        loop {
            match producer.send_result(record) {
                Ok(delivery) => {
                    deliveries.on_their_way.push(delivery);
                    return Ok(());
                }
                // Full by bytes before it is by messages.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    if deliveries.on_their_way.is_empty() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    deliveries.next().await?;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Waits until all have arrived.
    ///
    /// # Errors
    /// One of them can't be delivered.
    pub async fn settle(&mut self) -> Result<(), SourceError> {
        while !self.deliveries.on_their_way.is_empty() {
            self.deliveries.next().await?;
        }
        Ok(())
    }

    /// How many have arrived, by partition.
    #[must_use]
    pub fn delivered(&self) -> &BTreeMap<i32, u64> {
        &self.deliveries.arrived
    }
}

#[derive(Default)]
struct Deliveries {
    on_their_way: FuturesUnordered<DeliveryFuture>,
    arrived: BTreeMap<i32, u64>,
}

impl Deliveries {
    /// Waits for one of those on their way, if there are any.
    async fn next(&mut self) -> Result<(), SourceError> {
        match self.on_their_way.next().await {
            None => Ok(()),
            Some(Ok(Ok(delivery))) => {
                *self.arrived.entry(delivery.partition).or_default() += 1;
                Ok(())
            }
            Some(Ok(Err((error, _)))) => Err(error.into()),
            Some(Err(_)) => Err(KafkaError::Canceled.into()),
        }
    }
}
