//! A lost topic refilled, against real servers: the order that Postgres gives, the bytes that Debezium gave, and what is
//! refused. Each test has an aggregate type (or a database) of its own and removes it, so that it can run beside a live system.

#![allow(clippy::unwrap_used, missing_docs)]

use anyhow::{Context as _, Result, ensure};
use projector::apply::{Progress, Seen};
use projector::control::Generation;
use projector::event::{Envelope, EventRef};
use projector::query::partition_of;
use projector::source::{
    EventStoreError, History, KafkaConfig, Key, Selection, Survey, TopicWriter, before_reading, bounds,
};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use uuid::Uuid;

const PARTITIONS: i32 = 12;

fn var(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run through ./dev test"))
}

fn kafka() -> Result<KafkaConfig> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Ok(KafkaConfig { kafka_brokers: var("KAFKA_BROKERS")?, instance_id: None })
}

async fn write_database() -> Result<PgConnection> {
    Ok(PgConnection::connect(&var("WRITE_DATABASE_URL")?).await?)
}

fn of(aggregate_type: &str) -> Selection {
    Selection { aggregate_type: aggregate_type.to_owned(), from_position: 0, aggregate_ids: Vec::new() }
}

fn own_type() -> String {
    format!("shelf-{}", Uuid::new_v4().simple())
}

async fn all_keys(history: &mut History) -> Result<Vec<Key>> {
    let mut all = Vec::new();
    loop {
        let keys = history.keys().await?;
        if keys.is_empty() {
            return Ok(all);
        }
        all.extend(keys);
    }
}

// ---- the order

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

/// One statement that waits for the lock of its aggregate, and keeps the snapshot from before.
const WRITE: &str = "
with head as (update heads set sequence = sequence + 1 where aggregate_id = $1 returning sequence)
insert into events (stream_id, stream_position, aggregate_id) select 'loan-' || $1, sequence, $1 from head";

struct Database {
    name: String,
    server: String,
    url: String,
}

impl Database {
    async fn create() -> Result<Self> {
        let server = var("WRITE_DATABASE_URL")?;
        let name = format!("republish_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&server).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await?;
        let url = format!("{}/{name}", server.rsplit_once('/').context("a URL with a database")?.0);
        sqlx::raw_sql(EVENTS).execute(&mut PgConnection::connect(&url).await?).await?;
        Ok(Self { name, server, url })
    }

    async fn remove(self) -> Result<()> {
        let mut admin = PgConnection::connect(&self.server).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("drop database {} with (force)", self.name))).execute(&mut admin).await?;
        Ok(())
    }
}

/// Transactions that overlap, wait for one another, and sometimes roll back.
async fn write(url: String, mut random: u64) -> Result<()> {
    let mut connection = PgConnection::connect(&url).await?;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..120 {
        let mut transaction = connection.begin().await?;
        let aggregates: BTreeSet<u64> = (0..=next(3)).map(|_| next(10)).collect();
        for aggregate in aggregates {
            for _ in 0..=next(2) {
                sqlx::query(WRITE).bind(format!("l-{aggregate}")).execute(&mut *transaction).await?;
                tokio::time::sleep(Duration::from_micros(next(3_000))).await;
            }
        }
        if next(6) == 0 { transaction.rollback().await? } else { transaction.commit().await? }
    }
    Ok(())
}

fn reference(key: &Key) -> Result<EventRef> {
    Ok(EventRef {
        epoch: key.epoch.as_str().into(),
        txid: key.txid.try_into()?,
        tx_min: key.tx_min.try_into()?,
        aggregate_id: key.aggregate_id.as_str().into(),
        sequence: key.sequence,
    })
}

/// Takes the events as a reader does: each must be new, and continue its aggregate.
fn take(progress: &mut Progress, last: &mut BTreeMap<String, i64>, keys: &[Key]) -> Result<()> {
    for key in keys {
        let event = reference(key)?;
        ensure!(progress.seen(&event) == Seen::New, "{key:?} is called a duplicate");
        progress.handled(&event, progress.next_offset);
        let before = last.insert(key.aggregate_id.clone(), key.sequence).unwrap_or(0);
        ensure!(before + 1 == key.sequence, "{key:?} comes behind {before}");
    }
    Ok(())
}

async fn order(url: &str) -> Result<()> {
    let writers: Vec<_> = (0..8).map(|seed| tokio::spawn(write(url.to_owned(), seed))).collect();
    let mut connection = PgConnection::connect(url).await?;
    while sqlx::query_scalar::<_, i64>("select count(*) from events").fetch_one(&mut connection).await? < 300 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut early = History::open(url, &of("loan")).await?;
    let survey = early.survey().await?;
    for writer in writers {
        writer.await??;
    }
    let seen = all_keys(&mut early).await?;
    ensure!(survey.events == u64::try_from(seen.len())?, "one snapshot, however long it takes");
    let (mut progress, mut last) = (Progress::default(), BTreeMap::new());
    take(&mut progress, &mut last, &seen)?;

    let mut late = History::open(url, &of("loan")).await?;
    let mut everything = Vec::new();
    let Survey { events, epochs, .. } = late.survey().await?;
    everything.extend(all_keys(&mut late).await?);
    ensure!(events > 1_000 && epochs == ["first"], "{events} {epochs:?}");
    let positions: BTreeSet<i64> = seen.iter().map(|key| key.position).collect();
    let (again, new): (Vec<Key>, Vec<Key>) = everything.iter().cloned().partition(|k| positions.contains(&k.position));
    ensure!(!new.is_empty() && !seen.is_empty(), "the snapshot was to be taken in the middle");
    for key in &again {
        ensure!(progress.seen(&reference(key)?) == Seen::Duplicate, "{key:?} is called new a second time");
    }
    take(&mut progress, &mut last, &new)?;
    take(&mut Progress::default(), &mut BTreeMap::new(), &everything)?;
    // What the rule is for: the plain orders break this history.
    let mut by_txid = everything.clone();
    by_txid.sort_by_key(|k| (k.tx_min, k.txid, k.sequence));
    ensure!(
        take(&mut Progress::default(), &mut BTreeMap::new(), &by_txid).is_err(),
        "the writers overlapped too little"
    );

    let some = Selection { aggregate_ids: vec!["l-1".into(), "l-2".into()], ..of("loan") };
    let keys = all_keys(&mut History::open(url, &some).await?).await?;
    let ids: BTreeSet<&str> = keys.iter().map(|k| k.aggregate_id.as_str()).collect();
    assert_eq!(ids, BTreeSet::from(["l-1", "l-2"]));
    let from = Selection { from_position: 500, ..of("loan") };
    ensure!(all_keys(&mut History::open(url, &from).await?).await?.iter().all(|k| k.position >= 500));
    Ok(())
}

/// A restored database counts its transactions anew; and some rows no transaction can have written.
async fn epochs(url: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(
        "insert into events (aggregate_type, stream_id, stream_position, aggregate_id, epoch, txid, tx_min) values
             ('book', 'book-a', 1, 'a', 'z', 1000, 1000), ('book', 'book-a', 2, 'a', 'b', 7, 7),
             ('book', 'book-b', 1, 'b', 'b', 8, 8), ('wrong', 'wrong-a', 1, 'a', 'z', 4, 5)",
    )
    .execute(&mut connection)
    .await?;
    let mut history = History::open(url, &of("book")).await?;
    assert_eq!(history.survey().await?.epochs, ["z", "b"]);
    let order: Vec<_> = all_keys(&mut history).await?.into_iter().map(|k| (k.aggregate_id, k.sequence)).collect();
    assert_eq!(order, [("a".to_owned(), 1), ("a".to_owned(), 2), ("b".to_owned(), 1)]);
    let error = History::open(url, &of("wrong")).await?.survey().await.unwrap_err();
    ensure!(matches!(error, EventStoreError::Impossible { txid: 4, watermark: 5, .. }), "{error}");
    ensure!(History::open(url, &of("none")).await?.survey().await? == Survey::default());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the stack: ./dev test"]
async fn postgres_gives_an_order_in_which_nothing_looks_like_a_duplicate() -> Result<()> {
    let database = Database::create().await?;
    let url = database.url.clone();
    let outcome = tokio::spawn(async move {
        order(&url).await?;
        epochs(&url).await
    })
    .await
    .context("the steps panicked");
    database.remove().await?;
    outcome?
}

// ---- the bytes

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
            let headers = message.headers().context("headers")?.iter();
            let headers = headers.map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect();
            let (key, value) = (message.key().context("a key")?, message.payload().context("a value, if empty")?);
            all.entry(message.partition()).or_default().push((key.to_vec(), headers, value.to_vec()));
        }
        Ok(all)
    };
    tokio::task::spawn_blocking(reading).await?
}

fn admin(kafka: &KafkaConfig) -> Result<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new().set("bootstrap.servers", &kafka.kafka_brokers).create()?)
}

async fn create_topic(kafka: &KafkaConfig, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    for result in admin(kafka)?.create_topics([&new], &options).await? {
        result.map_err(|(name, code)| anyhow::anyhow!("{name}: {code}"))?;
    }
    Ok(())
}

/// Removes what a test made; failing to do so is no failure of the test.
async fn remove_topics(kafka: &KafkaConfig, topics: &[&str]) -> Result<()> {
    if let Err(error) = admin(kafka)?.delete_topics(topics, &AdminOptions::new()).await {
        eprintln!("{topics:?} stay: {error}");
    }
    Ok(())
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
                    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice());
                    let envelope = Envelope::read(Some(key), header)?;
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

// ---- the verb, and what is refused

/// A Kafka Connect whose one connector routes to all topics of events.
async fn connect_with(state: &'static str) -> Result<String> {
    let answer = serde_json::json!({ "outbox": {
        "info": { "config": {
            "transforms": "outbox",
            "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
            "transforms.outbox.route.topic.replacement": "events.${routedByValue}",
        } },
        "status": { "connector": { "state": state }, "tasks": [] },
    } });
    let router = axum::Router::new().route("/connectors", axum::routing::get(async move || axum::Json(answer)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(url)
}

/// The verb's exit, its result and what it said.
async fn republish(url: &str, topic: &str, more: &[&str]) -> Result<(bool, serde_json::Value, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_projector"));
    command.args(["republish", topic, "--output", "json", "--write-database-url", url]).args(more);
    command.env("RUST_LOG", "warn").stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.success(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said))
}

async fn verb(kafka: &KafkaConfig, url: &str, topic: &str) -> Result<()> {
    let (running, stopped) = (connect_with("RUNNING").await?, connect_with("STOPPED").await?);
    let (done, _, said) = republish(url, topic, &["--yes", "--connect-url", &running]).await?;
    ensure!(!done && said.contains(&format!("topic `{topic}` doesn't exist")), "{said}");
    ensure!(said.contains("connector outbox is RUNNING and writes to this topic"), "all findings at once: {said}");
    let (done, _, said) = republish(url, topic, &["--yes", "--connect-url", "http://127.0.0.1:9"]).await?;
    ensure!(!done && said.contains("--without-connect-check goes on if you know"), "{said}");

    create_topic(kafka, topic, PARTITIONS, &[]).await?;
    let quiet = ["--connect-url", &stopped];
    let (done, _, said) = republish(url, topic, &quiet).await?;
    ensure!(!done && said.contains("add --yes"), "nobody was there to ask: {said}");
    let (done, plan, said) = republish(url, topic, &[&quiet[..], &["--dry-run"]].concat()).await?;
    ensure!(done, "{said}");
    assert_eq!((&plan["events"], &plan["refusals"]), (&1_500.into(), &serde_json::json!([])));
    let empty = bounds(kafka, topic, PARTITIONS).await?;
    ensure!(empty.values().all(|(_, end)| *end == 0), "a dry run sends nothing");

    let (done, sent, said) = republish(url, topic, &[&quiet[..], &["--yes"]].concat()).await?;
    ensure!(done, "{said}");
    let partitions = sent["partitions"].as_object().context("counts")?;
    assert_eq!(partitions.values().filter_map(serde_json::Value::as_u64).sum::<u64>(), 1_500);
    for (partition, (_, end)) in bounds(kafka, topic, PARTITIONS).await? {
        assert_eq!(partitions[&partition.to_string()].as_i64(), Some(end));
    }
    let (done, _, said) = republish(url, topic, &["--yes", "--without-connect-check"]).await?;
    ensure!(!done && said.contains("isn't empty: its partitions hold some 1500"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the stack: ./dev test"]
async fn the_verb_fills_an_empty_topic_once_and_refuses_any_other() -> Result<()> {
    let (kafka, shelf, database) = (kafka()?, own_type(), Database::create().await?);
    let rows = format!(
        "insert into events (aggregate_type, stream_id, stream_position, aggregate_id)
         select '{shelf}', 's-' || n % 100, n / 100 + 1, 's-' || n % 100 from generate_series(0, 1499) as n"
    );
    sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut PgConnection::connect(&database.url).await?).await?;
    let topic = format!("events.{shelf}");
    let steps = {
        let (kafka, url, topic) = (kafka.clone(), database.url.clone(), topic.clone());
        tokio::spawn(async move { verb(&kafka, &url, &topic).await }).await
    };
    remove_topics(&kafka, &[&topic]).await?;
    database.remove().await?;
    steps.context("the steps panicked")?
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the stack: ./dev test"]
async fn a_host_is_told_everything_that_is_wrong_with_its_topics() -> Result<()> {
    let (kafka, connect) = (kafka()?, var("CONNECT_URL")?);
    let topic = format!("events.{}", own_type());
    let generation = |partitions: i32| Generation {
        generation_id: 1,
        read_model: "shelves".to_owned(),
        generation: 1,
        state: "live".to_owned(),
        fingerprint: String::new(),
        config: String::new(),
        topics: [(topic.clone(), partitions)].into(),
    };
    let missing = before_reading(&kafka, Some(&connect), &[generation(3)]).await;
    let wrong = [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")];
    create_topic(&kafka, &topic, 3, &wrong).await?;
    let several = before_reading(&kafka, Some(&connect), &[generation(4)]).await;
    remove_topics(&kafka, &[&topic]).await?;
    assert_eq!(missing.unwrap_err().0.len(), 1);
    let several = several.unwrap_err();
    assert_eq!(several.0.len(), 3, "{several}");
    ensure!(several.to_string().contains("has 3 partitions, and shelves-g1 was built with 4"), "{several}");

    let right = format!("events.{}", own_type());
    create_topic(&kafka, &right, 3, &[]).await?;
    let live = Generation { topics: [(right.clone(), 3)].into(), ..generation(3) };
    // Connect may be down: a host doesn't wait for it.
    let checked = before_reading(&kafka, Some("http://127.0.0.1:9"), std::slice::from_ref(&live)).await;
    let with_connect = before_reading(&kafka, Some(&connect), &[live]).await;
    remove_topics(&kafka, &[&right]).await?;
    checked.and(with_connect).map_err(Into::into)
}

/// Kafka comes up behind the first attempt's end: here as a door to the real one that opens late.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the stack: ./dev test"]
async fn kafka_is_waited_for() -> Result<()> {
    let real = kafka()?.kafka_brokers;
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let late = KafkaConfig { kafka_brokers: door.to_string(), instance_id: None };
    let waiting = tokio::spawn(async move { before_reading(&late, None, &[]).await });
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    ensure!(!waiting.is_finished(), "it must wait for as long as it takes");
    let listener = tokio::net::TcpListener::bind(door).await?;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let Ok(mut broker) = tokio::net::TcpStream::connect(&real).await else { return };
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut broker).await });
        }
    });
    Ok(tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .context("it doesn't notice that kafka is back")???)
}
