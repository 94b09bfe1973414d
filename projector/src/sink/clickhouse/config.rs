//! The client: one statement, its time-out, and what its failures mean.

use super::super::{SinkError, StoreUrls};
use bytes::Bytes;
use clickhouse::Client as Http;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The server's codes for content that it can't take: parse errors, types, ranges, nulls, constraints. Only these are ever an
/// event's fault; a code that isn't known here is waited for.
const CONTENT: [u32; 25] =
    [6, 25, 26, 27, 32, 33, 38, 41, 53, 69, 70, 72, 117, 130, 131, 158, 321, 349, 376, 407, 441, 467, 469, 675, 691];
/// Codes for a wrong set-up, which waiting doesn't mend: syntax, no such table, database, column or setting; access.
const SETUP: [u32; 12] = [10, 16, 36, 47, 50, 60, 62, 81, 115, 192, 497, 516];

#[derive(Clone)]
pub(super) struct Client {
    http: Http,
}

/// Why a statement failed.
pub(super) enum Failure {
    /// The rows that it carried are to blame; the server's words.
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
            // An insert is answered when its rows are there, an answer begins when it is whole.
            .with_setting("async_insert", "0")
            .with_setting("wait_end_of_query", "1")
            // History reaches over more months than a block may have by default.
            .with_setting("max_partitions_per_insert_block", "0")
            .with_setting("input_format_null_as_default", "0")
            .with_setting("input_format_skip_unknown_fields", "0")
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

fn classify(error: &(dyn std::error::Error + 'static)) -> Failure {
    let causes = std::iter::successors(error.source(), |e| e.source()).map(|e| format!(": {e}"));
    let reason: String = std::iter::once(error.to_string()).chain(causes).collect::<String>().replace('\n', " ");
    let said = reason.chars().take(500).collect();
    match code(&reason) {
        Some(code) if CONTENT.contains(&code) => Failure::Refused(said),
        Some(code) if SETUP.contains(&code) => Failure::Error(broken(said)),
        _ => Failure::Error(unavailable(said)),
    }
}

/// The code in `… Code: 27. DB::Exception: …`.
fn code(reason: &str) -> Option<u32> {
    let (_, rest) = reason.split_once("Code: ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Failure {
        classify(&clickhouse::error::Error::BadResponse(text.into()))
    }

    #[test]
    fn failures_are_sorted_by_whose_fault_they_are() {
        assert!(matches!(failure("Code: 27. DB::Exception: Cannot parse input"), Failure::Refused(_)));
        assert!(matches!(failure("Code: 60. DB::Exception: no table"), Failure::Error(SinkError::Broken { .. })));
        let full = "Code: 252. DB::Exception: Too many parts";
        assert!(matches!(failure(full), Failure::Error(SinkError::Unavailable { .. })));
        assert!(matches!(failure("connection reset"), Failure::Error(SinkError::Unavailable { .. })));
    }
}
