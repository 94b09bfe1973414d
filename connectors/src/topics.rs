//! Topics exist before the first event: a consumer that reads metadata earlier would see no partitions, and one that
//! Kafka made by itself would have the wrong number of them.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

const LIMIT: Duration = Duration::from_secs(20);

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions, fixed for good.
    pub partitions: i32,
}

/// What all topics share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The domain topics' aggregates: `events.<aggregate>` each.
    pub aggregates: Vec<String>,
    /// Partitions of each domain topic.
    pub partitions: i32,
    /// How long Kafka keeps events, in days.
    pub retention_days: u32,
    /// Copies of each partition.
    pub replication_factor: i32,
}

impl Settings {
    /// The domain topics, the outbox heartbeat's, and Debezium's own heartbeat topic of `topic_prefix`.
    #[must_use]
    pub fn topics(&self, topic_prefix: &str) -> Vec<Topic> {
        let domain = self.aggregates.iter().map(|a| Topic { name: format!("events.{a}"), partitions: self.partitions });
        let single = ["events.heartbeat".to_owned(), format!("__debezium-heartbeat.{topic_prefix}")];
        domain.chain(single.map(|name| Topic { name, partitions: 1 })).collect()
    }

    fn configuration(&self) -> [(&'static str, String); 4] {
        let milliseconds = u64::from(self.retention_days) * 24 * 60 * 60 * 1000;
        [
            ("cleanup.policy", "delete".to_owned()),
            ("message.timestamp.type", "CreateTime".to_owned()),
            ("retention.ms", milliseconds.to_string()),
            ("unclean.leader.election.enable", "false".to_owned()),
        ]
    }
}

/// Why the topics are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// A topic exists with another number of partitions.
    #[error(
        "topic {name} has {found} partitions, {wanted} are wanted; this is refused: the partition of a key depends on \
         their number, so a change would let later events of an aggregate overtake earlier ones. Keep \
         TOPIC_PARTITIONS={found}, or move to topics of another name and replay into them"
    )]
    Partitions {
        /// The topic.
        name: String,
        /// What it has.
        found: usize,
        /// What the settings want.
        wanted: i32,
    },
    /// A topic exists with a setting that breaks a guarantee.
    #[error(
        "topic {name} has {key}={found}, {wanted} is wanted; mend it: kafka-configs.sh --alter --topic {name} --add-config {key}={wanted}"
    )]
    Setting {
        /// The topic.
        name: String,
        /// The setting.
        key: String,
        /// What it has.
        found: String,
        /// What is needed.
        wanted: String,
    },
    /// One topic could not be created.
    #[error("creating topic {name}: {reason}")]
    Create {
        /// The topic.
        name: String,
        /// The broker's reason.
        reason: RDKafkaErrorCode,
    },
    /// Kafka does not answer.
    #[error("asking Kafka at {brokers}")]
    Kafka {
        /// The brokers asked.
        brokers: String,
        /// The client's reason.
        source: KafkaError,
    },
}

/// The topics to create, given the partition counts of those that exist.
///
/// # Errors
/// [`TopicError::Partitions`] for the first topic that exists with another number of partitions.
pub fn missing<'a>(wanted: &'a [Topic], existing: &BTreeMap<String, usize>) -> Result<Vec<&'a Topic>, TopicError> {
    let mut absent = Vec::new();
    for topic in wanted {
        match existing.get(&topic.name) {
            None => absent.push(topic),
            Some(found) if i32::try_from(*found) == Ok(topic.partitions) => {}
            Some(found) => {
                return Err(TopicError::Partitions {
                    name: topic.name.clone(),
                    found: *found,
                    wanted: topic.partitions,
                });
            }
        }
    }
    Ok(absent)
}

/// Creates the topics that are missing and checks the others. Returns the names of those created.
///
/// # Errors
/// Kafka is unreachable, refuses a topic, or has one with other partitions, clean-up or timestamps.
pub async fn ensure(brokers: &str, settings: &Settings, topic_prefix: &str) -> Result<Vec<String>, TopicError> {
    let failed = |source| TopicError::Kafka { brokers: brokers.to_owned(), source };
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().map_err(failed)?;
    let wanted = settings.topics(topic_prefix);
    let existing: BTreeMap<String, usize> = {
        // Blocking, but once, and this program has nothing else to do meanwhile.
        let metadata = admin.inner().fetch_metadata(None, LIMIT).map_err(failed)?;
        metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect()
    };
    let absent = missing(&wanted, &existing)?;
    check_settings(&admin, settings, wanted.iter().filter(|topic| existing.contains_key(&topic.name)), failed).await?;
    let configuration = settings.configuration();
    let new: Vec<NewTopic<'_>> = absent
        .iter()
        .map(|topic| {
            let replication = TopicReplication::Fixed(settings.replication_factor);
            configuration.iter().fold(NewTopic::new(&topic.name, topic.partitions, replication), |new, (key, value)| {
                new.set(key, value)
            })
        })
        .collect();
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let options = AdminOptions::new().operation_timeout(Some(LIMIT));
    let mut created = Vec::new();
    for result in admin.create_topics(&new, &options).await.map_err(failed)? {
        match result {
            Ok(name) => created.push(name),
            // Another `apply` at the same time was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, reason)) => return Err(TopicError::Create { name, reason }),
        }
    }
    Ok(created)
}

/// A compacted topic loses history and a broker's timestamps lose the event's; retention may be longer than ours.
async fn check_settings(
    admin: &AdminClient<DefaultClientContext>,
    settings: &Settings,
    topics: impl Iterator<Item = &Topic>,
    failed: impl Fn(KafkaError) -> TopicError,
) -> Result<(), TopicError> {
    let names: Vec<&str> = topics.map(|topic| topic.name.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let resources: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let answers = admin.describe_configs(&resources, &AdminOptions::new()).await.map_err(&failed)?;
    for (name, answer) in names.iter().zip(answers) {
        let resource = answer.map_err(|code| failed(KafkaError::AdminOp(code)))?;
        for (key, wanted) in settings.configuration() {
            let found = resource.entry_map().get(key).and_then(|entry| entry.value.clone()).unwrap_or_default();
            if found == wanted {
                continue;
            }
            if key == "retention.ms" {
                tracing::warn!(topic = name, found, wanted, "retention differs from the settings and is left as it is");
                continue;
            }
            return Err(TopicError::Setting { name: (*name).to_owned(), key: key.to_owned(), found, wanted });
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            aggregates: vec!["order".into(), "customer".into()],
            partitions: 12,
            retention_days: 7,
            replication_factor: 1,
        }
    }

    #[test]
    fn domain_topics_have_the_partitions_and_heartbeats_one() {
        let topics: Vec<(String, i32)> = settings().topics("app").into_iter().map(|t| (t.name, t.partitions)).collect();
        let wanted =
            [("events.order", 12), ("events.customer", 12), ("events.heartbeat", 1), ("__debezium-heartbeat.app", 1)];
        assert_eq!(topics, wanted.map(|(name, partitions)| (name.to_owned(), partitions)));
    }

    #[test]
    fn only_absent_topics_are_created() {
        let existing = BTreeMap::from([("events.order".to_owned(), 12), ("other".to_owned(), 3)]);
        let wanted = settings().topics("app");
        let absent = missing(&wanted, &existing).unwrap();
        assert_eq!(
            absent.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(),
            ["events.customer", "events.heartbeat", "__debezium-heartbeat.app"]
        );
    }

    #[test]
    fn another_partition_count_is_refused_with_the_reason_and_a_way_out() {
        let existing = BTreeMap::from([("events.order".to_owned(), 3)]);
        let message = missing(&settings().topics("app"), &existing).unwrap_err().to_string();
        assert!(
            message.starts_with("topic events.order has 3 partitions, 12 are wanted; this is refused"),
            "{message}"
        );
        assert!(message.contains("Keep TOPIC_PARTITIONS=3"), "{message}");
    }

    #[test]
    fn retention_is_given_in_milliseconds() {
        assert!(settings().configuration().contains(&("retention.ms", "604800000".to_owned())));
    }
}
