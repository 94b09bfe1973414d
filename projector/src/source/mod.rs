//! Where events come from: Kafka, and the event store for a topic that was lost.

mod checks;
mod connect;
mod event_store;
mod kafka;
mod producer;
mod resume;

pub use checks::{Frozen, Refusal, Refused, Topic, before_reading, describe, frozen, judge_connectors, judge_topic};
pub use connect::{ConnectError, Connector, connectors};
pub use event_store::{EventStoreError, History, Key, Selection, StoredEvent, Survey};
pub use kafka::{Item, KafkaConfig, KafkaSource, Message, Room, SourceError, partition_counts};
pub use producer::{Bounds, TopicWriter, bounds};
pub use resume::{Held, held, other_than};
