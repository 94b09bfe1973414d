//! What the query service asks the write database: rarely, briefly, and never for what a read model is there for.
//!
//! - The last event of an aggregate (`consistency=strong`), or one of its events by sequence (`min_seq`): the transaction of it turns
//!   a bare number into what a token says.
//! - The newest events of some types of aggregates (`consistency=strong` on a list or a report).
//! - A document that the read model doesn't have, by the statement that its query declares (`fallback`).
//!
//! The event store's table is described in docs/republish.md; an aggregate's stream there is called `<type>-<id>`. All calls go through one
//! circuit breaker, so that a slow write side is not flooded by readers.

use super::breaker::{Breaker, Refused};
use super::parameters::Arguments;
use super::template::SqlTemplate;
use crate::expr::{Kind, Object, json};
use crate::sink::access::pool;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, FromRow, PgPool, Row};
use std::str::FromStr;
use std::time::Duration;

/// At a time; more are turned away.
const CALLS_MAX: usize = 16;
const CONNECTIONS_MAX: u32 = 8;
const CALL_TIMEOUT: Duration = Duration::from_millis(800);
const STATEMENT_TIMEOUT_MS: &str = "700";
/// How many of the newest events are looked at for a list that must be strong.
const NEWEST_MAX: i64 = 2_000;

/// The write database.
#[derive(Clone)]
pub(crate) struct WriteSide {
    pool: PgPool,
    breaker: Breaker,
}

/// An event as the event store has it.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(crate) struct Written {
    pub(crate) aggregate_type: String,
    pub(crate) aggregate_id: String,
    pub(crate) sequence: i64,
    pub(crate) epoch: String,
    pub(crate) txid: i64,
}

const COLUMNS: &str = "select aggregate_type, aggregate_id, stream_position as sequence, epoch, txid from events";

impl WriteSide {
    /// Connects with the first question.
    pub(crate) fn open(url: &str) -> Result<Self, sqlx::Error> {
        let options = PgConnectOptions::from_str(url)?
            .application_name("projector-serve")
            .options([("TimeZone", "UTC"), ("default_transaction_read_only", "on")])
            .options([("statement_timeout", STATEMENT_TIMEOUT_MS)])
            .log_statements(tracing::log::LevelFilter::Trace);
        let pool = pool(CONNECTIONS_MAX, CALL_TIMEOUT);
        Ok(Self { pool: pool.connect_lazy_with(options), breaker: Breaker::new(CALLS_MAX, CALL_TIMEOUT) })
    }

    /// The aggregate's last event, if it has any.
    pub(crate) async fn last(&self, aggregate_type: &str, id: &str) -> Result<Option<Written>, Refused> {
        let sql = format!("{COLUMNS} where stream_id = $1 order by stream_position desc limit 1");
        let query = sqlx::query_as(AssertSqlSafe(sql)).bind(format!("{aggregate_type}-{id}"));
        self.ask(query.fetch_optional(&self.pool)).await
    }

    /// The aggregate's event of a sequence, if it is written.
    pub(crate) async fn at(&self, aggregate_type: &str, id: &str, sequence: i64) -> Result<Option<Written>, Refused> {
        let sql = format!("{COLUMNS} where stream_id = $1 and stream_position = $2");
        let query = sqlx::query_as(AssertSqlSafe(sql)).bind(format!("{aggregate_type}-{id}")).bind(sequence);
        self.ask(query.fetch_optional(&self.pool)).await
    }

    /// The last event of each aggregate of these types among the newest events.
    pub(crate) async fn newest(&self, aggregate_types: &[String]) -> Result<Vec<Written>, Refused> {
        let sql = format!(
            "with newest as ({COLUMNS} where aggregate_type = any($1) order by global_position desc limit {NEWEST_MAX})
             select distinct on (aggregate_type, aggregate_id) * from newest order by aggregate_type, aggregate_id, sequence desc"
        );
        self.ask(sqlx::query_as(AssertSqlSafe(sql)).bind(aggregate_types).fetch_all(&self.pool)).await
    }

    /// The first row of a declared statement, as a document of this type.
    pub(crate) async fn document(
        &self,
        sql: &SqlTemplate,
        arguments: &Arguments,
        document: &Kind,
    ) -> Result<Option<Object>, Refused> {
        let statement = format!("SELECT row_to_json(q)::text FROM (\n{}\n) AS q LIMIT 1", sql.numbered("", ""));
        let query =
            sql.texts(arguments).into_iter().fold(sqlx::query(AssertSqlSafe(statement)), sqlx::query::Query::bind);
        let row = self.ask(query.fetch_optional(&self.pool)).await?;
        let Some(row) = row else { return Ok(None) };
        let text: String = row.try_get(0).map_err(|e| Refused::Failed(e.to_string()))?;
        let fields = serde_json::from_str(&text).map_err(|e| Refused::Failed(e.to_string()))?;
        Ok(Some(json::object_from_json(fields, document)))
    }

    async fn ask<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Refused> {
        let result = self.breaker.call(async { work.await.map_err(|e| e.to_string()) }).await;
        if let Err(Refused::Failed(error)) = &result {
            tracing::warn!(%error, "the write database gave no answer");
        }
        result
    }
}
