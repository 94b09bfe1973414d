//! What a competent team writes today, without a platform: rdkafka's `StreamConsumer`, apache-avro's values turned into
//! serde_json, one conditional write an event, pipelined; offsets are stored after the writes and committed by the library.
//!
//! It is well set: the queues are large, what is ready is taken at once, a batch is decoded while the one before it is written,
//! the guard is a script that the store has compiled, answers are as small as they can be. What it does for an event is
//! right for its sequence: an event that comes twice changes nothing. What it leaves out is the rest: gaps, poison, rebuilds,
//! tokens, another read model without another program.

mod event;
mod redis;
mod search;

use crate::usage;
use anyhow::{Context as _, Result};
use event::{Decoder, Event};
use futures::StreamExt as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// Events of one round trip, at most.
const BATCH_MAX: usize = 1_000;
/// The topic of orders' events.
const TOPIC: &str = "events.order";

/// Where the orders are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Target {
    /// Hashes
    Redis,
    /// Documents
    Search,
}

/// Arguments of the consumer.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PeerArgs {
    /// The store
    #[arg(value_enum)]
    into: Target,
    /// It ends after so many events
    #[arg(long)]
    events: usize,
    #[arg(long, env = "KAFKA_BROKERS")]
    kafka_brokers: String,
    #[arg(long, env = "SCHEMA_REGISTRY_URL")]
    schema_registry_url: String,
    #[arg(long, env = "SCHEMAS_DIR")]
    schemas_dir: std::path::PathBuf,
    #[arg(long, env = "REDIS_URL")]
    redis_url: String,
    #[arg(long, env = "ELASTICSEARCH_URL")]
    elasticsearch_url: String,
}

/// What came of it, its only output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Events handled.
    pub(crate) events: usize,
    /// From the first batch's arrival until the last one's answer.
    pub(crate) seconds: f64,
    /// CPU seconds of the process.
    pub(crate) cpu_s: f64,
    /// The most memory that it had.
    pub(crate) memory_peak_mb: u64,
}

/// Where Redis keeps the peer's orders: a database beside ours.
pub(crate) const REDIS_DATABASE: i64 = 40;
/// The prefix of its keys there.
pub(crate) const REDIS_PREFIX: &str = "order:";
/// Its index.
pub(crate) const INDEX: &str = "peer-orders";

trait Store {
    /// Writes what events change, each only if no later one was written before.
    async fn write(&mut self, events: &[Event]) -> Result<()>;
}

/// Consumes until all events are handled.
pub(crate) async fn run(args: &PeerArgs) -> Result<()> {
    let decoder = Decoder::new(&args.schemas_dir, &args.schema_registry_url).await?;
    let done = match args.into {
        Target::Redis => consume(args, decoder, redis::Redis::connect(&args.redis_url).await?).await?,
        Target::Search => consume(args, decoder, search::Search::new(&args.elasticsearch_url)?).await?,
    };
    println!("{}", serde_json::to_string(&done)?);
    Ok(())
}

async fn consume(args: &PeerArgs, decoder: Decoder, mut store: impl Store) -> Result<Done> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", &args.kafka_brokers)
        .set("group.id", format!("peer-{:?}", args.into).to_lowercase())
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.offset.store", "false")
        .set("auto.commit.interval.ms", "1000")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("queued.max.messages.kbytes", "65536")
        .set("fetch.queue.backoff.ms", "10")
        .create()?;
    consumer.subscribe(&[TOPIC])?;
    let consumer = Arc::new(consumer);
    let (send, mut batches) = mpsc::channel(2);
    let reading = tokio::spawn(read(Arc::clone(&consumer), decoder, args.events, send));
    let (mut began, mut events) = (None, 0);
    while let Some(batch) = batches.recv().await {
        began.get_or_insert_with(Instant::now);
        store.write(&batch).await?;
        for event in &batch {
            consumer.store_offset(TOPIC, event.partition, event.offset)?;
        }
        events += batch.len();
    }
    reading.await??;
    let (seconds, pid) = (began.context("nothing came")?.elapsed().as_secs_f64(), std::process::id());
    Ok(Done { events, seconds, cpu_s: usage::cpu_s(pid), memory_peak_mb: usage::memory_peak_mb(pid)? })
}

/// Reads and decodes what is ready; the writer is at most two batches behind.
async fn read(
    consumer: Arc<StreamConsumer>,
    decoder: Decoder,
    expected: usize,
    send: mpsc::Sender<Vec<Event>>,
) -> Result<()> {
    let mut chunks = consumer.stream().ready_chunks(BATCH_MAX);
    let mut read = 0;
    while read < expected {
        let chunk = chunks.next().await.context("the stream ended")?;
        // The client library goes on by itself after what it reports.
        let failed = |error: &KafkaError| eprintln!("kafka: {error}");
        let messages = chunk.into_iter().filter_map(|message| message.inspect_err(failed).ok());
        let batch = messages.map(|message| decoder.decode(&message)).collect::<Result<Vec<_>>>()?;
        read += batch.len();
        if send.send(batch).await.is_err() {
            break;
        }
    }
    Ok(())
}
