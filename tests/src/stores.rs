//! The read stores, looked at and tampered with directly.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use redis::AsyncCommands;
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::var;

/// The index behind the alias is found by asking; writes go through the alias too, since it has one index.
pub const SEARCH_ALIAS: &str = "customer_order_history";
/// The table of the first generation, which the view `daily_revenue` reads.
pub const REVENUE_TABLE: &str = "daily_revenue_g1";

/// Connections to all three.
#[derive(Clone)]
pub struct Stores {
    redis: redis::aio::MultiplexedConnection,
    postgres: PgPool,
    http: reqwest::Client,
    search: String,
    clickhouse: String,
    database: String,
}

/// A document of the search engine with what is needed to put it back as it was.
#[derive(Debug, Clone)]
pub struct SearchDocument {
    /// Its fields.
    pub source: Value,
    /// The external version, which is the order's sequence.
    pub version: u64,
}

impl Stores {
    /// Connects by the environment.
    ///
    /// # Errors
    /// When a variable is missing or Redis doesn't answer.
    pub async fn connect() -> Result<Self> {
        let redis = redis::Client::open(var("REDIS_URL")?)?.get_multiplexed_async_connection().await?;
        Ok(Self {
            redis,
            postgres: PgPoolOptions::new().max_connections(1).connect_lazy(&var("READ_DATABASE_URL")?)?,
            http: reqwest::Client::new(),
            search: var("ELASTICSEARCH_URL")?,
            clickhouse: var("CLICKHOUSE_URL")?,
            database: var("CLICKHOUSE_DATABASE")?,
        })
    }

    /// All fields of `order:<id>`, hidden ones too; empty when there is none.
    ///
    /// # Errors
    /// When Redis doesn't answer.
    pub async fn hash(&self, order_id: &str) -> Result<BTreeMap<String, String>> {
        Ok(self.redis.clone().hgetall(format!("order:{order_id}")).await?)
    }

    /// Sets fields of `order:<id>`, behind the projector's back.
    ///
    /// # Errors
    /// When Redis doesn't answer.
    pub async fn set_hash(&self, order_id: &str, fields: &BTreeMap<String, String>) -> Result<()> {
        let pairs: Vec<_> = fields.iter().collect();
        let () = self.redis.clone().hset_multiple(format!("order:{order_id}"), &pairs).await?;
        Ok(())
    }

    /// Deletes the order's rows in `order_list_view` and `order_details`.
    ///
    /// # Errors
    /// When Postgres doesn't answer, or there is no such row.
    pub async fn delete_rows(&self, order_id: &str) -> Result<()> {
        for delete in [
            "delete from read_models.order_list_view_g1 where _key = $1",
            "delete from read_models.order_details_g1 where _key = $1",
        ] {
            let deleted = sqlx::query(delete).bind(order_id).execute(&self.postgres).await?.rows_affected();
            ensure!(deleted == 1, "{delete}: {deleted} rows of {order_id}");
        }
        Ok(())
    }

    /// Deletes `order:<id>`.
    ///
    /// # Errors
    /// When Redis doesn't answer.
    pub async fn delete_hash(&self, order_id: &str) -> Result<()> {
        let () = self.redis.clone().del(format!("order:{order_id}")).await?;
        Ok(())
    }

    /// Sets a column of an order's row in `order_details`, behind the projector's back; gives what it was.
    ///
    /// # Errors
    /// When Postgres doesn't answer, or there is no such row.
    pub async fn set_email(&self, order_id: &str, email: &str) -> Result<String> {
        let table = "read_models.order_details_g1";
        let select = format!("select customer_email from {table} where _key = $1");
        let was = sqlx::query_scalar(sqlx::AssertSqlSafe(select)).bind(order_id).fetch_one(&self.postgres).await?;
        let update = format!("update {table} set customer_email = $2 where _key = $1");
        sqlx::query(sqlx::AssertSqlSafe(update)).bind(order_id).bind(email).execute(&self.postgres).await?;
        Ok(was)
    }

    /// The order's document in [`SEARCH_ALIAS`], by id, hence without waiting for a refresh.
    ///
    /// # Errors
    /// When the engine doesn't answer.
    pub async fn document(&self, order_id: &str) -> Result<Option<SearchDocument>> {
        self.document_in(SEARCH_ALIAS, order_id).await
    }

    /// A document of any alias, by id.
    ///
    /// # Errors
    /// When the engine doesn't answer.
    pub async fn document_in(&self, alias: &str, id: &str) -> Result<Option<SearchDocument>> {
        let answer = self.http.get(self.document_url(alias, id)).send().await?;
        let body: Value = answer.json().await?;
        if body["found"] != json!(true) {
            return Ok(None);
        }
        Ok(Some(SearchDocument {
            source: body["_source"].clone(),
            version: body["_version"].as_u64().context("no version")?,
        }))
    }

    /// Puts a document at its version, behind the projector's back.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn put_document(&self, order_id: &str, document: &SearchDocument) -> Result<()> {
        self.put_document_in(SEARCH_ALIAS, order_id, document).await
    }

    /// [`Self::put_document`] in any alias.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn put_document_in(&self, alias: &str, id: &str, document: &SearchDocument) -> Result<()> {
        let url = format!("{}?version={}&version_type=external_gte", self.document_url(alias, id), document.version);
        let answer = self.http.put(url).json(&document.source).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
        Ok(())
    }

    /// Deletes a document, keeping its version for [`Self::put_document`].
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn delete_document(&self, order_id: &str, version: u64) -> Result<()> {
        let url = format!("{}?version={version}&version_type=external_gte", self.document_url(SEARCH_ALIAS, order_id));
        let answer = self.http.delete(url).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
        Ok(())
    }

    fn document_url(&self, alias: &str, id: &str) -> String {
        format!("{}/{alias}/_doc/{id}", self.search)
    }

    /// The order's revenue rows as the view shows them: (entry, amount in cents, orders), by entry.
    ///
    /// # Errors
    /// When ClickHouse refuses.
    pub async fn revenue(&self, order_id: &str) -> Result<Vec<(String, i64, i64)>> {
        let query = format!(
            "select entry, amount_cents, orders from daily_revenue where order_id = '{order_id}' order by entry, amount_cents format JSONCompactEachRow"
        );
        let text = self.clickhouse(&query, Vec::new()).await?;
        String::from_utf8(text)?
            .lines()
            .map(|line| {
                let row: Value = serde_json::from_str(line)?;
                let number = |value: &Value| value.as_i64().context("not a number");
                Ok((row[0].as_str().context("no entry")?.to_owned(), number(&row[1])?, number(&row[2])?))
            })
            .collect()
    }

    /// Runs a statement, with the bytes that an `INSERT … FORMAT …` takes.
    ///
    /// # Errors
    /// When ClickHouse refuses.
    pub async fn clickhouse(&self, statement: &str, data: Vec<u8>) -> Result<Vec<u8>> {
        let mut parameters = vec![
            ("database", self.database.as_str()),
            ("output_format_json_quote_64bit_integers", "0"),
            ("mutations_sync", "2"),
        ];
        // an empty body isn't taken, so the statement is the body unless there is data
        let body = if data.is_empty() {
            statement.as_bytes().to_vec()
        } else {
            parameters.push(("query", statement));
            data
        };
        let answer = self.http.post(&self.clickhouse).query(&parameters).body(body).send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        ensure!(status.is_success(), "{statement}: {}", String::from_utf8_lossy(&body));
        Ok(body.to_vec())
    }
}
