//! The sink.

use super::super::{Outcome, Page, Partition, Place, Sink, SinkError, StoreUrls, Stored, Write, reserved_name};
use super::columns::{check, columns, is_array, is_nested, takes_null};
use super::config::{Client, Failure, broken, quoted, text};
use super::rollup::{DayTables, Days, Timing};
use crate::apply::Progress;
use crate::expr::json::{self, AsJson};
use crate::expr::{Object, Value};
use crate::projection::ClickhouseStore;
use async_trait::async_trait;
use bytes::Bytes;
use chrono::NaiveDate;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Value as Json, json};
use std::time::Duration;

pub(super) const PROGRESS: &str = "projector_progress";
/// Each write makes a part.
const PACE: Duration = Duration::from_millis(50);
/// How many parts a merge takes at least; and it takes all of them, not the large one with a small one alone.
const GATHER_PARTS: [(&str, u32); 2] =
    [("min_parts_to_merge_at_once", 16), ("merge_selector_enable_heuristic_to_remove_small_parts_at_right", 0)];

/// A generation's place in ClickHouse.
pub struct ClickhouseSink {
    pub(super) client: Client,
    pub(super) generation: String,
    pub(super) database: String,
    pub(super) view: String,
    pub(super) table: String,
    pub(super) day: String,
    pub(super) columns: Vec<(String, String)>,
    /// Where the projection asks for a rollup.
    days: Option<Days>,
}

/// A row on its way.
struct Line {
    /// Its place in the batch.
    at: usize,
    /// Its JSON, and the end of the line.
    json: Vec<u8>,
    day: Option<NaiveDate>,
}

/// A row as it writes itself in JSON: a value for each column.
struct Row<'a> {
    columns: &'a [(String, String)],
    day: &'a str,
    fields: &'a Object,
    event: &'a uuid::Uuid,
    row: u16,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut line = to.serialize_map(Some(self.columns.len() + 2))?;
        for (name, sql_type) in self.columns {
            let value = self.fields.get(name.as_str()).unwrap_or(&Value::Null);
            match value {
                value if json::is_null(value) && is_array(sql_type) => line.serialize_entry(name, &[(); 0])?,
                // What has no column type of its own is kept as text.
                Value::Object(_) | Value::Array(_) if !is_nested(sql_type) => {
                    line.serialize_entry(name, &json::to_text(value))?;
                }
                value => match json::as_text(value).filter(|_| name == self.day) {
                    Some(text) => line.serialize_entry(name, text.get(..10).unwrap_or(&text))?,
                    None => line.serialize_entry(name, &AsJson(value))?,
                },
            }
        }
        line.serialize_entry("_event_id", self.event)?;
        line.serialize_entry("_row", &self.row)?;
        line.end()
    }
}

impl ClickhouseSink {
    /// Opens it. Connects with the first call.
    ///
    /// # Errors
    /// When the address can't be used.
    pub fn open(config: &ClickhouseStore, place: Place, urls: &StoreUrls) -> Result<Self, SinkError> {
        if let Some(wrong) = check(config, &place.document).into_iter().next() {
            return Err(broken(wrong));
        }
        let tables = DayTables::new(config, &urls.clickhouse_database, &place.read_model, i64::from(place.generation));
        Ok(Self {
            days: tables.map(|tables| Days::new(tables, &place.document, config)),
            client: Client::new(urls)?,
            generation: place.id(),
            database: urls.clickhouse_database.clone(),
            table: format!("{}_g{}", place.read_model, place.generation),
            day: config.day.clone(),
            columns: columns(&place.document, config),
            view: place.read_model,
        })
    }

    /// With other times for the days' marks than the usual ones, for tests that can't wait for minutes.
    #[must_use]
    pub fn with_timing(self, timing: Timing) -> Self {
        Self { days: self.days.map(|days| days.with_timing(timing)), ..self }
    }

    /// What a query reads now in place of `{rollup}`, in brackets; none where the projection asks for no rollup.
    ///
    /// # Errors
    /// When the server doesn't say which days are dirty.
    pub async fn rollup_rows(&self) -> Result<Option<String>, SinkError> {
        match &self.days {
            Some(days) => days.rows(&self.client).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn qualified(&self, name: &str) -> String {
        format!("{}.{}", quoted(&self.database), quoted(name))
    }

    fn fenced(&self, name: &str, owner: String) -> SinkError {
        let owner = if owner.is_empty() { "somebody else".to_owned() } else { owner };
        SinkError::Fenced {
            place: format!("table {}", self.qualified(name)),
            owner,
            generation: self.generation.clone(),
        }
    }

    /// What the table says whose it is, if it is there.
    pub(super) async fn owner(&self) -> Result<Option<String>, SinkError> {
        let sql = format!(
            "SELECT comment FROM system.tables WHERE database = {} AND name = {}",
            text(&self.database),
            text(&self.table)
        );
        let rows = self.client.rows(&sql).await?;
        Ok(rows.first().and_then(|row| row["comment"].as_str().map(str::to_owned)))
    }

    /// That the table has all columns of this generation.
    async fn check_columns(&self) -> Result<(), SinkError> {
        let sql = format!(
            "SELECT name FROM system.columns WHERE database = {} AND table = {}",
            text(&self.database),
            text(&self.table)
        );
        let there = self.client.rows(&sql).await?;
        match self.columns.iter().find(|(name, _)| there.iter().all(|column| column["name"] != **name)) {
            Some((missing, _)) => Err(broken(format!(
                "table {} has no column `{missing}`: the projection was changed within its generation; drop the table and \
                 start again to fill it anew",
                self.qualified(&self.table)
            ))),
            None => Ok(()),
        }
    }

    /// A write makes a part of a few rows, and by its defaults the server merges each with all that is there, as long as that
    /// is small: thousands of times as much as was written. So parts gather first. Servers differ in what they can be told.
    async fn gather_parts(&self, table: &str) -> Result<(), SinkError> {
        let names: Vec<_> = GATHER_PARTS.iter().map(|(name, _)| text(name)).collect();
        let sql = format!("SELECT name FROM system.merge_tree_settings WHERE name IN ({})", names.join(", "));
        let known = self.client.rows(&sql).await?;
        let settings: Vec<_> = GATHER_PARTS
            .iter()
            .filter(|(name, _)| known.iter().any(|row| row["name"] == *name))
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        if settings.is_empty() {
            return Ok(());
        }
        let sql = format!("ALTER TABLE {} MODIFY SETTING {}", self.qualified(table), settings.join(", "));
        Ok(self.client.execute(&sql).await?)
    }

    /// Progress of an earlier release has no fence.
    async fn add_fence(&self) -> Result<(), SinkError> {
        let sql = format!(
            "SELECT name FROM system.columns WHERE database = {} AND table = {} AND name = 'fence'",
            text(&self.database),
            text(PROGRESS)
        );
        if !self.client.rows(&sql).await?.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "ALTER TABLE {} ADD COLUMN fence Int64, MODIFY ORDER BY (generation, topic, partition, fence)",
            self.qualified(PROGRESS)
        );
        Ok(self.client.execute(&sql).await?)
    }

    /// A row as a line of JSON, or why it can't be one.
    fn line(&self, at: usize, write: &Write) -> Result<Line, String> {
        let wrong_key = || format!("`{}` is not a row's id, <event id>/<number>", write.key);
        let (event, row) = write.key.split_once('/').ok_or_else(wrong_key)?;
        let event: uuid::Uuid = event.parse().map_err(|_| wrong_key())?;
        let row: u16 = row.parse().map_err(|_| wrong_key())?;
        let fields = write.fields.as_deref().ok_or("facts are never deleted")?;
        if write.state.is_some() || write.expires.is_some() || !write.parents.is_empty() {
            return Err("facts have neither state nor expiry nor parents".to_owned());
        }
        if let Some(reason) = reserved_name(fields) {
            return Err(reason);
        }
        let known = |name: &str| self.columns.iter().any(|(column, _)| column == name);
        if let Some(name) = fields.keys().find(|name| !known(name)) {
            return Err(format!("field `{name}` has no column"));
        }
        let missing = |(name, sql_type): &&(String, String)| {
            fields.get(name.as_str()).is_none_or(json::is_null) && !takes_null(sql_type) && !is_array(sql_type)
        };
        // The server would take a number that is missing, or null, for 0.
        if let Some((name, sql_type)) = self.columns.iter().find(missing) {
            return Err(format!("`{name}` is missing, and its column, {sql_type}, can't be null"));
        }
        let day = fields.get(self.day.as_str()).and_then(json::as_text).and_then(|text| {
            let text = text.get(..10)?;
            NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|day| day.to_string() == text)
        });
        // The server takes a day in more ways than one; one that isn't marked as it is stored would never be added up.
        if self.days.is_some() && day.is_none() {
            return Err(format!("`{}` is not a day, YYYY-MM-DD", self.day));
        }
        let row = Row { columns: &self.columns, day: &self.day, fields, event: &event, row };
        let mut json = serde_json::to_vec(&row).map_err(|e| e.to_string())?;
        json.push(b'\n');
        Ok(Line { at, json, day })
    }

    /// The statement that inserts these rows, once their days are marked.
    async fn head(&self, rows: &[Line]) -> Result<String, SinkError> {
        match &self.days {
            Some(days) => days.mark(&self.client, &rows.iter().filter_map(|row| row.day).collect()).await,
            None => Ok(format!("INSERT INTO {}", self.qualified(&self.table))),
        }
    }

    /// Inserts rows; when the server refuses them, halves them until the one that it refuses stands alone.
    async fn insert(&self, rows: Vec<Line>, outcomes: &mut [Outcome]) -> Result<(), SinkError> {
        let mut pending = vec![rows];
        while let Some(mut rows) = pending.pop() {
            let lines = rows.iter().map(|row| row.json.as_slice()).collect::<Vec<_>>().concat();
            match self.client.insert(&self.head(&rows).await?, Bytes::from(lines)).await {
                Ok(()) => rows.iter().for_each(|row| outcomes[row.at] = Outcome::Written),
                Err(Failure::Refused(reason)) => match rows.as_slice() {
                    [row] => outcomes[row.at] = Outcome::Rejected(reason),
                    _ => {
                        let half = rows.split_off(rows.len() / 2);
                        pending.push(half);
                        pending.push(rows);
                    }
                },
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for ClickhouseSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        let columns: String = self.columns.iter().map(|(name, kind)| format!("{} {kind}, ", quoted(name))).collect();
        let day = quoted(&self.day);
        let table = format!(
            "CREATE TABLE IF NOT EXISTS {} ({columns}_event_id UUID, _row UInt16) ENGINE = ReplacingMergeTree
             PARTITION BY toYYYYMM({day}) ORDER BY ({day}, _event_id, _row) COMMENT {}",
            self.qualified(&self.table),
            text(&self.generation)
        );
        let progress = format!(
            "CREATE TABLE IF NOT EXISTS {} (generation String, topic String, partition Int32, progress String, saved UInt64, fence Int64)
             ENGINE = ReplacingMergeTree(saved) ORDER BY (generation, topic, partition, fence)",
            self.qualified(PROGRESS)
        );
        self.client.execute(&format!("CREATE DATABASE IF NOT EXISTS {}", quoted(&self.database))).await?;
        self.client.execute(&table).await?;
        self.client.execute(&progress).await?;
        self.add_fence().await?;
        self.gather_parts(PROGRESS).await?;
        if let Some(days) = &self.days {
            days.prepare(&self.client, &self.generation).await?;
        }
        let owner = self.owner().await?.unwrap_or_default();
        if owner != self.generation {
            return Err(self.fenced(&self.table, owner));
        }
        self.check_columns().await?;
        self.gather_parts(&self.table).await
    }

    async fn go_live(&self) -> Result<(), SinkError> {
        let sql = format!(
            "SELECT engine FROM system.tables WHERE database = {} AND name = {}",
            text(&self.database),
            text(&self.view)
        );
        // Replacing a view would also replace a table of that name.
        if let Some(other) = self.client.rows(&sql).await?.iter().find(|row| row["engine"] != "View") {
            return Err(self.fenced(&self.view, format!("somebody else ({})", other["engine"])));
        }
        let columns: Vec<_> = self.columns.iter().map(|(name, _)| quoted(name)).collect();
        let (view, table) = (self.qualified(&self.view), self.qualified(&self.table));
        let sql = format!("CREATE OR REPLACE VIEW {view} AS SELECT {} FROM {table} FINAL", columns.join(", "));
        Ok(self.client.execute(&sql).await?)
    }

    async fn load(&self, _keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        Err(broken("facts are never loaded".to_owned()))
    }

    async fn write(&self, batch: &[Write]) -> Result<Vec<Outcome>, SinkError> {
        let mut outcomes = vec![Outcome::Written; batch.len()];
        let mut rows = Vec::with_capacity(batch.len());
        for (i, write) in batch.iter().enumerate() {
            match self.line(i, write) {
                Ok(line) => rows.push(line),
                Err(reason) => outcomes[i] = Outcome::Rejected(reason),
            }
        }
        if !rows.is_empty() {
            self.insert(rows, &mut outcomes).await?;
        }
        Ok(outcomes)
    }

    fn pace(&self) -> Duration {
        PACE
    }

    async fn load_progress(&self, partitions: &[Partition]) -> Result<Vec<Option<Progress>>, SinkError> {
        let sql = format!(
            "SELECT topic, partition, argMax(progress, (fence, saved)) AS progress FROM {} WHERE generation = {}
             GROUP BY topic, partition",
            self.qualified(PROGRESS),
            text(&self.generation)
        );
        let rows = self.client.rows(&sql).await?;
        let find = |partition: &Partition| {
            let mine = |row: &&Json| row["topic"] == *partition.topic && row["partition"] == partition.number;
            let found = rows.iter().find(mine).and_then(|row| row["progress"].as_str());
            found
                .map(|text| {
                    serde_json::from_str(text).map_err(|e| broken(format!("{partition:?} isn't progress: {e}")))
                })
                .transpose()
        };
        partitions.iter().map(find).collect()
    }

    async fn save_progress(&self, progress: &[(Partition, Progress)]) -> Result<(), SinkError> {
        if progress.is_empty() {
            return Ok(());
        }
        // The order of saving among the saves of one owner; between owners the fence decides, whatever their clocks say.
        let saved = chrono::Utc::now().timestamp_micros();
        let mut lines = String::new();
        for (partition, progress) in progress {
            let text = serde_json::to_string(progress).map_err(|e| broken(e.to_string()))?;
            let line = json!({"generation": self.generation, "topic": *partition.topic, "partition": partition.number, "progress": text, "saved": saved, "fence": progress.fence});
            lines.push_str(&format!("{line}\n"));
        }
        Ok(self.client.insert(&format!("INSERT INTO {}", self.qualified(PROGRESS)), Bytes::from(lines)).await?)
    }

    async fn upkeep(&self) -> Result<(), SinkError> {
        match &self.days {
            Some(days) => days.roll_up(&self.client).await,
            None => Ok(()),
        }
    }

    async fn browse(&self, cursor: Option<&str>, limit: usize) -> Result<Page, SinkError> {
        self.page(cursor, limit).await
    }

    async fn fetch(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        self.rows_of(keys).await
    }

    async fn remove(&self, _: &[Partition]) -> Result<(), SinkError> {
        self.remove_place().await
    }

    async fn count(&self) -> Result<u64, SinkError> {
        let rows = self.client.rows(&format!("SELECT count() AS n FROM {} FINAL", self.qualified(&self.table))).await?;
        rows.first().and_then(|row| row["n"].as_u64()).ok_or_else(|| broken("no count in the answer".to_owned()))
    }
}
