//! Heartbeats, read back from the real Kafka.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::{Duration, Instant};

use command_api::outbox::{Heartbeats, KafkaHeartbeats};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(30);

/// As Debezium sends them: the outbox row's id in the header `id`.
async fn send(producer: &FutureProducer, topic: &str, id: &str, at_ms: i64) {
    let headers = OwnedHeaders::new()
        .insert(Header { key: "event_type", value: Some("Heartbeat") })
        .insert(Header { key: "id", value: Some(id) });
    let record = FutureRecord::to(topic).key("heartbeat").payload(&[0_u8]).headers(headers).timestamp(at_ms);
    producer.send(record, LIMIT).await.unwrap();
}

async fn eventually(heartbeats: &mut KafkaHeartbeats, sent: &[Uuid]) -> bool {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if heartbeats.read_back(sent).await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_was_sent_since_is_read_back_and_nothing_else() {
    let brokers = std::env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS");
    let topic = format!("heartbeats-{}", Uuid::new_v4());
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let producer: FutureProducer = config.create().unwrap();
    let now_ms = chrono::Utc::now().timestamp_millis();
    let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    for (id, age_ms) in ids.iter().zip([3_600_000, 1_000, 900]) {
        send(&producer, &topic, &id.to_string(), now_ms - age_ms).await;
    }
    send(&producer, &topic, "no id", now_ms).await;

    let mut heartbeats = KafkaHeartbeats::start(&brokers, &topic, now_ms - 5_000);
    assert!(eventually(&mut heartbeats, &ids[1..3]).await);
    assert!(!heartbeats.read_back(&ids[..1]).await, "from before");
    assert!(!heartbeats.read_back(&ids[3..]).await, "not sent yet");
    send(&producer, &topic, &ids[3].to_string(), now_ms).await;
    assert!(eventually(&mut heartbeats, &ids[2..]).await, "an id that was asked for before is remembered");
    // begun when there is nothing so young: what comes afterwards is seen
    let mut late = KafkaHeartbeats::start(&brokers, &topic, now_ms + 60_000);
    let deadline = Instant::now() + LIMIT;
    loop {
        let id = Uuid::now_v7();
        send(&producer, &topic, &id.to_string(), now_ms).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        if late.read_back(&[id]).await {
            break;
        }
        assert!(Instant::now() < deadline, "nothing is read back");
    }
    admin.delete_topics(&[&topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
}
