//! Rows in Postgres, by statements whose parameters the server binds.

use super::super::parameters::Arguments;
use super::super::template::SqlTemplate;
use super::{CONNECT_TIMEOUT, ReadError};
use crate::control::Generation;
use crate::expr::{Kind, Value, json};
use crate::projection::PostgresStore;
use crate::sink::StoreUrls;
use crate::sink::access::{CREDENTIALS_REMEDY, pool};
use crate::sink::postgres::{Fault, REFUSED, fault, options, visible};
use sqlx::{AssertSqlSafe, ConnectOptions, PgPool, Row};
use std::time::Duration;

/// Queries of one read model at once; more wait for a connection.
const CONNECTIONS_MAX: u32 = 16;
/// The server gives a statement up after this time, and we a silent server a little later.
const STATEMENT_TIMEOUT_MS: u64 = 7_000;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// An answer of more rows is refused.
const ROWS_MAX: usize = 100_000;

#[derive(Clone)]
pub(crate) struct PostgresReader {
    pool: PgPool,
    table: String,
}

impl PostgresReader {
    pub(super) fn open(config: &PostgresStore, generation: &Generation, urls: &StoreUrls) -> Result<Self, ReadError> {
        let options = options(urls)
            .map_err(ReadError::Unavailable)?
            .application_name("projector-serve")
            .options([("TimeZone", "UTC"), ("extra_float_digits", "1"), ("default_transaction_read_only", "on")])
            .options([("statement_timeout", STATEMENT_TIMEOUT_MS)])
            .log_statements(tracing::log::LevelFilter::Trace);
        let pool = pool(CONNECTIONS_MAX, 2 * CONNECT_TIMEOUT);
        let table = visible(config, &generation.read_model, generation.generation);
        Ok(Self { pool: pool.connect_lazy_with(options), table })
    }

    /// The rows of a statement.
    pub(crate) async fn query(&self, sql: &SqlTemplate, arguments: &Arguments) -> Result<Vec<Value>, ReadError> {
        // As JSON, so that each type of the server has one reading, the same as from the other stores.
        let statement = sql.numbered(&self.table, sql.sort(arguments));
        let statement = statement.trim_end().trim_end_matches(';');
        let statement = format!("SELECT row_to_json(q)::text FROM (\n{statement}\n) AS q LIMIT {}", ROWS_MAX + 1);
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for text in sql.texts(arguments) {
            query = query.bind(text);
        }
        let mut connection = self.pool.acquire().await.map_err(|e| failed(&e))?;
        let rows = match tokio::time::timeout(ANSWER_TIMEOUT, query.fetch_all(&mut *connection)).await {
            Ok(rows) => rows.map_err(|e| failed(&e))?,
            Err(_) => {
                drop(connection.detach());
                return Err(ReadError::Unavailable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())));
            }
        };
        if rows.len() > ROWS_MAX {
            return Err(ReadError::Refused(format!("more than {ROWS_MAX} rows: let the statement limit them")));
        }
        let unexpected = |e: &dyn std::error::Error| ReadError::Unavailable(format!("unexpected answer: {e}"));
        let read = |row: &sqlx::postgres::PgRow| {
            let text: String = row.try_get(0).map_err(|e| unexpected(&e))?;
            let row = serde_json::from_str(&text).map_err(|e| unexpected(&e))?;
            Ok(json::from_json(row, &Kind::any()))
        };
        rows.iter().map(read).collect()
    }
}

fn failed(error: &sqlx::Error) -> ReadError {
    match error.as_database_error() {
        Some(refusal) => {
            let said = refusal.message().chars().take(500).collect::<String>();
            let code = refusal.code().unwrap_or_default();
            match fault(&code) {
                Fault::Servers => ReadError::Unavailable(said),
                // Of who connects, not of what the statement says.
                _ if code.starts_with(REFUSED) => {
                    ReadError::Unavailable(format!("{code}: {said}; {CREDENTIALS_REMEDY}"))
                }
                _ => ReadError::Refused(said),
            }
        }
        None => ReadError::unavailable(error),
    }
}

#[cfg(test)]
#[path = "postgres_tests.rs"]
mod tests;
