//! Kafka's topics and the connector that writes them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::Value;

use crate::{eventually, processes::log, var};

const LIMIT: Duration = Duration::from_secs(30);

/// Deletes a topic with all that is in it, and makes it anew as `connectors apply` makes it.
///
/// # Errors
/// When Kafka refuses or takes more than half a minute for it.
pub async fn make_anew(topic: &str) -> Result<()> {
    delete(topic).await?;
    make(topic).await
}

/// Deletes a topic with all that is in it, and waits until the broker no longer tells of it.
///
/// # Errors
/// When Kafka refuses or takes more than half a minute for it.
pub async fn delete(topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client()?.create()?;
    let options = AdminOptions::new().operation_timeout(Some(LIMIT));
    for deleted in admin.delete_topics(&[topic], &options).await? {
        deleted.map_err(|(name, code)| anyhow::anyhow!("deleting {name}: {code}, see {}", log("kafka")))?;
    }
    told(topic, 0).await
}

/// Makes a topic as `connectors apply` makes it.
///
/// # Errors
/// When Kafka refuses or takes more than half a minute for it.
pub async fn make(topic: &str) -> Result<()> {
    make_with(topic, var("TOPIC_PARTITIONS")?.parse()?).await
}

/// [`make`] with another number of partitions.
///
/// # Errors
/// As there.
pub async fn make_with(topic: &str, partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client()?.create()?;
    let options = AdminOptions::new().operation_timeout(Some(LIMIT));
    let retention_ms = (var("TOPIC_RETENTION_DAYS")?.parse::<u64>()? * 86_400_000).to_string();
    let copies = var("TOPIC_REPLICATION_FACTOR")?.parse()?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(copies))
        .set("cleanup.policy", "delete")
        .set("message.timestamp.type", "CreateTime")
        .set("retention.ms", &retention_ms)
        .set("unclean.leader.election.enable", "false");
    // a deletion is under way for a while
    eventually(&format!("{topic} made, see {}", log("kafka")), LIMIT, || async {
        for created in admin.create_topics([&new], &options).await? {
            created.map_err(|(name, code)| anyhow::anyhow!("creating {name}: {code}"))?;
        }
        Ok(Some(()))
    })
    .await?;
    told(topic, usize::try_from(partitions)?).await
}

/// Waits until the broker tells of so many partitions of a topic: the controller answers before the broker has heard of it.
async fn told(topic: &str, partitions: usize) -> Result<()> {
    eventually(&format!("{topic} has {partitions} partitions, see {}", log("kafka")), LIMIT, || async {
        let (config, topic) = (client()?, topic.to_owned());
        let found = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.create()?;
            let metadata = consumer.fetch_metadata(None, LIMIT)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            anyhow::Ok(found.map_or(0, |found| found.partitions().iter().filter(|one| one.leader() >= 0).count()))
        });
        let found = found.await??;
        ensure!(found == partitions, "it has {found}");
        Ok(Some(()))
    })
    .await
}

/// How many messages the topics hold, together.
///
/// # Errors
/// When Kafka doesn't answer.
pub async fn messages(topics: &[&str]) -> Result<i64> {
    let (config, topics): (_, Vec<String>) = (client()?, topics.iter().map(|topic| (*topic).to_owned()).collect());
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create()?;
        let mut count = 0;
        for topic in &topics {
            let metadata = consumer.fetch_metadata(Some(topic), LIMIT)?;
            let found = metadata.topics().first().with_context(|| format!("no topic {topic}"))?;
            for partition in found.partitions() {
                let (low, high) = consumer.fetch_watermarks(topic, partition.id(), LIMIT)?;
                count += high - low;
            }
        }
        Ok(count)
    })
    .await?
}

/// Deletes the first half of what each partition of a topic holds, as retention does.
///
/// # Errors
/// When Kafka doesn't answer or refuses.
pub async fn forget_first_half(topic: &str) -> Result<()> {
    forget(topic, |low, high| low + (high - low + 1) / 2).await
}

/// Deletes all that a topic holds, as retention does.
///
/// # Errors
/// When Kafka doesn't answer or refuses.
pub async fn forget_all(topic: &str) -> Result<()> {
    forget(topic, |_, high| high).await
}

async fn forget(topic: &str, until: fn(i64, i64) -> i64) -> Result<()> {
    let (config, name) = (client()?, topic.to_owned());
    let offsets = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create()?;
        let metadata = consumer.fetch_metadata(Some(&name), LIMIT)?;
        let found = metadata.topics().first().with_context(|| format!("no topic {name}"))?;
        let mut offsets = TopicPartitionList::new();
        for partition in found.partitions() {
            let (low, high) = consumer.fetch_watermarks(&name, partition.id(), LIMIT)?;
            offsets.add_partition_offset(&name, partition.id(), Offset::Offset(until(low, high)))?;
        }
        Ok::<_, anyhow::Error>(offsets)
    })
    .await??;
    let admin: AdminClient<DefaultClientContext> = client()?.create()?;
    admin.delete_records(&offsets, &AdminOptions::new().operation_timeout(Some(LIMIT))).await?;
    Ok(())
}

/// Stops a connector, without removing it, and waits until it has stopped.
///
/// # Errors
/// When Connect refuses or takes more than half a minute for it.
pub async fn stop_connector(name: &str) -> Result<()> {
    let (http, url) = (reqwest::Client::new(), format!("{}/connectors/{name}", var("CONNECT_URL")?));
    let answer = http.put(format!("{url}/stop")).send().await?;
    ensure!(answer.status().is_success(), "stopping connector {name}: {}", answer.text().await?);
    eventually(&format!("connector {name} stopped, see {}", log("connect")), LIMIT, || async {
        let status: Value = http.get(format!("{url}/status")).send().await?.error_for_status()?.json().await?;
        let tasks = status["tasks"].as_array().map_or(0, Vec::len);
        Ok((status["connector"]["state"] == "STOPPED" && tasks == 0).then_some(()))
    })
    .await
}

fn client() -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", var("KAFKA_BROKERS")?);
    Ok(config)
}
