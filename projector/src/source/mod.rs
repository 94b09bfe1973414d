//! Where events come from: Kafka, and the event store for a topic that was lost.

mod brokers;
mod checks;
mod connect;
mod edges;
mod event_store;
mod heartbeat;
mod kafka;
mod partition;
mod poll;
mod producer;
mod resume;

pub use checks::{Frozen, Refusal, Refused, Topic, before_reading, describe, frozen, judge_connectors, judge_topic};
pub use connect::{ConnectError, Connector, connectors, restart};
pub use edges::{Bounds, Edges, bounds};
pub use event_store::{EventStoreError, History, Key, Selection, StoredEvent, Survey};
pub use heartbeat::{Beat, Heartbeats};
pub use kafka::{Item, KafkaConfig, KafkaSource, Message, Queued, Read, Room, SourceError, partition_counts};
pub use partition::partition_of;
pub use producer::TopicWriter;
pub use resume::{Held, held, other_than};
