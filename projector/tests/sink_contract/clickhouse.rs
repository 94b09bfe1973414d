//! On a real ClickHouse.

use super::facts::facts;
use super::fixtures::{apart, fenced, row, row_kind, run_name, speed, urls, urls_at, written};
use super::outages::outages;
use super::proxy::Proxy;
use anyhow::{Result, ensure};
use projector::apply::{Outcome, Partition, Progress, Write};
use projector::expr::{Object, Value};
use projector::projection::{ClickhouseStore, Store};
use projector::sink::{Place, SinkError, StoreUrls, open};
use std::sync::Arc;
use uuid::Uuid;

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn clickhouse_keeps_the_contract() -> Result<()> {
    let name = run_name();
    let result = {
        let name = name.clone();
        apart(async move { steps(&name).await }).await
    };
    let database = urls().clickhouse_database;
    for what in [format!("VIEW IF EXISTS {database}.{name}"), format!("TABLE IF EXISTS {database}.{name}_g1")] {
        sql(&format!("DROP {what}")).await?;
    }
    sql(&format!("DROP TABLE IF EXISTS {database}.{name}_g3")).await?;
    sql(&format!("DELETE FROM {database}.projector_progress WHERE generation LIKE '{name}%'")).await?;
    result
}

/// A statement, and its answer as text.
async fn sql(statement: &str) -> Result<String> {
    let response = reqwest::Client::new().post(urls().clickhouse_url).body(statement.to_owned()).send().await?;
    let (ok, text) = (response.status().is_success(), response.text().await?);
    ensure!(ok, "{statement}: {text}");
    Ok(text.trim_end().to_owned())
}

async fn steps(name: &str) -> Result<()> {
    let columns = [("currency".to_owned(), "LowCardinality(String)".to_owned())].into();
    let store = Store::Clickhouse(ClickhouseStore { day: "day".into(), columns, ..ClickhouseStore::default() });
    let place = |generation| Place { read_model: name.to_owned(), generation, document: row_kind() };
    let sink = open(&store, place(1), &urls())?;
    let sink = sink.as_ref();
    let view = format!("{}.{name}", urls().clickhouse_database);
    let big = (1_i64 << 53) + 1;
    facts(sink).await?;
    let sums = format!(
        "SELECT sum(amount), count(), groupUniqArray(note)[1], min(recorded_at), any(tags) FROM {view} FORMAT JSONCompactEachRow SETTINGS output_format_json_quote_64bit_integers=0"
    );
    let sums: serde_json::Value = serde_json::from_str(&sql(&sums).await?)?;
    assert_eq!(sums, serde_json::json!([big + 2, 3, "Ünï😀 \"q\" \\ \u{0}", "2026-11-21 05:00:00.123456", ["1", "ä"]]));

    // Bad rows are found and named; the others of their batch land.
    let mut batch: Vec<Write> = (0..100).map(|i| row(Uuid::now_v7(), 0, "2026-11-20", i)).collect();
    batch[13] = row(Uuid::now_v7(), 0, "not a day", 1);
    batch[14] = Write { key: "no id".into(), ..batch[14].clone() };
    if let Some(fields) = &mut batch[15].fields {
        Arc::make_mut(fields).remove("amount");
    }
    batch[16].state = Some("facts have none".into());
    batch[17].expires = Some(chrono::Utc::now());
    batch[18].parents = vec!["p".into()];
    batch[99].fields = Some(Object::from([("surprise".into(), Value::from(1))]).into());
    let outcomes = sink.write(&batch).await?;
    let rejected: Vec<usize> = (0..100).filter(|&i| matches!(outcomes[i], Outcome::Rejected(_))).collect();
    assert_eq!(rejected, [13, 14, 15, 16, 17, 18, 99], "{outcomes:?}");
    assert_eq!(sink.count().await?, 3 + 93);

    let two = Uuid::now_v7();
    let large = Write { fields: row(two, 9, "2026-11-21", 1).fields, ..row(two, 9, "2026-11-21", 1) };
    let mut fields = large.fields.clone().unwrap_or_default();
    Arc::make_mut(&mut fields).insert("note".into(), Value::from("ä".repeat(512 * 1024)));
    written(sink, &[Write { fields: Some(fields), ..large }]).await?;
    // History over more months than a block may have by default.
    let years: Vec<Write> =
        (0..150).map(|i| row(Uuid::now_v7(), 0, &format!("{}-{:02}-01", 2000 + i / 12, i % 12 + 1), 1)).collect();
    written(sink, &years).await?;
    speed("clickhouse", sink, |i| row(Uuid::now_v7(), 0, "2026-11-21", i)).await?;

    let proxy = Proxy::start(&urls().clickhouse_url).await?;
    let through = open(&store, place(1), &urls_at(proxy.port))?;
    outages(through.as_ref(), sink, &proxy, true).await?;

    earlier_release(name, &store).await?;

    let database = urls().clickhouse_database;
    sql(&format!("CREATE TABLE {database}.{name}_g3 (x Int8) ENGINE = MergeTree ORDER BY x")).await?;
    fenced(open(&store, place(3), &urls())?.prepare().await);
    sql(&format!("DROP TABLE {database}.{name}_g1")).await?;
    let lost = sink.write(&[row(two, 0, "2026-11-21", 1)]).await;
    ensure!(matches!(lost, Err(SinkError::Broken { .. })), "{lost:?}");
    Ok(())
}

/// Progress that an earlier release saved, without a fence, is found and goes on.
async fn earlier_release(name: &str, store: &Store) -> Result<()> {
    let partition = Partition { topic: "events.old".into(), number: 0 };
    let old = Progress { next_offset: 7, ..Progress::default() };
    sql(&format!("CREATE DATABASE {name}")).await?;
    let table = format!("{name}.projector_progress");
    sql(&format!(
        "CREATE TABLE {table} (generation String, topic String, partition Int32, progress String, saved UInt64)
         ENGINE = ReplacingMergeTree(saved) ORDER BY (generation, topic, partition)"
    ))
    .await?;
    let text = serde_json::to_string(&old)?;
    sql(&format!("INSERT INTO {table} VALUES ('{name}-g1', 'events.old', 0, '{text}', 1795000000000000)")).await?;

    let urls = StoreUrls { clickhouse_database: name.to_owned(), ..urls() };
    let place = Place { read_model: name.to_owned(), generation: 1, document: row_kind() };
    let result = apart({
        let sink = open(store, place, &urls)?;
        async move {
            sink.prepare().await?;
            sink.prepare().await?;
            assert_eq!(sink.load_progress(std::slice::from_ref(&partition)).await?, [Some(old)]);
            for fence in [0, 3] {
                let newer = Progress { next_offset: 8 + fence, fence, ..Progress::default() };
                sink.save_progress(&[(partition.clone(), newer.clone())]).await?;
                assert_eq!(sink.load_progress(std::slice::from_ref(&partition)).await?, [Some(newer)]);
            }
            Ok(())
        }
    })
    .await;
    sql(&format!("DROP DATABASE {name}")).await?;
    result
}
