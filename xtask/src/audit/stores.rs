//! The read stores, asked directly: Redis and Postgres by their protocols, the search engine and ClickHouse over HTTP.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions, types::Json};

use super::compare::{Document, Documents};

const PAGE: usize = 1_000;
/// The crate's default of 500 ms ends large pipelines that were going well.
const REDIS_TIMEOUT: Duration = Duration::from_secs(30);
const HTTP_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(super) struct Stores {
    redis: redis::Client,
    postgres: PgPool,
    http: reqwest::Client,
    search_url: String,
    clickhouse_url: String,
    clickhouse_database: String,
}

impl Stores {
    pub(super) async fn connect(
        redis_url: &str,
        search_url: &str,
        clickhouse_url: &str,
        clickhouse_database: &str,
        postgres_url: &str,
    ) -> Result<Self> {
        let redis = redis::Client::open(redis_url).context("REDIS_URL")?;
        let postgres = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(5));
        let postgres = postgres.connect(postgres_url).await.context("can't connect to the database of read models")?;
        let http = reqwest::Client::builder().timeout(HTTP_TIMEOUT).build().context("can't set up the HTTP client")?;
        let bare = |url: &str| url.trim_end_matches('/').to_owned();
        Ok(Self {
            redis,
            postgres,
            http,
            search_url: bare(search_url),
            clickhouse_url: bare(clickhouse_url),
            clickhouse_database: clickhouse_database.to_owned(),
        })
    }

    /// Every row of a read model's view, by the expression that is its key.
    pub(super) async fn postgres_rows(&self, view: &'static str, key: &'static str) -> Result<Documents> {
        let query = format!("select coalesce(({key})::text, 'without a key'), to_jsonb(v) from read_models.{view} v");
        let rows: Vec<(String, Json<Document>)> =
            sqlx::query_as(AssertSqlSafe(query)).fetch_all(&self.postgres).await.with_context(|| view.to_owned())?;
        Ok(rows.into_iter().map(|(key, Json(document))| (key, document)).collect())
    }

    async fn redis_database(&self, database: u8) -> Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(REDIS_TIMEOUT));
        let connected = self.redis.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = connected.context("can't connect to Redis")?;
        let () = redis::cmd("SELECT").arg(database).query_async(&mut connection).await.context("SELECT")?;
        Ok(connection)
    }

    /// Every hash of a logical database whose key matches, all of its fields as texts.
    pub(super) async fn redis_hashes(&self, database: u8, pattern: &str) -> Result<Documents> {
        let mut connection = self.redis_database(database).await?;
        let mut documents = Documents::new();
        let mut cursor = 0_u64;
        loop {
            let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg(&["MATCH", pattern, "COUNT"])
                .arg(PAGE)
                .query_async(&mut connection)
                .await
                .context("SCAN")?;
            let mut pipeline = redis::pipe();
            for key in &keys {
                pipeline.hgetall(key);
            }
            // a page of a scan may be empty, a pipeline may not
            let hashes: Vec<Vec<(String, String)>> = match keys.is_empty() {
                true => Vec::new(),
                false => pipeline.query_async(&mut connection).await.context("HGETALL")?,
            };
            for (key, fields) in keys.into_iter().zip(hashes) {
                let fields: Document = fields.into_iter().map(|(name, text)| (name, Value::String(text))).collect();
                // deleted ones keep a hash of hidden fields; a key that went in between is empty
                if fields.keys().any(|name| !name.starts_with('_')) {
                    documents.insert(key, fields);
                }
            }
            if next == 0 {
                return Ok(documents);
            }
            cursor = next;
        }
    }

    /// Every document of an index or alias, by its id, tombstones left out.
    pub(super) async fn search_documents(&self, index: &str) -> Result<Documents> {
        self.search_post(&format!("{index}/_refresh"), None).await?;
        let mut page = self
            .search_post(
                &format!("{index}/_search?scroll=1m"),
                Some(&json!({"size": PAGE, "sort": ["_doc"], "query": {"match_all": {}}})),
            )
            .await?;
        let mut documents = Documents::new();
        loop {
            let hits = page["hits"]["hits"].as_array().cloned().unwrap_or_default();
            let scroll_id = page["_scroll_id"].clone();
            if hits.is_empty() {
                let _ = self
                    .http
                    .delete(format!("{}/_search/scroll", self.search_url))
                    .json(&json!({"scroll_id": [scroll_id]}))
                    .send()
                    .await;
                return Ok(documents);
            }
            for hit in hits {
                let id = hit["_id"].as_str().context("a hit without an id")?.to_owned();
                let document: Document = serde_json::from_value(hit["_source"].clone())
                    .with_context(|| format!("document {id} of {index}"))?;
                if document.get("_deleted") != Some(&Value::Bool(true)) {
                    documents.insert(id, document);
                }
            }
            page = self.search_post("_search/scroll", Some(&json!({"scroll": "1m", "scroll_id": scroll_id}))).await?;
        }
    }

    async fn search_post(&self, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = self.http.post(format!("{}/{path}", self.search_url));
        // a refresh with a body, even an empty one, is refused by Elasticsearch
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| format!("POST {path}"))?;
        let status = answer.status();
        let body: Value = answer.json().await.with_context(|| format!("POST {path}"))?;
        ensure!(status.is_success(), "POST {path} answers {status}: {}", body["error"]);
        ensure!(body["timed_out"] != json!(true), "POST {path} timed out");
        Ok(body)
    }

    /// The rows of a query, integers as numbers.
    pub(super) async fn clickhouse_rows(&self, query: &str) -> Result<Vec<Document>> {
        let answer = self
            .http
            .post(&self.clickhouse_url)
            .query(&[
                ("database", self.clickhouse_database.as_str()),
                ("default_format", "JSONEachRow"),
                ("output_format_json_quote_64bit_integers", "0"),
            ])
            .body(query.to_owned())
            .send()
            .await
            .context("asking ClickHouse")?;
        let status = answer.status();
        let text = answer.text().await.context("reading ClickHouse's answer")?;
        ensure!(status.is_success(), "ClickHouse answers {status}: {}", text.trim());
        text.lines()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).with_context(|| format!("row {line}")))
            .collect()
    }
}
