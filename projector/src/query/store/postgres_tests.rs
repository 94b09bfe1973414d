//! On a real Postgres, over a place that the sink made.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::apply::Write;
use crate::expr::Collection;
use crate::sink::{Place, Sink as _, postgres::PostgresSink};
use chrono::{TimeDelta, Utc};
use serde_json::json;

fn urls() -> StoreUrls {
    let nowhere = "http://127.0.0.1:9".to_owned();
    let url = std::env::var("READ_DATABASE_URL");
    StoreUrls {
        redis_url: "redis://127.0.0.1:9".into(),
        elasticsearch_url: nowhere.clone(),
        clickhouse_url: nowhere,
        clickhouse_database: "d".into(),
        postgres_read_url: url.unwrap_or_else(|_| "postgres://app@127.0.0.1:15432/read_models".into()),
        ..StoreUrls::default()
    }
}

fn document() -> Kind {
    Kind::object(
        Collection::empty()
            .with_known("title", Kind::bytes())
            .with_known("copies", Kind::integer())
            .with_known("at", Kind::timestamp())
            .with_known("tags", Kind::array(Collection::from_unknown(Kind::bytes()))),
    )
}

fn book(key: &str, copies: i64) -> Write {
    let json =
        json!({ "title": format!("it's {key}"), "copies": copies, "at": "2026-11-21T05:00:00.5Z", "tags": ["a"] });
    let Value::Object(fields) = json::from_json(json, &document()) else { panic!("not an object") };
    Write {
        key: key.to_owned(),
        version: 1,
        fields: Some(fields.into()),
        state: Some("hidden".into()),
        ..Write::default()
    }
}

async fn read(
    reader: &PostgresReader,
    sql: &str,
    arguments: serde_json::Value,
) -> Result<serde_json::Value, ReadError> {
    let rows = reader.query(&SqlTemplate::parse(sql, None).unwrap(), arguments.as_object().unwrap()).await?;
    Ok(rows.iter().map(json::to_json).collect())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn statements_see_what_readers_may_and_change_nothing() {
    let schema = format!("query_{}", uuid::Uuid::new_v4().simple());
    let config = PostgresStore { schema: schema.clone(), ..PostgresStore::default() };
    let place = Place { read_model: "books".into(), generation: 2, document: document() };
    let sink = PostgresSink::open(&config, place, &urls()).unwrap();
    let generation = Generation {
        generation_id: 1,
        read_model: "books".into(),
        generation: 2,
        state: "live".into(),
        fingerprint: String::new(),
        config: String::new(),
        topics: Default::default(),
    };
    let reader = PostgresReader::open(&config, &generation, &urls()).unwrap();
    let result = tokio::spawn(async move { steps(&sink, &reader).await }).await;
    let pool = PgPool::connect(&urls().postgres_read_url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {schema} CASCADE"))).execute(&pool).await.unwrap();
    result.unwrap();
}

async fn steps(sink: &PostgresSink, reader: &PostgresReader) {
    sink.prepare().await.unwrap();
    let over = Write { expires: Some(Utc::now() - TimeDelta::days(1)), ..book("over", 1) };
    let gone = Write { key: "gone".into(), version: 1, ..Write::default() };
    sink.write(&[book("one", 1), book("two", 9_007_199_254_740_993), over, gone]).await.unwrap();

    let all = read(reader, "select * from {table} order by copies desc; ", json!({})).await.unwrap();
    let row = |title: &str, copies: i64| json!({ "title": title, "copies": copies, "at": "2026-11-21T05:00:00.500000Z", "tags": ["a"] });
    assert_eq!(
        all,
        json!([row("it's two", 9_007_199_254_740_993), row("it's one", 1)]),
        "no hidden columns, no hidden rows"
    );

    let sql = "select title from {table} -- {at:date}
               where ({title:text} is null or title = {title:text}) and copies < {max:bigint} and at::date = {at:date}
               order by title limit {limit:bigint} offset {offset:bigint} -- the end";
    let given =
        |title, page| json!({ "title": title, "max": 10_i64.pow(17), "at": "2026-11-21", "page": page, "size": 1 });
    assert_eq!(read(reader, sql, given(Some("it's one"), 1)).await.unwrap(), json!([{ "title": "it's one" }]));
    assert_eq!(read(reader, sql, given(None, 2)).await.unwrap(), json!([{ "title": "it's two" }]));
    assert_eq!(read(reader, sql, given(Some("' or true --"), 1)).await.unwrap(), json!([]));

    // What is declared wrong is told from a server that is away.
    for wrong in ["select nothing from {table}", "delete from {table} returning 1", "select 1/0 from {table}"] {
        let error = read(reader, wrong, json!({})).await.unwrap_err();
        assert!(matches!(error, ReadError::Refused(_)), "{wrong}: {error}");
    }
    let large = read(reader, "select g from {table}, generate_series(1, 60000) g", json!({})).await.unwrap_err();
    assert!(large.to_string().contains("100000 rows"), "{large}");
    let slow = read(reader, "select pg_sleep(30) from {table}", json!({})).await.unwrap_err();
    assert!(matches!(slow, ReadError::Unavailable(_)), "{slow}");
}
