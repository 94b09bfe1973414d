//! The contract of [`projector::sink`], run against every store: in memory always, on the real servers with `./dev test`.
//! Each run makes places of its own names and removes them, so that it can run beside a live system.

use anyhow::{Context as _, Result, ensure};
use projector::apply::{Outcome, Partition, Progress, Stored, Write};
use projector::event::EventRef;
use projector::expr::{Collection, Kind, Object, Value, json};
use projector::projection::{ClickhouseStore, ElasticsearchStore, RedisStore, Store};
use projector::sink::memory::{Fault, MemorySink, MemoryStore};
use projector::sink::{Place, Sink, SinkError, StoreUrls, open};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

fn env(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

fn urls() -> StoreUrls {
    StoreUrls {
        redis_url: env("REDIS_URL", "redis://127.0.0.1:56379"),
        elasticsearch_url: env("ELASTICSEARCH_URL", "http://127.0.0.1:19200"),
        clickhouse_url: env("CLICKHOUSE_URL", "http://127.0.0.1:18123"),
        clickhouse_database: env("CLICKHOUSE_DATABASE", "read_models"),
        postgres_read_url: env("READ_DATABASE_URL", "postgres://app@127.0.0.1:55432/read_models"),
    }
}

/// Runs a store's steps apart, so that a failed assertion doesn't keep what they made from being removed.
async fn apart(steps: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    tokio::spawn(steps).await.context("the steps panicked").flatten()
}

fn run_name() -> String {
    format!("contract_{}", Uuid::new_v4().simple())
}

/// The type of the documents below, as it would be inferred.
fn document() -> Kind {
    let product = Kind::object(
        Collection::empty()
            .with_known("name", Kind::bytes())
            .with_known("price", Kind::integer())
            .with_known("tags", Kind::array(Collection::from_unknown(Kind::bytes()))),
    );
    Kind::object(
        Collection::empty()
            .with_known("name", Kind::bytes())
            .with_known("n", Kind::integer().or_null())
            .with_known("rate", Kind::float().or_undefined())
            .with_known("open", Kind::boolean().or_undefined())
            .with_known("at", Kind::timestamp().or_undefined())
            .with_known("products", Kind::array(Collection::from_unknown(product)).or_undefined()),
    )
}

fn place(read_model: &str, generation: u32) -> Place {
    Place { read_model: read_model.to_owned(), generation, document: document() }
}

fn object(json: serde_json::Value) -> Object {
    match json::from_json(json, &document()) {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

fn put(key: &str, version: i64, json: serde_json::Value) -> Write {
    Write { key: key.to_owned(), version, fields: Some(object(json)), ..Write::default() }
}

fn named(key: &str, version: i64) -> Write {
    put(key, version, serde_json::json!({ "name": format!("{key} at {version}") }))
}

async fn one(sink: &dyn Sink, key: &str) -> Result<Option<Stored>> {
    sink.load(&[key.to_owned()]).await?.pop().context("one answer a key")
}

async fn written(sink: &dyn Sink, batch: &[Write]) -> Result<()> {
    let outcomes = sink.write(batch).await?;
    ensure!(outcomes == vec![Outcome::Written; batch.len()], "not all written: {outcomes:?}");
    Ok(())
}

/// What a document store must do. `reopen` opens the same store for another generation of the same read model.
async fn documents(sink: &dyn Sink) -> Result<()> {
    sink.prepare().await?;
    sink.prepare().await?;
    let nothing = one(sink, "nothing").await?;
    ensure!(nothing.is_none(), "there is no such document: {nothing:?}");

    conditional(sink).await?;
    one_bad_item(sink).await?;
    many_in_order(sink).await?;
    tombstones(sink).await?;
    values(sink).await?;
    progress(sink).await?;

    sink.go_live().await?;
    sink.go_live().await?;
    Ok(())
}

async fn conditional(sink: &dyn Sink) -> Result<()> {
    written(sink, &[named("a", 1), named("b", 5)]).await?;
    let stale = sink.write(&[named("a", 2), named("b", 4), named("c", 1)]).await?;
    assert_eq!(stale, [Outcome::Written, Outcome::Stale, Outcome::Written], "each item has its own answer");
    assert_eq!(one(sink, "b").await?, Some(Stored { version: 5, fields: named("b", 5).fields, state: None }));

    let again = sink.write(&[named("a", 2), named("c", 1)]).await?;
    assert_eq!(again, [Outcome::Stale, Outcome::Stale], "a batch that comes again changes nothing");

    // Another number of digits, and numbers that a double can't tell apart.
    written(sink, &[named("b", 10)]).await?;
    assert_eq!(sink.write(&[named("b", 9)]).await?, [Outcome::Stale]);
    let big = (1_i64 << 53) + 2;
    written(sink, &[named("b", big)]).await?;
    assert_eq!(sink.write(&[named("b", big - 1)]).await?, [Outcome::Stale]);
    written(sink, &[named("b", big + 1)]).await?;
    assert_eq!(one(sink, "b").await?.map(|s| s.version), Some(big + 1));

    // The whole document is replaced: fields that it no longer has are gone.
    written(sink, &[put("a", 3, serde_json::json!({ "name": "a", "n": 1 }))]).await?;
    written(sink, &[put("a", 4, serde_json::json!({ "name": "a" }))]).await?;
    assert_eq!(one(sink, "a").await?.and_then(|s| s.fields), Some(object(serde_json::json!({ "name": "a" }))));
    Ok(())
}

async fn one_bad_item(sink: &dyn Sink) -> Result<()> {
    let bad = Write {
        key: "bad".into(),
        version: 1,
        fields: Some(Object::from([("_seq".into(), Value::from("x"))])),
        ..Write::default()
    };
    let outcomes = sink.write(&[named("good-1", 1), bad, named("good-2", 1)]).await?;
    ensure!(matches!(&outcomes[..], [Outcome::Written, Outcome::Rejected(_), Outcome::Written]), "{outcomes:?}");
    ensure!(one(sink, "good-2").await?.is_some() && one(sink, "bad").await?.is_none(), "the others land");
    Ok(())
}

async fn many_in_order(sink: &dyn Sink) -> Result<()> {
    let batch: Vec<Write> = (0..2500).map(|i| named(&format!("many-{i}"), i + 1)).collect();
    written(sink, &batch).await?;
    let mut keys: Vec<String> = batch.iter().map(|w| w.key.clone()).rev().collect();
    keys.insert(1, "missing".into());
    let loaded = sink.load(&keys).await?;
    assert_eq!(loaded.len(), keys.len());
    ensure!(loaded[1].is_none(), "what isn't there is none, in its place");
    for (key, stored) in keys.iter().zip(loaded).filter(|(key, _)| *key != "missing") {
        let version: i64 = key.trim_start_matches("many-").parse::<i64>()? + 1;
        assert_eq!(stored, Some(Stored { version, fields: named(key, version).fields, state: None }));
    }
    Ok(())
}

async fn tombstones(sink: &dyn Sink) -> Result<()> {
    sink.refresh().await?;
    let before = sink.count().await?;
    written(sink, &[named("gone", 3)]).await?;
    sink.refresh().await?;
    assert_eq!(sink.count().await?, before + 1);
    written(sink, &[Write { key: "gone".into(), version: 4, fields: None, ..Write::default() }]).await?;
    sink.refresh().await?;
    assert_eq!(sink.count().await?, before, "a tombstone isn't counted");
    assert_eq!(one(sink, "gone").await?, Some(Stored { version: 4, fields: None, state: None }));
    assert_eq!(sink.write(&[named("gone", 4)]).await?, [Outcome::Stale], "a late writer doesn't revive it");
    written(sink, &[named("gone", 5)]).await?;
    assert_eq!(one(sink, "gone").await?, Some(Stored { version: 5, fields: named("gone", 5).fields, state: None }));
    Ok(())
}

async fn values(sink: &dyn Sink) -> Result<()> {
    let rich = put(
        "schlüssel/ 鍵:*?\"\\{}\n",
        1,
        serde_json::json!({
            "name": "Ünï😀 \"quoted\" \\ \u{0}end",
            "n": 9_007_199_254_740_993_i64,
            "rate": 0.1,
            "open": false,
            "at": "2026-11-21T05:00:00.123456Z",
            "products": [
                { "name": "1", "price": -1, "tags": ["x", "true"] },
                { "name": "", "price": i64::MAX, "tags": [] },
            ],
        }),
    );
    let empty = put("empty", 1, serde_json::json!({}));
    let large = put("large", 1, serde_json::json!({ "name": "ä".repeat(512 * 1024) }));
    let batch = [rich, empty, large];
    written(sink, &batch).await?;
    for write in batch {
        let key = write.key;
        let stored = one(sink, &key).await?;
        ensure!(
            stored == Some(Stored { version: 1, fields: write.fields, state: None }),
            "`{key}` isn't as it was written"
        );
    }
    Ok(())
}

async fn progress(sink: &dyn Sink) -> Result<()> {
    let partition = |number| Partition { topic: "events.ördér".into(), number };
    assert_eq!(sink.load_progress(&[partition(0), partition(1)]).await?, [None, None]);
    let mut first = Progress::default();
    first.handled(
        &EventRef { epoch: "7.1".into(), txid: u64::MAX, tx_min: 9, aggregate_id: "ä/\"".into(), sequence: 3 },
        41,
    );
    let second = Progress { next_offset: i64::MAX, ..Progress::default() };
    sink.save_progress(&[(partition(0), first.clone()), (partition(11), second.clone())]).await?;
    let loaded = sink.load_progress(&[partition(11), partition(1), partition(0)]).await?;
    assert_eq!(loaded, [Some(second), None, Some(first.clone())]);
    first.passed(42);
    sink.save_progress(&[(partition(0), first.clone())]).await?;
    assert_eq!(sink.load_progress(&[partition(0)]).await?, [Some(first)], "the newest counts");
    sink.save_progress(&[]).await?;
    Ok(())
}

fn fenced(result: Result<(), SinkError>) {
    assert!(matches!(result, Err(SinkError::Fenced { .. })), "not fenced: {result:?}");
}

/// Writes in batches of 500 and says how fast that was.
async fn speed(name: &str, sink: &dyn Sink, write: impl Fn(i64) -> Write) -> Result<()> {
    const BATCHES: i64 = 10;
    let (start, mut slowest) = (Instant::now(), Duration::ZERO);
    for batch in 0..BATCHES {
        let batch: Vec<Write> = (0..500).map(|i| write(batch * 500 + i)).collect();
        let began = Instant::now();
        written(sink, &batch).await?;
        slowest = slowest.max(began.elapsed());
    }
    let each_s = f64::from(500 * i32::try_from(BATCHES)?) / start.elapsed().as_secs_f64();
    println!("{name}: {each_s:.0} writes/s in batches of 500, the slowest batch took {} ms", slowest.as_millis());
    Ok(())
}

fn order(i: i64) -> Write {
    let products = serde_json::json!([{ "name": "lamp", "price": i, "tags": ["a", "b"] }, { "name": "chair", "price": 2, "tags": [] }]);
    put(
        &format!("speed-{i}"),
        1,
        serde_json::json!({ "name": "someone", "n": i, "at": "2026-11-21T05:00:00Z", "products": products }),
    )
}

#[tokio::test]
async fn memory_keeps_the_contract() -> Result<()> {
    let store = Arc::new(MemoryStore::default());
    let sink = MemorySink::open(Arc::clone(&store), &place("m", 1));
    documents(&sink).await?;
    fenced(MemorySink::open(Arc::clone(&store), &place("m", 2)).prepare().await);
    assert_eq!(store.live().as_deref(), Some("m-g1"));

    // An unknown outcome, then the same batch again: written once.
    store.fail_next([Fault::After, Fault::Before]);
    let (batch, before) = ([named("late", 1)], store.writes());
    assert!(sink.write(&batch).await.is_err() && sink.write(&batch).await.is_err());
    assert_eq!(sink.write(&batch).await?, [Outcome::Stale]);
    assert_eq!(store.writes(), before + 1);
    Ok(())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn redis_keeps_the_contract() -> Result<()> {
    let name = run_name();
    let prefix = format!("{name}[*]:");
    let store = Store::Redis(RedisStore { prefix: prefix.clone(), database: 0 });
    let result = {
        let name = name.clone();
        apart(async move { redis_steps(&name, &prefix, &store).await }).await
    };

    let mut connection = redis::Client::open(urls().redis_url)?.get_multiplexed_async_connection().await?;
    let keys: Vec<String> = redis::cmd("KEYS").arg(format!("*{name}*")).query_async(&mut connection).await?;
    for keys in keys.chunks(500) {
        redis::cmd("DEL").arg(keys).exec_async(&mut connection).await?;
    }
    result
}

async fn redis_steps(name: &str, prefix: &str, store: &Store) -> Result<()> {
    let sink = open(store, place(name, 1), &urls())?;
    let sink = sink.as_ref();
    documents(sink).await?;
    speed("redis", sink, order).await?;
    fenced(open(store, place(name, 2), &urls())?.prepare().await);

    let mut connection = redis::Client::open(urls().redis_url)?.get_multiplexed_async_connection().await?;
    // People read it without tools of ours.
    let n: String = redis::cmd("HGET").arg(format!("{prefix}speed-7")).arg("n").query_async(&mut connection).await?;
    let at: String = redis::cmd("HGET").arg(format!("{prefix}speed-7")).arg("at").query_async(&mut connection).await?;
    assert_eq!((n.as_str(), at.as_str()), ("7", "2026-11-21T05:00:00.000000Z"));

    // A lost script cache is no special case.
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await?;
    written(sink, &[named("after-flush", 1)]).await?;

    // A key of another type is refused alone.
    redis::cmd("SET").arg(format!("{prefix}foreign")).arg("x").exec_async(&mut connection).await?;
    let outcomes = sink.write(&[named("foreign", 1), named("beside", 1)]).await?;
    ensure!(matches!(&outcomes[..], [Outcome::Rejected(_), Outcome::Written]), "{outcomes:?}");

    // Another generation took over, or the database was emptied: a former owner writes nothing.
    let marker = format!("projector:generation:{name}");
    redis::cmd("SET").arg(&marker).arg(format!("{name}-g2")).exec_async(&mut connection).await?;
    fenced(sink.write(&[named("late", 1)]).await.map(|_| ()));
    ensure!(one(sink, "late").await?.is_none(), "a former owner's write landed");
    redis::cmd("DEL").arg(&marker).exec_async(&mut connection).await?;
    let emptied = sink.write(&[named("late", 1)]).await;
    ensure!(matches!(emptied, Err(SinkError::Broken { .. })), "{emptied:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn elasticsearch_keeps_the_contract() -> Result<()> {
    install_tls();
    let name = run_name();
    let result = {
        let name = name.clone();
        apart(async move { elasticsearch_steps(&name).await }).await
    };
    let (client, url) = (reqwest::Client::new(), urls().elasticsearch_url);
    for index in [format!("{name}-g1"), format!("{name}-g3")] {
        client.delete(format!("{url}/{index}")).send().await?;
    }
    let deleted = |number| serde_json::json!({ "delete": { "_id": format!("{name}-g1/events.ördér/{number}") } });
    let bulk = client.post(format!("{url}/projector-progress/_bulk")).header("content-type", "application/x-ndjson");
    bulk.body(format!("{}\n{}\n", deleted(0), deleted(11))).send().await?;
    result
}

async fn elasticsearch_steps(name: &str) -> Result<()> {
    let store = Store::Elasticsearch(ElasticsearchStore {
        fields: [("products.name".to_owned(), serde_json::json!({ "type": "text" }))].into(),
    });
    let sink = open(&store, place(name, 1), &urls())?;
    let sink = sink.as_ref();
    documents(sink).await?;
    speed("elasticsearch", sink, order).await?;

    // The server itself refuses a field that the mapping doesn't know, and a value that isn't of the field's type.
    let unknown = Write {
        key: "u".into(),
        version: 1,
        fields: Some(Object::from([("surprise".into(), Value::from(1))])),
        ..Write::default()
    };
    let wrong = Write {
        key: "w".into(),
        version: 1,
        fields: Some(Object::from([("n".into(), Value::from("seven"))])),
        ..Write::default()
    };
    let outcomes = sink.write(&[unknown, named("beside", 1), wrong]).await?;
    ensure!(matches!(&outcomes[..], [Outcome::Rejected(_), Outcome::Written, Outcome::Rejected(_)]), "{outcomes:?}");
    // Each request of a batch that has to be cut.
    // A key that would fail the whole request is refused alone, and never found.
    let long = "k".repeat(513);
    let outcomes = sink.write(&[named(&long, 1), named("beside-2", 1)]).await?;
    ensure!(matches!(&outcomes[..], [Outcome::Rejected(_), Outcome::Written]), "{outcomes:?}");
    let found = sink.load(&[long, "beside-2".to_owned(), String::new()]).await?;
    ensure!(matches!(&found[..], [None, Some(_), None]), "{found:?}");
    let large: Vec<Write> =
        (0..8).map(|i| put(&format!("cut-{i}"), 1, serde_json::json!({ "name": "x".repeat(1 << 20) }))).collect();
    written(sink, &large).await?;

    let (client, url) = (reqwest::Client::new(), urls().elasticsearch_url);
    sink.refresh().await?;
    let body = serde_json::json!({ "query": { "match": { "products.name": "LAMP" } }, "track_total_hits": true });
    let found: serde_json::Value =
        client.post(format!("{url}/{name}/_search")).json(&body).send().await?.json().await?;
    assert_eq!(found["hits"]["total"]["value"], 5000, "searched by alias and refined mapping");

    // An index that something else made is not ours, and a lost one isn't made again by a write.
    client.put(format!("{url}/{name}-g3")).send().await?.error_for_status()?;
    fenced(open(&store, place(name, 3), &urls())?.prepare().await);
    client.delete(format!("{url}/{name}-g1")).send().await?.error_for_status()?;
    let lost = sink.write(&[named("lost", 1)]).await;
    ensure!(matches!(lost, Err(SinkError::Broken { .. })), "{lost:?}");
    let lost = sink.load(&["lost".to_owned()]).await;
    ensure!(matches!(lost, Err(SinkError::Broken { .. })), "{lost:?}");
    Ok(())
}

fn install_tls() {
    // Another test of this process may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn row_kind() -> Kind {
    Kind::object(
        Collection::empty()
            .with_known("day", Kind::bytes())
            .with_known("currency", Kind::bytes())
            .with_known("amount", Kind::integer())
            .with_known("note", Kind::bytes().or_undefined())
            .with_known("recorded_at", Kind::timestamp())
            .with_known("tags", Kind::array(Collection::from_unknown(Kind::bytes())).or_undefined()),
    )
}

fn row(event: Uuid, number: u16, day: &str, amount: i64) -> Write {
    let json = serde_json::json!({ "day": day, "currency": "EUR", "amount": amount,
        "note": "Ünï😀 \"q\" \\ \u{0}", "recorded_at": "2026-11-21T05:00:00.123456Z", "tags": ["1", "ä"] });
    let Value::Object(fields) = json::from_json(json, &row_kind()) else { panic!("not an object") };
    Write { key: format!("{event}/{number}"), version: 0, fields: Some(fields), ..Write::default() }
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn clickhouse_keeps_the_contract() -> Result<()> {
    install_tls();
    let name = run_name();
    let result = {
        let name = name.clone();
        apart(async move { clickhouse_steps(&name).await }).await
    };
    let database = urls().clickhouse_database;
    for what in [format!("VIEW IF EXISTS {database}.{name}"), format!("TABLE IF EXISTS {database}.{name}_g1")] {
        clickhouse(&format!("DROP {what}")).await?;
    }
    clickhouse(&format!("DROP TABLE IF EXISTS {database}.{name}_g3")).await?;
    clickhouse(&format!("DELETE FROM {database}.projector_progress WHERE generation LIKE '{name}%'")).await?;
    result
}

/// A statement, and its answer as text.
async fn clickhouse(sql: &str) -> Result<String> {
    let response = reqwest::Client::new().post(urls().clickhouse_url).body(sql.to_owned()).send().await?;
    let (ok, text) = (response.status().is_success(), response.text().await?);
    ensure!(ok, "{sql}: {text}");
    Ok(text.trim_end().to_owned())
}

async fn clickhouse_steps(name: &str) -> Result<()> {
    let columns = [("currency".to_owned(), "LowCardinality(String)".to_owned())].into();
    let store = Store::Clickhouse(ClickhouseStore { day: "day".into(), columns });
    let place = |generation| Place { read_model: name.to_owned(), generation, document: row_kind() };
    let sink = open(&store, place(1), &urls())?;
    let sink = sink.as_ref();
    let view = format!("{}.{name}", urls().clickhouse_database);
    sink.prepare().await?;
    sink.prepare().await?;
    sink.go_live().await?;
    sink.go_live().await?;

    // The same ids again, in the same and in another block, are the same rows.
    let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
    let big = (1_i64 << 53) + 1;
    let batch = [row(one, 0, "2026-11-21", big), row(one, 1, "2020-01-31", -3), row(two, 0, "2026-11-21", 5)];
    written(sink, &batch).await?;
    written(sink, &batch).await?;
    written(sink, &batch[2..]).await?;
    assert_eq!(sink.count().await?, 3);
    let sums = format!(
        "SELECT sum(amount), count(), groupUniqArray(note)[1], min(recorded_at), any(tags) FROM {view} FORMAT JSONCompactEachRow SETTINGS output_format_json_quote_64bit_integers=0"
    );
    let sums: serde_json::Value = serde_json::from_str(&clickhouse(&sums).await?)?;
    assert_eq!(sums, serde_json::json!([big + 2, 3, "Ünï😀 \"q\" \\ \u{0}", "2026-11-21 05:00:00.123456", ["1", "ä"]]));

    // Bad rows are found and named; the others of their batch land.
    let mut batch: Vec<Write> = (0..100).map(|i| row(Uuid::now_v7(), 0, "2026-11-20", i)).collect();
    batch[13] = row(Uuid::now_v7(), 0, "not a day", 1);
    batch[14] = Write { key: "no id".into(), ..batch[14].clone() };
    batch[15].fields =
        batch[15].fields.take().map(|fields| fields.into_iter().filter(|(k, _)| k.as_str() != "amount").collect());
    batch[99].fields = Some(Object::from([("surprise".into(), Value::from(1))]));
    let outcomes = sink.write(&batch).await?;
    let rejected: Vec<usize> = (0..100).filter(|&i| matches!(outcomes[i], Outcome::Rejected(_))).collect();
    assert_eq!(rejected, [13, 14, 15, 99], "{outcomes:?}");
    assert_eq!(sink.count().await?, 3 + 96);

    let large = Write { fields: row(two, 9, "2026-11-21", 1).fields, ..row(two, 9, "2026-11-21", 1) };
    let mut fields = large.fields.clone().unwrap_or_default();
    fields.insert("note".into(), Value::from("ä".repeat(512 * 1024)));
    written(sink, &[Write { fields: Some(fields), ..large }]).await?;
    // History over more months than a block may have by default.
    let years: Vec<Write> =
        (0..150).map(|i| row(Uuid::now_v7(), 0, &format!("{}-{:02}-01", 2000 + i / 12, i % 12 + 1), 1)).collect();
    written(sink, &years).await?;
    progress(sink).await?;
    speed("clickhouse", sink, |i| row(Uuid::now_v7(), 0, "2026-11-21", i)).await?;

    let database = urls().clickhouse_database;
    clickhouse(&format!("CREATE TABLE {database}.{name}_g3 (x Int8) ENGINE = MergeTree ORDER BY x")).await?;
    fenced(open(&store, place(3), &urls())?.prepare().await);
    clickhouse(&format!("DROP TABLE {database}.{name}_g1")).await?;
    let lost = sink.write(&[row(one, 0, "2026-11-21", 1)]).await;
    ensure!(matches!(lost, Err(SinkError::Broken { .. })), "{lost:?}");
    Ok(())
}

#[tokio::test]
async fn a_store_that_is_away_is_unavailable() -> Result<()> {
    install_tls();
    // A port that nothing listens on: it was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let away = StoreUrls {
        redis_url: format!("redis://127.0.0.1:{port}"),
        elasticsearch_url: format!("http://127.0.0.1:{port}"),
        clickhouse_url: format!("http://127.0.0.1:{port}"),
        clickhouse_database: "read_models".into(),
        postgres_read_url: format!("postgres://app@127.0.0.1:{port}/read_models"),
    };
    let clickhouse = Store::Clickhouse(ClickhouseStore { day: "day".into(), columns: Default::default() });
    let stores = [
        (Store::Redis(RedisStore { prefix: "x:".into(), database: 0 }), document()),
        (Store::Elasticsearch(ElasticsearchStore::default()), document()),
        (clickhouse, row_kind()),
    ];
    for (store, document) in stores {
        let sink = open(&store, Place { read_model: "away".into(), generation: 1, document }, &away)?;
        let write = row(Uuid::now_v7(), 0, "2026-11-21", 1);
        for result in [sink.prepare().await, sink.write(&[write]).await.map(|_| ())] {
            ensure!(matches!(result, Err(SinkError::Unavailable { .. })), "{}: {result:?}", store.name());
        }
    }
    Ok(())
}
