//! Postgres: `COPY` into a table with the projection's columns and indexes.

use super::{Fed, Stores};
use crate::oracle::Document;
use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use serde_json::Value as Json;
use sqlx::postgres::PgRow;
use sqlx::types::Json as Jsonb;
use sqlx::{Connection as _, PgConnection, Row as _};
use std::collections::HashMap;
use std::time::Instant;

const COLUMNS: [(&str, &str); 17] = [
    ("order_id", "uuid"),
    ("customer_id", "uuid"),
    ("customer_name", "text"),
    ("customer_email", "text"),
    ("status", "text"),
    ("items", "jsonb"),
    ("item_count", "bigint"),
    ("total_amount_cents", "bigint"),
    ("currency", "text"),
    ("shipping_address", "jsonb"),
    ("estimated_delivery", "timestamptz"),
    ("placed_at", "timestamptz"),
    ("shipped_at", "timestamptz"),
    ("tracking_number", "text"),
    ("cancelled_at", "timestamptz"),
    ("cancellation_reason", "text"),
    ("version", "bigint"),
];
/// A piece of the stream.
const PIECE_BYTES: usize = 1 << 20;

async fn connect(stores: &Stores) -> Result<PgConnection> {
    Ok(PgConnection::connect(&stores.urls.postgres_read_url).await?)
}

pub(super) async fn clear(stores: &Stores) -> Result<()> {
    sqlx::raw_sql("drop schema if exists read_models cascade; drop table if exists limit_details")
        .execute(&mut connect(stores).await?)
        .await?;
    Ok(())
}

pub(super) async fn feed(stores: &Stores, documents: impl Iterator<Item = (String, Document)>) -> Result<Fed> {
    let mut connection = connect(stores).await?;
    let columns: Vec<_> = COLUMNS.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
    let table = format!(
        "create table limit_details (_key text collate \"C\" primary key, {}); create index on limit_details (order_id)",
        columns.join(", ")
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(table)).execute(&mut connection).await?;
    let (mut pieces, mut piece, mut count) = (Vec::new(), String::new(), 0);
    for (key, document) in documents {
        piece.push_str(&key);
        for (name, _) in COLUMNS {
            piece.push('\t');
            match document.get(name) {
                None | Some(Json::Null) => piece.push_str("\\N"),
                Some(Json::String(text)) => piece.push_str(text),
                // None of these texts has anything to escape in it.
                Some(other) => piece.push_str(&other.to_string()),
            }
        }
        piece.push('\n');
        count += 1;
        if piece.len() > PIECE_BYTES {
            pieces.push(std::mem::take(&mut piece));
        }
    }
    pieces.push(piece);
    let began = Instant::now();
    let mut copy = connection.copy_in_raw("copy limit_details from stdin").await?;
    for piece in pieces {
        copy.send(piece.into_bytes()).await?;
    }
    copy.finish().await?;
    let took = began.elapsed();
    sqlx::raw_sql("drop table limit_details").execute(&mut connection).await?;
    Ok(Fed::new(count, took, "one COPY, with both indexes"))
}

pub(super) async fn found(stores: &Stores) -> Result<HashMap<String, Document>> {
    read(sqlx::query("select to_jsonb(t) from read_models.order_details as t").fetch(&mut connect(stores).await?)).await
}

pub(super) async fn some(stores: &Stores, keys: &[String]) -> Result<HashMap<String, Document>> {
    let sql = "select to_jsonb(t) from read_models.order_details as t where order_id::text = any($1)";
    let sql = sqlx::query(sql).bind(keys);
    read(sql.fetch(&mut connect(stores).await?)).await
}

async fn read(mut rows: BoxStream<'_, sqlx::Result<PgRow>>) -> Result<HashMap<String, Document>> {
    let mut found = HashMap::new();
    while let Some(row) = rows.try_next().await? {
        let Jsonb(document): Jsonb<Document> = row.try_get(0)?;
        let key = document.get("order_id").and_then(Json::as_str).context("no order_id")?.to_owned();
        found.insert(key, document);
    }
    Ok(found)
}
