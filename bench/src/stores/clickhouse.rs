//! ClickHouse: one insert, streamed as RowBinary by the makers' client.

use super::{Fed, Stores};
use crate::oracle::Document;
use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, NaiveDate};
use clickhouse::Row;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::time::Instant;

#[derive(Row, Serialize, Deserialize)]
struct Booked {
    /// Days since 1970.
    day: u16,
    order_id: String,
    currency: String,
    entry: String,
    amount_cents: i64,
    orders: i64,
    /// Microseconds.
    recorded_at: i64,
}

async fn query(stores: &Stores, sql: &str) -> Result<String> {
    let answer = stores.http.post(&stores.urls.clickhouse_url).body(sql.to_owned()).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{sql}: {text}");
    Ok(text)
}

pub(super) async fn clear(stores: &Stores) -> Result<()> {
    let database = &stores.urls.clickhouse_database;
    query(stores, &format!("DROP DATABASE IF EXISTS {database} SYNC")).await?;
    query(stores, &format!("CREATE DATABASE {database}")).await?;
    Ok(())
}

pub(super) async fn feed(stores: &Stores, documents: impl Iterator<Item = (String, Document)>) -> Result<Fed> {
    let rows = documents.map(|(_, row)| booked(&row).context("a row without a field")).collect::<Result<Vec<_>>>()?;
    let database = &stores.urls.clickhouse_database;
    let table = format!(
        "CREATE TABLE {database}.limit_revenue (day Date, order_id String, currency LowCardinality(String), entry LowCardinality(String), \
         amount_cents Int64, orders Int64, recorded_at DateTime64(6, 'UTC')) \
         ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(day) ORDER BY (day, order_id, entry)"
    );
    query(stores, &table).await?;
    let client = clickhouse::Client::default().with_url(&stores.urls.clickhouse_url).with_database(database);
    let began = Instant::now();
    let mut insert = client.insert::<Booked>("limit_revenue").await?;
    for row in &rows {
        insert.write(row).await?;
    }
    insert.end().await?;
    let took = began.elapsed();
    query(stores, &format!("DROP TABLE {database}.limit_revenue SYNC")).await?;
    Ok(Fed::new(rows.len(), took, "one RowBinary insert, streamed"))
}

fn booked(row: &Document) -> Option<Booked> {
    let text = |name: &str| Some(row.get(name)?.as_str()?.to_owned());
    let day: NaiveDate = text("day")?.parse().ok()?;
    Some(Booked {
        day: u16::try_from((day - NaiveDate::default()).num_days()).ok()?,
        order_id: text("order_id")?,
        currency: text("currency")?,
        entry: text("entry")?,
        amount_cents: row.get("amount_cents")?.as_i64()?,
        orders: row.get("orders")?.as_i64()?,
        recorded_at: DateTime::parse_from_rfc3339(&text("recorded_at")?).ok()?.timestamp_micros(),
    })
}

pub(super) async fn found(stores: &Stores) -> Result<HashMap<String, Document>> {
    let sql = format!(
        "SELECT * FROM {}.daily_revenue FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0, \
         date_time_output_format = 'iso'",
        stores.urls.clickhouse_database
    );
    let (mut found, mut twice) = (HashMap::new(), 0);
    for line in query(stores, &sql).await?.lines() {
        let row: Document = serde_json::from_str(line)?;
        let text = |name: &str| row.get(name).and_then(Json::as_str).unwrap_or_default();
        let mut key = format!("{}/{}", text("order_id"), text("entry"));
        if found.contains_key(&key) {
            twice += 1;
            key = format!("{key}, again ({twice})");
        }
        found.insert(key, row);
    }
    Ok(found)
}
