//! The client: one statement, its time-out, and what its failures mean.

use super::super::{SinkError, StoreUrls};
use bytes::Bytes;
use clickhouse::Client as Http;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);

/// ClickHouse's codes for what passes: memory, disk, too many parts or queries, time-outs, a read-only table, a shutdown.
const PASSING: [&str; 9] = [
    "(MEMORY_LIMIT",
    "NOT_ENOUGH_SPACE",
    "TOO_MANY_",
    "TIMEOUT_EXCEEDED",
    "READONLY",
    "NETWORK_ERROR",
    "SOCKET_TIMEOUT",
    "ABORTED",
    "CANNOT_WRITE",
];

#[derive(Clone)]
pub(super) struct Client {
    http: Http,
}

/// Why a statement failed.
pub(super) enum Failure {
    /// The server refused what was sent; its words.
    Refused(String),
    /// All else.
    Error(SinkError),
}

impl From<Failure> for SinkError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(reason) => broken(reason),
            Failure::Error(error) => error,
        }
    }
}

impl Client {
    pub(super) fn new(urls: &StoreUrls) -> Self {
        let http = Http::default()
            .with_url(&urls.clickhouse_url)
            .with_database(&urls.clickhouse_database)
            .with_setting("async_insert", "0")
            .with_setting("date_time_input_format", "best_effort")
            .with_setting("output_format_json_quote_64bit_integers", "0");
        Self { http }
    }

    pub(super) async fn execute(&self, sql: &str) -> Result<(), Failure> {
        let done = tokio::time::timeout(TIMEOUT, self.http.query_raw(sql).execute()).await;
        done.map_err(|_| timed_out())?.map_err(|e| classify(&e))
    }

    /// A statement's answer, a JSON object a line.
    pub(super) async fn rows(&self, sql: &str) -> Result<Vec<serde_json::Value>, Failure> {
        let read = async { self.http.query_raw(sql).fetch_bytes("JSONEachRow")?.collect().await };
        let bytes = tokio::time::timeout(TIMEOUT, read).await.map_err(|_| timed_out())?.map_err(|e| classify(&e))?;
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).map_err(|e| Failure::Error(broken(e.to_string())))).collect()
    }

    /// Inserts lines of JSON objects into a table.
    pub(super) async fn insert(&self, table: &str, lines: Bytes) -> Result<(), Failure> {
        let sql = format!("INSERT INTO {table} FORMAT JSONEachRow");
        let mut insert = self.http.insert_formatted_with(sql).with_timeouts(Some(TIMEOUT), Some(TIMEOUT));
        insert.send(lines).await.map_err(|e| classify(&e))?;
        insert.end().await.map_err(|e| classify(&e))
    }
}

fn classify(error: &clickhouse::error::Error) -> Failure {
    let reason = error.to_string();
    match error {
        clickhouse::error::Error::BadResponse(_) if !PASSING.iter().any(|code| reason.contains(code)) => {
            Failure::Refused(reason)
        }
        _ => Failure::Error(unavailable(reason)),
    }
}

fn timed_out() -> Failure {
    Failure::Error(unavailable(format!("no answer within {} s", TIMEOUT.as_secs())))
}

fn unavailable(reason: String) -> SinkError {
    SinkError::Unavailable { store: "clickhouse", reason }
}

pub(super) fn broken(reason: String) -> SinkError {
    SinkError::Broken { store: "clickhouse", reason }
}

/// An identifier in backquotes.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A text in quotes.
pub(super) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}
