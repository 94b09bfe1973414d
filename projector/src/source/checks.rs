//! What must hold before a topic is read or refilled: invariant I0, seen from outside.
//!
//! The projector tells a duplicate from a new event by the order in which a partition's events come, and finds an aggregate
//! by its partition. Both depend on settings that others may change, so they are looked at whenever a host starts, all of
//! them, and everything that is wrong is said at once. Kafka is waited for, as the source does; Connect is asked if it is
//! known, and a host starts without its answer: it writes, we only read.

use super::connect::{Connector, connectors};
use super::kafka::{KafkaConfig, SourceError};
use crate::control::Generation;
use chrono::TimeDelta;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

/// One thing that can't stay as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was found, and where.
    pub what: String,
    /// What it would break.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.why, self.remedy)
    }
}

/// All that speaks against it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(|r| format!("\n  - {r}")).collect::<String>())]
pub struct Refused(pub Vec<Refusal>);

/// A topic as Kafka describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topic {
    /// The number of its partitions.
    pub partitions: i32,
    /// Its settings; `None` if Kafka doesn't let us see them.
    pub settings: Option<HashMap<String, String>>,
}

/// The partition counts that read models were built with: topic → count → the generations that froze it.
pub type Frozen = BTreeMap<String, BTreeMap<i32, Vec<String>>>;

/// What the generations froze.
#[must_use]
pub fn frozen(generations: &[Generation]) -> Frozen {
    let mut all = Frozen::new();
    for generation in generations {
        for (topic, partitions) in &generation.topics {
            all.entry(topic.clone()).or_default().entry(*partitions).or_default().push(generation.id());
        }
    }
    all
}

/// Checks everything that these generations read. Waits for Kafka for as long as it takes. Tombstones are purged after
/// `tombstones_keep`; never, if that is none.
///
/// # Errors
/// [`Refused`], with all findings.
pub async fn before_reading(
    kafka: &KafkaConfig,
    connect_url: Option<&str>,
    generations: &[Generation],
    tombstones_keep: Option<TimeDelta>,
) -> Result<(), Refused> {
    let frozen = frozen(generations);
    let names: Vec<String> = frozen.keys().cloned().collect();
    let topics = wait_for(kafka, &names).await;
    let mut refusals: Vec<Refusal> =
        frozen.iter().flat_map(|(name, counts)| judge_topic(name, topics.get(name), Some(counts))).collect();
    if let Some(keep) = tombstones_keep {
        refusals.extend(topics.iter().filter_map(|(name, topic)| judge_retention(name, topic, keep)));
    }
    if let Some(url) = connect_url {
        match connectors(url).await {
            Ok(all) => refusals.extend(judge_connectors(&all, &names)),
            Err(error) => {
                tracing::warn!(%error, "not checked: whether one connector alone writes to the topics");
            }
        }
    }
    if refusals.is_empty() { Ok(()) } else { Err(Refused(refusals)) }
}

async fn wait_for(kafka: &KafkaConfig, names: &[String]) -> BTreeMap<String, Topic> {
    let mut pause = Duration::from_secs(1);
    loop {
        match describe(kafka, names).await {
            Ok(topics) => return topics,
            Err(error) => tracing::warn!(%error, brokers = kafka.kafka_brokers, "waiting for kafka"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_AFTER_MAX);
    }
}

/// Describes those of the topics that exist.
///
/// # Errors
/// Kafka can't be reached.
pub async fn describe(kafka: &KafkaConfig, names: &[String]) -> Result<BTreeMap<String, Topic>, SourceError> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &kafka.kafka_brokers);
    let consumer: BaseConsumer = client.create()?;
    // All topics: asking for one by name may create it.
    let metadata = tokio::task::spawn_blocking(move || consumer.fetch_metadata(None, LIMIT));
    let metadata = metadata.await.map_err(|error| SourceError::Thread(std::io::Error::other(error)))??;
    let mut topics: BTreeMap<String, Topic> = BTreeMap::new();
    for topic in metadata.topics().iter().filter(|t| !t.partitions().is_empty() && names.iter().any(|n| n == t.name()))
    {
        let partitions = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
        topics.insert(topic.name().to_owned(), Topic { partitions, settings: None });
    }
    if topics.is_empty() {
        return Ok(topics);
    }
    let admin: AdminClient<DefaultClientContext> = client.create()?;
    let resources: Vec<_> = topics.keys().map(|name| ResourceSpecifier::Topic(name)).collect();
    let answers = admin.describe_configs(&resources, &AdminOptions::new().request_timeout(Some(LIMIT))).await?;
    for (topic, answer) in topics.values_mut().zip(answers) {
        topic.settings = answer.ok().map(|resource| {
            resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
        });
    }
    Ok(topics)
}

/// What speaks against a topic, given the counts that generations froze, if there are any.
#[must_use]
pub fn judge_topic(name: &str, found: Option<&Topic>, frozen: Option<&BTreeMap<i32, Vec<String>>>) -> Vec<Refusal> {
    let Some(topic) = found else {
        return vec![Refusal {
            what: format!("topic `{name}` doesn't exist, or has no partitions"),
            why: "there is nothing to read, and Kafka might make one with another number of partitions".to_owned(),
            remedy: "`connectors apply` creates it; if it was lost, see docs/republish.md".to_owned(),
        }];
    };
    let mut refusals = Vec::new();
    for (count, generations) in frozen.into_iter().flatten().filter(|(count, _)| **count != topic.partitions) {
        refusals.push(Refusal {
            what: format!(
                "topic `{name}` has {} partitions, and {} {} built with {count}",
                topic.partitions,
                generations.join(", "),
                if generations.len() == 1 { "was" } else { "were" },
            ),
            why: "a key's partition depends on their number, so an aggregate's later events would overtake its earlier ones, \
                  and progress would count for other aggregates than it was saved for"
                .to_owned(),
            remedy: format!(
                "create it again with {count} partitions and refill it (`projector republish {name}`), or build the read \
                 models again from a topic of another name"
            ),
        });
    }
    let Some(settings) = &topic.settings else {
        tracing::warn!(topic = name, "not checked: its settings, which Kafka doesn't let us see (DescribeConfigs)");
        return refusals;
    };
    for (key, right, wanted, why) in SETTINGS {
        let Some(value) = settings.get(key).filter(|value| !right(value)) else { continue };
        refusals.push(Refusal {
            what: format!("topic `{name}` has {key}={value}"),
            why: why.to_owned(),
            remedy: format!("kafka-configs.sh --alter --topic {name} --add-config {key}={wanted}"),
        });
    }
    refusals
}

/// Whether an event may still be read when its document's tombstone is gone.
#[must_use]
fn judge_retention(name: &str, topic: &Topic, tombstones_keep: TimeDelta) -> Option<Refusal> {
    let retention: i64 = topic.settings.as_ref()?.get("retention.ms")?.parse().ok()?;
    let kept = if retention < 0 { "for ever".to_owned() } else { format!("for {} days", retention / 86_400_000) };
    (retention < 0 || retention >= tombstones_keep.num_milliseconds()).then(|| Refusal {
        what: format!(
            "topic `{name}` keeps events {kept}, and tombstones are purged after {} days",
            tombstones_keep.num_days()
        ),
        why: "an event of a deleted document that is read again would find no document, and stop its partition"
            .to_owned(),
        remedy: "set TOMBSTONES_KEEP_DAYS above the topic's retention, or to 0 to keep tombstones for ever".to_owned(),
    })
}

type Setting = (&'static str, fn(&str) -> bool, &'static str, &'static str);

const SETTINGS: [Setting; 3] = [
    (
        "cleanup.policy",
        |value| !value.split(',').any(|policy| policy.trim() == "compact"),
        "delete",
        "compaction keeps an aggregate's last event only, so a read model could never be built from it",
    ),
    (
        "message.timestamp.type",
        |value| value == "CreateTime",
        "CreateTime",
        "the time at which an event was sent is lost, and with it the lag and where retention begins",
    ),
    (
        "unclean.leader.election.enable",
        |value| value == "false",
        "false",
        "a broker that lacks the last events may take over: acknowledged events vanish and their offsets are given again",
    ),
];

/// What speaks against the connectors that write to these topics.
#[must_use]
pub fn judge_connectors(all: &[Connector], topics: &[String]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    // By connectors, not topic by topic: one connector writes to all of an outbox's topics.
    let mut together: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
    for topic in topics {
        let writers: Vec<&str> =
            all.iter().filter(|c| !c.at_rest() && c.routes_to(topic)).map(|c| c.name.as_str()).collect();
        if writers.len() > 1 {
            together.entry(writers).or_default().push(topic);
        }
    }
    for (writers, topics) in together {
        refusals.push(Refusal {
            what: format!("connectors {} all write to {}", writers.join(", "), topics.join(", ")),
            why: "each is at another place of the log, so events no longer come in the order of their commits (invariant I0), \
                  and new ones are taken for duplicates"
                .to_owned(),
            remedy: "stop all but one in Kafka Connect (PUT /connectors/NAME/stop), and delete those".to_owned(),
        });
    }
    for connector in all.iter().filter(|c| topics.iter().any(|topic| c.routes_to(topic))) {
        if let Some(mode) = connector.snapshot_mode() {
            refusals.push(Refusal {
                what: format!("connector {} has snapshot.mode={mode}", connector.name),
                why: "a snapshot sends rows as they lie in the table, not in the order of their commits (invariant I0), and most \
                      of them are taken for duplicates"
                    .to_owned(),
                remedy: "set it to no_data, as connectors/outbox.json does; lost events come back by `projector republish`"
                    .to_owned(),
            });
        }
        if connector.may_reorder() {
            refusals.push(Refusal {
                what: format!(
                    "connector {}'s producer isn't idempotent and has several requests on their way",
                    connector.name
                ),
                why: "a retry lands behind what was sent after it".to_owned(),
                remedy: "set producer.override.enable.idempotence=true".to_owned(),
            });
        }
    }
    refusals
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
