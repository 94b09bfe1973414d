//! Topics on the real broker.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::time::{SystemTime, UNIX_EPOCH};

use connectors::topics::{self, Settings, TopicError};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

fn brokers() -> String {
    std::env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS is not set: run through ./dev test")
}

fn settings(name: &str, partitions: i32) -> Settings {
    Settings { aggregates: vec![name.to_owned()], partitions, retention_days: 7, replication_factor: 1 }
}

/// A name that no earlier run has used.
fn fresh(purpose: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    format!("{purpose}-{now}")
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn topics_are_created_once_and_other_partitions_are_refused() {
    let name = fresh("partitions");
    let created = topics::ensure(&brokers(), &settings(&name, 3), "app").await.unwrap();
    assert!(created.contains(&format!("events.{name}")), "{created:?}");
    assert_eq!(topics::ensure(&brokers(), &settings(&name, 3), "app").await.unwrap(), Vec::<String>::new());
    let refusal = topics::ensure(&brokers(), &settings(&name, 4), "app").await.unwrap_err();
    assert!(matches!(refusal, TopicError::Partitions { found: 3, wanted: 4, .. }), "{refusal}");
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_compacted_topic_is_refused() {
    let name = fresh("compacted");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
    let topic = format!("events.{name}");
    let compacted = NewTopic::new(&topic, 3, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    for result in admin.create_topics(&[compacted], &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
    let refusal = topics::ensure(&brokers(), &settings(&name, 3), "app").await.unwrap_err().to_string();
    assert!(refusal.contains("cleanup.policy=compact, delete is wanted"), "{refusal}");
}
