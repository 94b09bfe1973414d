//! Statements over HTTP: own time-outs, errors sorted by whose fault they are.

use super::super::SinkError;
use clickhouse::error::Error;
use serde::de::DeserializeOwned;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Codes of the server for content that it can't take: parse errors, types, ranges, constraints.
const CONTENT: [u32; 25] =
    [6, 25, 26, 27, 32, 33, 38, 41, 53, 69, 70, 72, 117, 130, 131, 158, 321, 349, 376, 407, 441, 467, 469, 675, 691];
/// Codes for a wrong set-up: no such table, database, column or setting; access.
const SETUP: [u32; 10] = [10, 16, 47, 60, 62, 81, 115, 192, 497, 516];

/// Why a statement failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The rows it carried are to blame.
    Content(String),
    /// Everything else.
    Call(SinkError),
}

#[derive(Clone)]
pub(super) struct Client {
    inner: clickhouse::Client,
}

pub(super) fn broken(reason: impl Into<String>) -> SinkError {
    SinkError::Broken { store: "clickhouse", reason: reason.into() }
}

fn unavailable(reason: impl Into<String>) -> SinkError {
    SinkError::Unavailable { store: "clickhouse", reason: reason.into() }
}

impl Client {
    pub(super) fn open(url: &str) -> Self {
        let settings = [
            // An insert is answered when its rows are there.
            ("async_insert", "0"),
            ("wait_end_of_query", "1"),
            // History may reach over more months than the default allows a block.
            ("max_partitions_per_insert_block", "0"),
            ("date_time_input_format", "best_effort"),
            ("input_format_null_as_default", "0"),
            ("input_format_skip_unknown_fields", "0"),
            ("input_format_json_read_numbers_as_strings", "0"),
            ("output_format_json_quote_64bit_integers", "0"),
        ];
        let inner =
            settings.into_iter().fold(clickhouse::Client::default().with_url(url), |c, (k, v)| c.with_setting(k, v));
        Self { inner }
    }

    /// A statement without an answer.
    pub(super) async fn execute(&self, sql: &str) -> Result<(), SinkError> {
        limited(self.inner.query_raw(sql).execute()).await.map_err(Failure::of_call)
    }

    /// The rows of a query whose parameters are bound by the server.
    pub(super) async fn rows<T: DeserializeOwned>(
        &self,
        sql: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Vec<T>, SinkError> {
        let query = parameters.iter().fold(self.inner.query_raw(sql), |query, (name, value)| query.param(name, *value));
        let bytes =
            limited(async { query.fetch_bytes("JSONEachRow")?.collect().await }).await.map_err(Failure::of_call)?;
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let row = |line| serde_json::from_slice(line).map_err(|e| unavailable(format!("unexpected answer: {e}")));
        lines.map(row).collect()
    }

    /// Inserts lines of JSON.
    pub(super) async fn insert(&self, table: &str, columns: &str, lines: String) -> Result<(), Failure> {
        let sql = format!("INSERT INTO {table} ({columns}) FORMAT JSONEachRow");
        limited(async {
            let mut insert = self.inner.insert_formatted_with(sql);
            insert.send(lines.into()).await?;
            insert.end().await
        })
        .await
    }
}

async fn limited<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(result) => result.map_err(|e| Failure::new(&e)),
        Err(_) => Err(Failure::Call(unavailable(format!("no answer within {} s", TIMEOUT.as_secs())))),
    }
}

impl Failure {
    fn new(error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(error.source(), |e| e.source()).map(|e| format!(": {e}"));
        let text: String = std::iter::once(error.to_string()).chain(causes).collect();
        let text = text.replace('\n', " ");
        let short = text.chars().take(500).collect::<String>();
        match code(&text) {
            Some(code) if CONTENT.contains(&code) => Self::Content(short),
            Some(code) if SETUP.contains(&code) => Self::Call(broken(short)),
            _ => Self::Call(unavailable(short)),
        }
    }

    /// A failure of a statement without rows.
    pub(super) fn of_call(self) -> SinkError {
        match self {
            Self::Content(reason) => broken(reason),
            Self::Call(error) => error,
        }
    }
}

/// The code in `… Code: 27. DB::Exception: …`.
fn code(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("Code: ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Failure {
        Failure::new(&Error::BadResponse(text.into()))
    }

    #[test]
    fn errors_are_sorted_by_whose_fault_they_are() {
        let content = "Code: 27. DB::Exception: Cannot parse input: expected '\"' before: 'x'";
        assert!(matches!(failure(content), Failure::Content(_)));
        assert!(matches!(failure("Code: 60. DB::Exception: no table"), Failure::Call(SinkError::Broken { .. })));
        assert!(matches!(
            failure("Code: 252. DB::Exception: Too many parts"),
            Failure::Call(SinkError::Unavailable { .. })
        ));
        assert!(matches!(failure("connection reset"), Failure::Call(SinkError::Unavailable { .. })));
    }
}
