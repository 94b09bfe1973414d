//! What the tests share: databases and topics of their own.

use anyhow::{Context as _, Result};
use projector::source::{KafkaConfig, Selection};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::time::Duration;
use uuid::Uuid;

pub(crate) const PARTITIONS: i32 = 12;

pub(crate) fn var(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run through ./dev test"))
}

pub(crate) fn kafka() -> Result<KafkaConfig> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Ok(KafkaConfig { kafka_brokers: var("KAFKA_BROKERS")?, instance_id: None })
}

pub(crate) fn of(aggregate_type: &str) -> Selection {
    Selection { aggregate_type: aggregate_type.to_owned(), from_position: 0, aggregate_ids: Vec::new() }
}

pub(crate) fn own_type() -> String {
    format!("shelf-{}", Uuid::new_v4().simple())
}

/// The documented shape of the event store, and a table whose rows writers lock.
const EVENTS: &str = "
create table events (
    global_position bigserial primary key, stream_id text not null, stream_position bigint not null,
    event_id uuid not null unique default gen_random_uuid(), aggregate_type text not null default 'loan',
    aggregate_id text not null, event_type text not null default 'Borrowed', schema_version integer not null default 1,
    data jsonb not null default '{}', payload bytea not null default '', metadata jsonb not null default '{}',
    epoch text not null default 'first',
    txid bigint not null default pg_current_xact_id()::text::bigint,
    tx_min bigint not null default pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
    created_at timestamptz not null default now(), unique (stream_id, stream_position));
create table heads (aggregate_id text primary key, sequence bigint not null);
insert into heads select 'l-' || n, 0 from generate_series(0, 9) as n";

pub(crate) struct Database {
    pub(crate) url: String,
    name: String,
    server: String,
}

impl Database {
    pub(crate) async fn create() -> Result<Self> {
        let server = var("WRITE_DATABASE_URL")?;
        let name = format!("republish_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&server).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await?;
        let url = format!("{}/{name}", server.rsplit_once('/').context("a URL with a database")?.0);
        sqlx::raw_sql(EVENTS).execute(&mut PgConnection::connect(&url).await?).await?;
        Ok(Self { name, server, url })
    }

    pub(crate) async fn remove(self) -> Result<()> {
        let mut admin = PgConnection::connect(&self.server).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("drop database {} with (force)", self.name))).execute(&mut admin).await?;
        Ok(())
    }
}

fn admin(kafka: &KafkaConfig) -> Result<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new().set("bootstrap.servers", &kafka.kafka_brokers).create()?)
}

pub(crate) async fn create_topic(
    kafka: &KafkaConfig,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    for result in admin(kafka)?.create_topics([&new], &options).await? {
        result.map_err(|(name, code)| anyhow::anyhow!("{name}: {code}"))?;
    }
    wait_for_leaders(kafka, topic).await
}

/// Kafka answers before a new topic is known everywhere.
async fn wait_for_leaders(kafka: &KafkaConfig, topic: &str) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &kafka.kafka_brokers).create()?;
    let topic = topic.to_owned();
    let look = move || {
        for _ in 0..100 {
            let known = consumer.fetch_metadata(Some(&topic), Duration::from_secs(5))?;
            let has_leaders = |t: &rdkafka::metadata::MetadataTopic| {
                t.error().is_none() && !t.partitions().is_empty() && t.partitions().iter().all(|p| p.leader() >= 0)
            };
            if known.topics().iter().any(has_leaders) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        anyhow::bail!("{topic} has no leaders")
    };
    tokio::task::spawn_blocking(look).await?
}

/// Removes what a test made; failing to do so is no failure of the test.
pub(crate) async fn remove_topics(kafka: &KafkaConfig, topics: &[&str]) -> Result<()> {
    if let Err(error) = admin(kafka)?.delete_topics(topics, &AdminOptions::new()).await {
        eprintln!("{topics:?} stay: {error}");
    }
    Ok(())
}
