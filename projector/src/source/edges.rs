//! Where the partitions of topics begin and end.

use super::kafka::{KafkaConfig, SourceError};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at a topic that has just been made.
const SETTLING: Duration = Duration::from_millis(200);
/// How old what is known may be where that will do.
const LATELY: Duration = Duration::from_secs(1);

/// A topic's partitions: the first and the next offset of each.
pub type Bounds = BTreeMap<i32, (i64, i64)>;

/// Where the partitions of a topic begin and end.
///
/// # Errors
/// Kafka can't be reached.
pub async fn bounds(kafka: &KafkaConfig, topic: &str, partitions: i32) -> Result<Bounds, SourceError> {
    Edges::new(kafka).of(topic, partitions).await
}

/// Where topics begin and end, asked by one client again and again.
#[derive(Clone)]
pub struct Edges {
    kafka: KafkaConfig,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    consumer: Option<Arc<BaseConsumer>>,
    known: HashMap<String, (Instant, Bounds)>,
}

impl Edges {
    /// Connects when it is asked for the first time.
    #[must_use]
    pub fn new(kafka: &KafkaConfig) -> Self {
        Self { kafka: kafka.clone(), inner: Arc::default() }
    }

    /// As they are now.
    ///
    /// # Errors
    /// Kafka can't be reached.
    pub async fn of(&self, topic: &str, partitions: i32) -> Result<Bounds, SourceError> {
        let consumer = self.consumer()?;
        let bounds = ask(consumer, topic, partitions).await.inspect_err(|_| {
            // It may have forgotten its brokers (`brokers.rs`): who asks next gets another one.
            self.inner().consumer = None;
        })?;
        self.inner().known.insert(topic.to_owned(), (Instant::now(), bounds.clone()));
        Ok(bounds)
    }

    /// As they were a second ago at most.
    ///
    /// # Errors
    /// Kafka can't be reached.
    pub async fn lately(&self, topic: &str, partitions: i32) -> Result<Bounds, SourceError> {
        let known = self.inner().known.get(topic).filter(|(at, _)| at.elapsed() < LATELY).cloned();
        match known {
            Some((_, bounds)) => Ok(bounds),
            None => self.of(topic, partitions).await,
        }
    }

    fn consumer(&self) -> Result<Arc<BaseConsumer>, SourceError> {
        let mut inner = self.inner();
        if let Some(consumer) = &inner.consumer {
            return Ok(Arc::clone(consumer));
        }
        let consumer = ClientConfig::new().set("bootstrap.servers", &self.kafka.kafka_brokers).create()?;
        Ok(Arc::clone(inner.consumer.insert(Arc::new(consumer))))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All partitions at once: at a barrier every millisecond counts.
async fn ask(consumer: Arc<BaseConsumer>, topic: &str, partitions: i32) -> Result<Bounds, SourceError> {
    let asked = (0..partitions).map(|number| {
        let (consumer, topic) = (Arc::clone(&consumer), topic.to_owned());
        tokio::task::spawn_blocking(move || watermarks(&consumer, &topic, number).map(|bounds| (number, bounds)))
    });
    let answers = futures::future::join_all(asked.collect::<Vec<_>>()).await.into_iter();
    answers.map(|answer| Ok(answer.map_err(|error| SourceError::Thread(std::io::Error::other(error)))??)).collect()
}

/// Asks again for as long as the topic is so new that a partition has no leader, or another one than we were told.
fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<(i64, i64), KafkaError> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match consumer.fetch_watermarks(topic, partition, LIMIT) {
            Err(error) if is_settling(&error) && Instant::now() < deadline => std::thread::sleep(SETTLING),
            answer => return answer,
        }
    }
}

fn is_settling(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition, UnknownTopicOrPartition};
    error
        .rdkafka_error_code()
        .is_some_and(|code| matches!(code, LeaderNotAvailable | NotLeaderForPartition | UnknownTopicOrPartition))
}
