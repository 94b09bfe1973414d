//! `./dev bench rebuild`: how fast a million events become another generation's documents, five events each, in Redis and in the
//! search engine; and the memory that host and job take for it. By hand: `DOCUMENTS=20000` is for a first look.
//!
//! Host and job run in this process, against the servers in the environment. The live generation is fed first, so that the
//! replay has the machine to itself, as at night; what it costs others is another measurement (docs/rebuild.md).

#![allow(missing_docs)]

use anyhow::{Context as _, Result, ensure};
use projector::control::{Actor, Control, New, Options, Rebuild, State, Verify};
use projector::event::{Catalog, Decoder};
use projector::generation::{Ending, Job, Site};
use projector::host::{self, Host, HostConfig};
use projector::projection::{Compiled, Source};
use projector::sink::StoreUrls;
use projector::source::{Edges, KafkaConfig};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

const PARTITIONS: i32 = 12;
const EVENTS_EACH: u64 = 5;
const TOPIC: &str = "events.loan";
/// What is asked for on two cores, in events a second.
const GOALS: [(&str, f64); 2] = [("redis", 150_000.0), ("elasticsearch", 30_000.0)];

fn projection(name: &str, store: &str) -> String {
    format!(
        "name: {name}\nstore: {store}\non:\n  Borrowed: |\n    .title = %data.title\n    .days = %data.days\n    .times = 1\n  \
         Renewed: |\n    .days = (int(.days) ?? 0) + %data.days\n    .times = (int(.times) ?? 0) + 1\n"
    )
}

fn var(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run through ./dev bench rebuild"))
}

fn main() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tracing_subscriber::fmt().with_env_filter("warn").with_writer(std::io::stderr).init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(bench())
}

async fn bench() -> Result<()> {
    let documents: u64 = std::env::var("DOCUMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let events = documents * EVENTS_EACH;
    let kafka = KafkaConfig { kafka_brokers: var("KAFKA_BROKERS")?, instance_id: None };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schemas");
    let registry = var("SCHEMA_REGISTRY_URL")?;
    let files = schemas::load(&folder)?;
    schemas::register(&files, &registry).await?;
    let ids = schemas::ids(&files, &registry).await?;
    let id = |name: &str| {
        let found = ids.iter().find(|((subject, _), _)| subject.contains(name));
        found.map(|(_, id)| *id).with_context(|| format!("{name} isn't registered: {ids:?}"))
    };
    let schema_ids = [id("Borrowed")?, id("Renewed")?];
    eprintln!("filling {TOPIC} with {events} events of {documents} documents");
    let began = Instant::now();
    make_topic(&kafka).await?;
    let brokers = kafka.kafka_brokers.clone();
    tokio::task::spawn_blocking(move || fill(&brokers, documents, schema_ids)).await??;
    eprintln!("filled in {:.1} s", began.elapsed().as_secs_f64());

    let catalog = Arc::new(Catalog::load(&folder)?);
    let stores = StoreUrls {
        redis_url: var("REDIS_URL")?,
        elasticsearch_url: var("ELASTICSEARCH_URL")?,
        ..StoreUrls::default()
    };
    let server = var("CONTROL_DATABASE_URL")?;
    let database = format!("bench_{}", Uuid::new_v4().simple());
    sqlx::raw_sql(AssertSqlSafe(format!("create database {database}")))
        .execute(&mut PgConnection::connect(&server).await?)
        .await?;
    let url = format!("{}/{database}", server.rsplit_once('/').context("a URL with a database")?.0);
    println!("{:<14} {:>9} {:>12} {:>14} {:>9}", "store", "replay", "events/s", "documents/s", "memory");
    let mut missed = Vec::new();
    for (store, config) in [
        ("redis", "{ redis: { prefix: 'bench:', database: 14 } }"),
        ("elasticsearch", "{ elasticsearch: { fields: { title: { type: keyword } } } }"),
    ] {
        let name = format!("bench_{store}_{}", &Uuid::new_v4().simple().to_string()[..8]);
        let measured = measure(&url, &registry, &catalog, &kafka, &stores, &projection(&name, config), events).await?;
        #[allow(clippy::cast_precision_loss)]
        let (rate, each) =
            (events as f64 / measured.replay.as_secs_f64(), documents as f64 / measured.replay.as_secs_f64());
        println!(
            "{store:<14} {:>7.1} s {rate:>12.0} {each:>14.0} {:>6} MB",
            measured.replay.as_secs_f64(),
            measured.memory_kb / 1_024
        );
        println!(
            "{:<14} {:>7.1} s from start to live, the live one was fed in {:.1} s",
            "",
            measured.wall.as_secs_f64(),
            measured.live.as_secs_f64()
        );
        let goal = GOALS.iter().find(|(of, _)| *of == store).map_or(0.0, |(_, goal)| *goal);
        if rate < goal {
            missed.push(format!("{store}: {rate:.0} events/s of {goal:.0}"));
        }
    }
    sqlx::raw_sql(AssertSqlSafe(format!("drop database {database} with (force)")))
        .execute(&mut PgConnection::connect(&server).await?)
        .await?;
    for missed in &missed {
        println!("below its goal: {missed}");
    }
    Ok(())
}

struct Measured {
    replay: Duration,
    wall: Duration,
    live: Duration,
    memory_kb: u64,
}

async fn measure(
    url: &str,
    registry: &str,
    catalog: &Arc<Catalog>,
    kafka: &KafkaConfig,
    stores: &StoreUrls,
    text: &str,
    events: u64,
) -> Result<Measured> {
    let control = Control::connect(url).await?;
    let decoder = Arc::new(Decoder::new(Arc::clone(catalog), registry)?);
    let source = Source { name: "bench".into(), text: text.into() };
    let compiled = Compiled::new(&source, catalog).map_err(|found| anyhow::anyhow!("{}", found[0]))?;
    let topics = BTreeMap::from([(TOPIC.to_owned(), PARTITIONS)]);
    let name = compiled.projection.name.value.clone();
    let actor = Actor { who: "bench", why: None };
    let live = control.create_live(&name, &compiled.fingerprint(), text, &topics, actor).await?;
    let (_, sink) = host::open(&live, catalog, stores)?;
    sink.prepare().await?;
    sink.go_live().await?;
    let config =
        HostConfig { kafka: kafka.clone(), stores: stores.clone(), event_store: None, fault_delay: Duration::ZERO };
    let host = Host::start(control.clone(), Arc::clone(catalog), Arc::clone(&decoder), &config).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(host.run_until(async {
        _ = stopped.await;
    }));
    let began = Instant::now();
    let handled = async || -> Result<i64> {
        Ok(control.progress(live.generation_id).await?.values().map(|progress| progress.next_offset).sum())
    };
    while u64::try_from(handled().await?)? < events {
        ensure!(!running.is_finished(), "the host ended");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let fed = began.elapsed();
    reset_peak();
    let site = Site {
        control: control.clone(),
        catalog: Arc::clone(catalog),
        stores: stores.clone(),
        kafka: kafka.clone(),
        edges: Edges::new(kafka),
        decoder: Some(decoder),
        event_store: None,
        name: "bench".to_owned(),
        id: Uuid::now_v7(),
    };
    let options = Options { back: false, rollback_s: 0, ..Options::back(Verify::Sample(1_000)) };
    let new = New {
        read_model: &name,
        fingerprint: &compiled.fingerprint(),
        config: text,
        topics: &topics,
        options: &options,
    };
    let actor = Actor { who: "bench", why: None };
    let rebuild: Rebuild = control.start_rebuilds(&[new], actor).await?.remove(0);
    let began = Instant::now();
    let mut job = Job::take(site, rebuild.rebuild_id).await?.context("somebody else drives it")?;
    let (mut first, mut replayed) = (None, None);
    let ending = job
        .run(|status, _| {
            if status.done > 0 {
                first.get_or_insert(Instant::now());
            }
            if status.target.state > State::Replaying {
                replayed.get_or_insert(Instant::now());
            }
        })
        .await;
    let wall = began.elapsed();
    ensure!(ending == Ending::Live, "{ending:?}");
    let memory_kb = peak_kb()?;
    let (first, replayed) = (first.context("nothing was replayed")?, replayed.context("it never caught up")?);
    _ = stop.send(());
    running.await??;
    let target = control.member(rebuild.generation_id).await?.generation;
    let partitions: Vec<_> =
        (0..PARTITIONS).map(|number| projector::apply::Partition { topic: TOPIC.into(), number }).collect();
    for generation in [&live, &target] {
        let (_, sink) = host::open(generation, catalog, stores)?;
        let found = sink.count().await?;
        ensure!(found == events / EVENTS_EACH, "{found} documents in {}", generation.id());
        sink.remove(&partitions).await?;
    }
    Ok(Measured { replay: replayed - first, wall, live: fed, memory_kb })
}

fn peak_kb() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// The peak counts from here. Where the system doesn't let us, it is that of the whole process.
fn reset_peak() {
    _ = std::fs::write("/proc/self/clear_refs", "5");
}

async fn make_topic(kafka: &KafkaConfig) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &kafka.kafka_brokers).create()?;
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    _ = admin.delete_topics(&[TOPIC], &options).await?;
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let new = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1)).set("cleanup.policy", "delete");
        match admin.create_topics([&new], &options).await?.remove(0) {
            Ok(_) => break,
            Err((name, code)) => ensure!(Instant::now() < until, "{name}: {code}"),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

fn zigzag(value: i64, into: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    loop {
        let [low, ..] = (rest & 0x7f).to_le_bytes();
        rest >>= 7;
        into.push(if rest == 0 { low } else { low | 0x80 });
        if rest == 0 {
            return;
        }
    }
}

fn fill(brokers: &str, documents: u64, schema_ids: [u32; 2]) -> Result<()> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "200000")
        .create()?;
    let mut txid = 1_000_u64;
    for sequence in 1..=EVENTS_EACH {
        let (event_type, schema_id) =
            if sequence == 1 { ("Borrowed", schema_ids[0]) } else { ("Renewed", schema_ids[1]) };
        for document in 0..documents {
            txid += 1;
            let (key, txid_text, sequence_text) = (format!("loan-{document}"), txid.to_string(), sequence.to_string());
            let id = Uuid::from_u64_pair(txid, document).to_string();
            let mut payload = vec![0];
            payload.extend(schema_id.to_be_bytes());
            let title = format!("The book of loan {document}");
            zigzag(i64::try_from(title.len())?, &mut payload);
            payload.extend(title.as_bytes());
            zigzag(i64::try_from(document % 28)?, &mut payload);
            let headers = [
                ("id", id.as_str()),
                ("event_type", event_type),
                ("schema_version", "1"),
                ("aggregate_type", "loan"),
                ("sequence", &sequence_text),
                ("epoch", "bench/1"),
                ("txid", &txid_text),
                ("tx_min", &txid_text),
                ("occurred_at", "2026-05-23T10:00:00.123456Z"),
                ("metadata", "{}"),
            ];
            let headers = headers.into_iter().fold(OwnedHeaders::new_with_capacity(10), |all, (key, value)| {
                all.insert(Header { key, value: Some(value) })
            });
            let mut record = BaseRecord::to(TOPIC).key(&key).payload(&payload).headers(headers);
            loop {
                match producer.send(record) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        record = back;
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err((error, _)) => return Err(error.into()),
                }
            }
        }
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(())
}
