//! The messages, compared with those that Debezium made of the same rows.

use crate::support::{PARTITIONS, create_topic, kafka, of, own_type, remove_topics, var};
use anyhow::{Context as _, Result, ensure};
use projector::event::Envelope;
use projector::query::partition_of;
use projector::source::{History, KafkaConfig, TopicWriter};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use sqlx::{Connection, PgConnection};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

async fn write_database() -> Result<PgConnection> {
    Ok(PgConnection::connect(&var("WRITE_DATABASE_URL")?).await?)
}

type Raw = (Vec<u8>, Vec<(String, Vec<u8>)>, Vec<u8>);

/// A topic's messages by partition, once there are `count`.
async fn read(kafka: &KafkaConfig, topic: &str, count: usize) -> Result<BTreeMap<i32, Vec<Raw>>> {
    let brokers = kafka.kafka_brokers.clone();
    let topic = topic.to_owned();
    let reading = move || {
        let client =
            |key: &str, value: &str| ClientConfig::new().set("bootstrap.servers", &brokers).set(key, value).clone();
        let consumer: BaseConsumer = client("group.id", "republish-test").create()?;
        let mut list = TopicPartitionList::new();
        (0..PARTITIONS).try_for_each(|p| list.add_partition_offset(&topic, p, Offset::Beginning))?;
        consumer.assign(&list)?;
        let (mut all, deadline) = (BTreeMap::<i32, Vec<Raw>>::new(), Instant::now() + Duration::from_secs(30));
        while all.values().map(Vec::len).sum::<usize>() < count {
            ensure!(
                Instant::now() < deadline,
                "{topic}: {} of {count} came",
                all.values().map(Vec::len).sum::<usize>()
            );
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            // A snapshot claims the order of commits, so nobody but the connector sends it.
            let headers = message.headers().context("headers")?.iter().filter(|h| h.key != "tx_snapshot");
            let headers = headers.map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect();
            let (key, value) = (message.key().context("a key")?, message.payload().context("a value, if empty")?);
            all.entry(message.partition()).or_default().push((key.to_vec(), headers, value.to_vec()));
        }
        Ok(all)
    };
    tokio::task::spawn_blocking(reading).await?
}

/// The reference write side with its connector, which `./dev test` leaves to those that need it.
async fn services_up() -> Result<()> {
    let tool = Path::new(env!("CARGO_BIN_EXE_projector")).with_file_name("xtask");
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let run = move || Command::new(&tool).args(["services", "up"]).current_dir(root).output();
    let output =
        tokio::task::spawn_blocking(run).await?.context("running xtask, which `cargo build --workspace` makes")?;
    ensure!(output.status.success(), "services: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

const FILL: &str = r#"
with row as (
    select gen_random_uuid() as id, 's-' || n || case when n % 7 = 0 then ' ä/%' else '' end as aggregate_id,
           '{"b": 1, "a": "ü\"\\n", "n": 1.50}'::jsonb as metadata,
           case n % 3 when 0 then ''::bytea when 1 then '\x0000000001ff0a'::bytea
               else convert_to(repeat('x', 5000), 'UTF8') end as payload,
           timestamptz '2026-05-23T10:00:00Z' + n * 1037 * interval '100 microseconds'
               - case when n % 5 = 0 then interval '70 years' else interval '0' end as at
    from generate_series(1, 150) as n
), stored as (
    insert into events (stream_id, stream_position, event_id, aggregate_type, aggregate_id, event_type, schema_version, data,
                        payload, metadata, created_at)
    select $1 || '-' || aggregate_id, $2, id, $1, aggregate_id, 'Filled', 2, '{}', payload, metadata, at from row)
insert into outbox (outbox_id, aggregate_type, aggregate_id, sequence, event_type, schema_version, payload, occurred_at, metadata)
select id, $1, aggregate_id, $2, 'Filled', 2, payload, at, metadata from row"#;

/// Three transactions, as commands would write them.
async fn fill(aggregate_type: &str) -> Result<()> {
    let mut connection = write_database().await?;
    for sequence in 1..=3_i64 {
        sqlx::query(FILL).bind(aggregate_type).bind(sequence).execute(&mut connection).await?;
    }
    Ok(())
}

async fn unfill(aggregate_type: &str) -> Result<()> {
    let mut connection = write_database().await?;
    for delete in ["delete from events where aggregate_type = $1", "delete from outbox where aggregate_type = $1"] {
        sqlx::query(delete).bind(aggregate_type).execute(&mut connection).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the stack: ./dev test"]
async fn a_refilled_topic_holds_what_debezium_sent_byte_for_byte() -> Result<()> {
    let (kafka, shelf) = (kafka()?, own_type());
    let (original, copy) = (format!("events.{shelf}"), format!("copies.{shelf}"));
    services_up().await?;
    create_topic(&kafka, &original, PARTITIONS, &[]).await?;
    create_topic(&kafka, &copy, PARTITIONS, &[]).await?;
    let steps = {
        let (kafka, shelf, original, copy) = (kafka.clone(), shelf.clone(), original.clone(), copy.clone());
        tokio::spawn(async move {
            fill(&shelf).await?;
            let sent = read(&kafka, &original, 450).await?;
            let mut history = History::open(&var("WRITE_DATABASE_URL")?, &of(&shelf)).await?;
            let mut writer = TopicWriter::new(&kafka, &copy)?;
            for event in history.events().await? {
                writer.send(&event).await?;
            }
            writer.settle().await?;
            let refilled = read(&kafka, &copy, 450).await?;
            assert_eq!(refilled, sent, "key, headers, payload, and here, with one writer, even the order");
            for (partition, messages) in &refilled {
                assert_eq!(writer.delivered()[partition], u64::try_from(messages.len())?);
                for (key, headers, _) in messages {
                    let envelope = Envelope::read(&projector::event::Raw::new(Some(key), headers, None))?;
                    assert_eq!(partition_of(&envelope.reference.aggregate_id, PARTITIONS), *partition);
                }
            }
            anyhow::Ok(())
        })
        .await
    };
    remove_topics(&kafka, &[&original, &copy]).await?;
    unfill(&shelf).await?;
    steps.context("the steps panicked")?
}
