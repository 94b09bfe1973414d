//! Reports in ClickHouse over HTTP, with parameters that the server binds.

use super::super::parameters::Arguments;
use super::super::template::SqlTemplate;
use super::{ReadError, call};
use crate::control::Generation;
use crate::expr::{Kind, Value, json};
use crate::projection::ClickhouseStore;
use crate::sink::StoreUrls;
use crate::sink::access::Access;
use crate::sink::clickhouse::DayTables;
use serde::Deserialize;
use serde_json::Value as Json;

#[derive(Clone)]
pub(crate) struct ClickhouseReader {
    client: reqwest::Client,
    access: Access,
    database: String,
    table: String,
    days: Option<DayTables>,
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
    pub(super) fn open(
        config: &ClickhouseStore,
        generation: &Generation,
        urls: &StoreUrls,
        client: &reqwest::Client,
    ) -> Result<Self, ReadError> {
        let access = urls.clickhouse().map_err(ReadError::Unavailable)?;
        let database = urls.clickhouse_database.clone();
        let table = format!("`{database}`.`{}_g{}`", generation.read_model, generation.generation);
        let days = DayTables::new(config, &database, &generation.read_model, i64::from(generation.generation));
        Ok(Self { client: client.clone(), access, database, table, days })
    }

    /// The rows of a statement.
    pub(crate) async fn query(&self, sql: &SqlTemplate, arguments: &Arguments) -> Result<Vec<Value>, ReadError> {
        // The dirty days first: what is written from here on may be missed, what was written before can't be.
        let rollup = match &self.days {
            Some(days) if sql.reads_rollup() => {
                let dirty = self.rows(&[], days.dirty_days()).await?;
                let dirty: Vec<_> = dirty.iter().filter_map(|row| row["day"].as_str().map(str::to_owned)).collect();
                days.rows(&dirty)
            }
            _ => String::new(),
        };
        let rows = self.rows(&sql.values(arguments), sql.statement(&self.table, &rollup, sql.sort(arguments))).await?;
        Ok(rows.into_iter().map(|row| json::from_json(row, &Kind::any())).collect())
    }

    async fn rows(&self, parameters: &[(String, String)], statement: String) -> Result<Vec<Json>, ReadError> {
        let request = self.access.authorized(self.client.post(self.access.base()));
        let request = request.query(&SETTINGS).query(&[("database", &self.database)]).query(parameters);
        let answer: Answer = call(request.body(statement)).await?;
        Ok(answer.data)
    }
}
