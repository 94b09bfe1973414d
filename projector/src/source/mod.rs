//! Where events come from: Kafka.

mod kafka;

pub use kafka::{Item, KafkaConfig, KafkaSource, Message, SourceError, partition_counts};
