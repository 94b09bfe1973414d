//! Reports in ClickHouse over HTTP, with parameters that the server binds.

use super::super::parameters::Arguments;
use super::super::template::SqlTemplate;
use super::{ReadError, call};
use crate::control::Generation;
use crate::expr::{Kind, Value, json};
use crate::sink::StoreUrls;
use serde::Deserialize;
use serde_json::Value as Json;

#[derive(Clone)]
pub(crate) struct ClickhouseReader {
    client: reqwest::Client,
    url: String,
    database: String,
    table: String,
}

/// Settings of every statement. The whole answer is made before its status is sent, so that an error in the middle can't
/// pass for the end; numbers stay numbers; nothing is written; time and size are bounded.
const SETTINGS: [(&str, &str); 7] = [
    ("default_format", "JSON"),
    ("wait_end_of_query", "1"),
    ("output_format_json_quote_64bit_integers", "0"),
    ("readonly", "2"),
    ("max_execution_time", "7"),
    ("max_result_rows", "100000"),
    ("result_overflow_mode", "throw"),
];

#[derive(Deserialize)]
struct Answer {
    data: Vec<Json>,
}

impl ClickhouseReader {
    pub(super) fn open(generation: &Generation, urls: &StoreUrls, client: &reqwest::Client) -> Self {
        let database = urls.clickhouse_database.clone();
        let table = format!("`{database}`.`{}_g{}`", generation.read_model, generation.generation);
        Self { client: client.clone(), url: urls.clickhouse_url.clone(), database, table }
    }

    /// The rows of a statement.
    pub(crate) async fn query(&self, sql: &SqlTemplate, arguments: &Arguments) -> Result<Vec<Value>, ReadError> {
        let request = self.client.post(&self.url).query(&SETTINGS).query(&[("database", &self.database)]);
        let request = request.query(&sql.values(arguments)).body(sql.statement(&self.table));
        let answer: Answer = call(request).await?;
        Ok(answer.data.into_iter().map(|row| json::from_json(row, &Kind::any())).collect())
    }
}
