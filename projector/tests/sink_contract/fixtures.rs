//! Names, documents and rows that the tests write, and short ways to write and read them.

use anyhow::{Context as _, Result, ensure};
use projector::apply::{Changed, Outcome, Stored, Write};
use projector::expr::{Collection, Kind, Object, Value, json};
use projector::sink::{Place, Sink, SinkError, StoreUrls};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

fn env(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

pub(super) fn urls() -> StoreUrls {
    // Another test of this process may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    StoreUrls {
        redis_url: env("REDIS_URL", "redis://127.0.0.1:16379"),
        elasticsearch_url: env("ELASTICSEARCH_URL", "http://127.0.0.1:19200"),
        clickhouse_url: env("CLICKHOUSE_URL", "http://127.0.0.1:18123"),
        clickhouse_database: env("CLICKHOUSE_DATABASE", "read_models"),
        postgres_read_url: env("READ_DATABASE_URL", "postgres://app@127.0.0.1:15432/read_models"),
        ..StoreUrls::default()
    }
}

/// The same stores at a port of this machine.
pub(super) fn urls_at(port: u16) -> StoreUrls {
    StoreUrls {
        redis_url: format!("redis://127.0.0.1:{port}"),
        elasticsearch_url: format!("http://127.0.0.1:{port}"),
        clickhouse_url: format!("http://127.0.0.1:{port}"),
        postgres_read_url: format!("postgres://app@127.0.0.1:{port}/read_models"),
        ..urls()
    }
}

/// Runs a store's steps apart, so that a failed assertion doesn't keep what they made from being removed.
pub(super) async fn apart(steps: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    tokio::spawn(steps).await.context("the steps panicked").flatten()
}

pub(super) fn run_name() -> String {
    format!("contract_{}", Uuid::new_v4().simple())
}

/// The type of the documents below, as it would be inferred.
pub(super) fn document() -> Kind {
    let list = |of: Kind| Kind::array(Collection::from_unknown(of));
    let product = Kind::object(
        Collection::empty()
            .with_known("name", Kind::bytes())
            .with_known("price", Kind::integer())
            .with_known("tags", list(Kind::bytes())),
    );
    Kind::object(
        Collection::empty()
            .with_known("name", Kind::bytes())
            .with_known("n", Kind::integer().or_null())
            .with_known("rate", Kind::float().or_undefined())
            .with_known("open", Kind::boolean().or_undefined())
            .with_known("at", Kind::timestamp().or_undefined())
            .with_known("grid", list(list(Kind::integer())).or_undefined())
            .with_known("products", list(product).or_undefined()),
    )
}

pub(super) fn place(read_model: &str, generation: u32) -> Place {
    Place { read_model: read_model.to_owned(), generation, document: document() }
}

pub(super) fn object(json: serde_json::Value) -> Object {
    match json::from_json(json, &document()) {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

pub(super) fn put(key: &str, version: i64, json: serde_json::Value) -> Write {
    Write { key: key.to_owned(), version, fields: Some(object(json).into()), ..Write::default() }
}

pub(super) fn named(key: &str, version: i64) -> Write {
    put(key, version, serde_json::json!({ "name": format!("{key} at {version}") }))
}

/// These fields may have changed since a version.
pub(super) fn changed(since: i64, names: &[&str]) -> Changed {
    let mut changed = Changed::since(since);
    changed.add(&Arc::new(names.iter().map(|name| (*name).into()).collect()));
    changed
}

pub(super) fn tombstone(key: &str, version: i64) -> Write {
    Write { key: key.to_owned(), version, ..Write::default() }
}

/// A document of about a kilobyte, with lines.
pub(super) fn loan(i: i64) -> Write {
    let lines = serde_json::json!([{ "name": "lamp", "price": i, "tags": ["a", "b"] }, { "name": "chair", "price": 2, "tags": [] }]);
    let json = serde_json::json!({ "name": "x".repeat(800), "n": i, "at": "2026-11-21T05:00:00Z", "products": lines });
    put(&format!("speed-{i}"), 1, json)
}

pub(super) fn row_kind() -> Kind {
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

pub(super) fn row(event: Uuid, number: u16, day: &str, amount: i64) -> Write {
    let json = serde_json::json!({ "day": day, "currency": "EUR", "amount": amount,
        "note": "Ünï😀 \"q\" \\ \u{0}", "recorded_at": "2026-11-21T05:00:00.123456Z", "tags": ["1", "ä"] });
    let Value::Object(fields) = json::from_json(json, &row_kind()) else { panic!("not an object") };
    Write { key: format!("{event}/{number}"), version: 0, fields: Some(fields.into()), ..Write::default() }
}

pub(super) async fn one(sink: &dyn Sink, key: &str) -> Result<Option<Stored>> {
    sink.load(&[key.to_owned()]).await?.pop().context("one answer a key")
}

pub(super) async fn written(sink: &dyn Sink, batch: &[Write]) -> Result<()> {
    let outcomes = sink.write(batch).await?;
    ensure!(outcomes == vec![Outcome::Written; batch.len()], "not all written: {outcomes:?}");
    Ok(())
}

pub(super) fn fenced(result: Result<(), SinkError>) {
    assert!(matches!(result, Err(SinkError::Fenced { .. })), "not fenced: {result:?}");
}

pub(super) fn unavailable<T: std::fmt::Debug>(result: Result<T, SinkError>) -> Result<()> {
    ensure!(matches!(result, Err(SinkError::Unavailable { .. })), "not unavailable: {result:?}");
    Ok(())
}

/// Writes in batches of 500 and says how fast that was.
pub(super) async fn speed(name: &str, sink: &dyn Sink, write: impl Fn(i64) -> Write) -> Result<()> {
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
