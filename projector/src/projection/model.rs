//! The shape of a projection's file. Doc comments here are the reference manual.

use super::diagnostic::{Diagnosis, Finding, Source};
use super::query::Query;
use super::test::TestCase;
use chrono::TimeDelta;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

/// One projection: one read model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Projection {
    /// The read model's name: lower-case letters, digits and `_`. It names consumer group, index, table and alias.
    pub name: Spanned<String>,
    /// What the read model is for, in a sentence.
    #[serde(default)]
    pub description: String,
    /// Who answers for it.
    #[serde(default)]
    pub owner: String,
    /// The store and its settings.
    pub store: Store,
    /// Makes the read model a rollup: each program gives rows, these fields of a row name its document, and all its other fields
    /// are whole numbers that are added up there.
    #[serde(default)]
    pub sum_by: Vec<String>,
    /// Lets each event add documents of its own, kept once and never changed: a history, in a store that is no table of rows
    /// by itself. `.` is the document to be added, or an array of them; its key is the event's id and a number.
    #[serde(default)]
    pub facts: bool,
    /// When a document expires: readers no longer find it from then on.
    #[serde(default)]
    pub ttl: Option<Spanned<Ttl>>,
    /// Makes the read model a join: the other aggregates (parents) that a document shows something of, each with the place
    /// where the document's own part holds their ids: `member: member_id`, or `book: lines[].book_id` for many. The name is the
    /// aggregate's type, unless it is given: `lender: { aggregate: member, id: lender_id }`.
    #[serde(default)]
    pub join: BTreeMap<String, Spanned<ParentIds>>,
    /// A join's document: a program in which `.` is the document's own part and `%name` a parent's part (null while there is
    /// none; with many, an object of them by id). What it leaves in `.` is what readers see. It can't fail.
    #[serde(default)]
    pub derive: Option<Spanned<String>>,
    /// What programs may ask for by key when an event is folded: `%name` in them is what another read model, or a Postgres table,
    /// holds **at that moment**. What has to follow later changes is a `join`.
    #[serde(default)]
    pub lookup: BTreeMap<String, Spanned<Lookup>>,
    /// How personal data in its documents is shown to those who may not read it, by field: what comes from an event's field that
    /// the schema marks `personal` must be named here.
    #[serde(default)]
    pub masks: BTreeMap<String, Mask>,
    /// What may be asked of it and of its host.
    #[serde(default)]
    pub limits: Limits,
    /// A program for each event type: `.` is the document, `%` the event. For facts and rollups, `.` is the row to be added, or an array of
    /// rows. In a join, `.` is the part of the event's own aggregate.
    pub on: BTreeMap<String, Spanned<String>>,
    /// The queries that `projector serve` answers from this read model.
    #[serde(default)]
    pub queries: Vec<Query>,
    /// What `projector test` makes sure of: given events, the documents that they make.
    #[serde(default)]
    pub tests: Vec<TestCase>,
}

/// A document's time to live.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ttl {
    /// How long: `30d`, `36h`, `90m`.
    #[serde(rename = "for")]
    pub span: String,
    /// The field that holds the day or the time from which on it counts. By default it counts from the document's last event.
    #[serde(default)]
    pub after: Option<String>,
}

impl Ttl {
    /// The span; none where it isn't one.
    #[must_use]
    pub fn span(&self) -> Option<TimeDelta> {
        let unit = self.span.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = self.span[..unit].parse().ok().filter(|n| (1..=1_000_000).contains(n))?;
        match &self.span[unit..] {
            "d" => TimeDelta::try_days(number),
            "h" => TimeDelta::try_hours(number),
            "m" => TimeDelta::try_minutes(number),
            _ => None,
        }
    }
}

/// Where a document's own part holds the ids of a parent.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum ParentIds {
    /// A path; the parent's name is its aggregate type.
    Path(String),
    /// A parent whose name says more than its aggregate type does.
    Named(NamedParent),
}

/// A parent under a name of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedParent {
    /// The aggregate type.
    pub aggregate: String,
    /// The path to its id.
    pub id: String,
}

/// Values that are asked for by key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// The read model whose documents are asked for: in Redis, Elasticsearch or Postgres, whichever generation is live.
    #[serde(default)]
    pub read_model: Option<String>,
    /// Or a Postgres table or view, `schema.table`, in the database of the read models.
    #[serde(default)]
    pub table: Option<String>,
    /// The table's column that holds the key.
    #[serde(default)]
    pub column: Option<String>,
    /// Where the event's data holds the key: `book_id`, or `lines[].book_id` for many. Null is no key, and gives null.
    pub key: String,
    /// The fields that programs read, each with its type: `string`, `integer`, `float`, `boolean` or `time`, and `?` behind it if
    /// it may be null.
    pub fields: BTreeMap<String, String>,
    /// What holds when there is nothing under a key, or a field without `?` is null there: the event waits for some minutes before
    /// it becomes a dead letter, `null` is found, or the event becomes a dead letter (`dlq`).
    #[serde(default)]
    pub missing: Missing,
    /// For how many ms an answer may be taken again. 10,000 by default; what was missing is asked for each time.
    #[serde(default)]
    pub cache_ms: Option<u32>,
}

/// What holds when a lookup finds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Option<String>")]
pub enum Missing {
    /// The event waits, and what follows in its partition with it.
    #[default]
    Wait,
    /// The program sees null.
    Null,
    /// The event is a dead letter.
    Dlq,
}

impl TryFrom<Option<String>> for Missing {
    type Error = String;

    fn try_from(text: Option<String>) -> Result<Self, String> {
        match text.as_deref() {
            None | Some("null") => Ok(Self::Null),
            Some("wait") => Ok(Self::Wait),
            Some("dlq") => Ok(Self::Dlq),
            Some(other) => Err(format!("`missing: {other}`: expected wait, null or dlq")),
        }
    }
}

/// How personal data is shown to those who may not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mask {
    /// As null.
    Hide,
    /// Its first letter, and `…`.
    Initial,
    /// All who may read the document may read it.
    Show,
}

/// What may be asked of a read model and of its host. Taken up when a host takes up the generation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// From the event to readers, in ms: above it the read model is late. 1,000 by default.
    pub lag_ms_max: u32,
    /// From the event to readers, in ms: above it that is critical. 60,000 by default.
    pub lag_ms_critical: u32,
    /// Events in one batch at most, 1 to 10,000. 2,000 by default.
    pub batch_max: u16,
    /// For how many ms after a batch the next one waits for more events, up to 5,000: fewer and larger writes for later documents.
    /// 0 by default.
    pub batch_wait_ms: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lag_ms_max: 1_000, lag_ms_critical: 60_000, batch_max: 2_000, batch_wait_ms: 0 }
    }
}

/// Where the documents live.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Store {
    /// A hash a document.
    Redis(RedisStore),
    /// A search document in Elasticsearch or OpenSearch.
    Elasticsearch(ElasticsearchStore),
    /// Rows of facts.
    Clickhouse(ClickhouseStore),
    /// A row a document.
    Postgres(PostgresStore),
}

/// Redis: each document a hash whose fields are the document's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisStore {
    /// The key's prefix: with `order:` the document `7` is the hash `order:7`.
    pub prefix: String,
    /// The logical database that belongs to this read model. 0 by default.
    #[serde(default)]
    pub database: u8,
}

/// Elasticsearch or OpenSearch: each document a search document under its key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElasticsearchStore {
    /// Refinements of the mapping by field path (`products.name`), merged over the one inferred from the programs
    /// (text → `keyword`, integer → `long`, time → `date`).
    #[serde(default)]
    pub fields: BTreeMap<String, serde_json::Value>,
}

/// ClickHouse: each event adds rows, kept once under their stable id.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickhouseStore {
    /// The field by whose day the table is partitioned and sorted; its column is a `Date`.
    pub day: String,
    /// Column types that differ from the inferred ones (text → `String`, integer → `Int64`, time → `DateTime64(6, 'UTC')`).
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// Each day's rows added up beforehand, so that a query over years needn't read them all. It reads `{rollup}` then, whose rows
    /// add up to what `{table} final` adds up to, at any time.
    #[serde(default)]
    pub rollup: Option<DayRollup>,
}

/// What of a day's rows is added up.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DayRollup {
    /// The fields that stay apart, beside the day.
    #[serde(default)]
    pub by: Vec<String>,
    /// The fields that are added up: whole numbers.
    pub sum: Vec<String>,
}

/// Postgres: each document a row with typed columns under its key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresStore {
    /// The schema that holds table and views. `read_models` by default; it is made where it isn't there.
    pub schema: String,
    /// Column types that differ from the inferred ones (text → `text`, integer → `bigint`, time → `timestamptz`, list and
    /// object → `jsonb`). Each must take a null, and a cast must lead back to the inferred type.
    pub columns: BTreeMap<String, String>,
    /// Indexes, each a list of fields.
    pub indexes: Vec<Vec<String>>,
}

impl Default for PostgresStore {
    fn default() -> Self {
        Self { schema: "read_models".to_owned(), columns: BTreeMap::new(), indexes: Vec::new() }
    }
}

impl Store {
    /// The store's name in messages, metrics and status.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Elasticsearch(_) => "elasticsearch",
            Self::Clickhouse(_) => "clickhouse",
            Self::Postgres(_) => "postgres",
        }
    }
}

impl Projection {
    /// Parses a file's text.
    ///
    /// # Errors
    /// What isn't YAML, or not of this shape, with its place.
    pub fn parse(source: &Source) -> Result<Self, Vec<Finding>> {
        serde_saphyr::from_str(&source.text).map_err(|error| {
            let location = error.location().unwrap_or(serde_saphyr::Location::UNKNOWN);
            let message = error.to_string();
            let message = message.lines().next().unwrap_or("not a projection");
            // The place is shown apart.
            let place = format!("error: line {} column {}: ", location.line(), location.column());
            let message = in_words(message.strip_prefix(&place).unwrap_or(message));
            let help = "see docs/projections.md for the fields of a projection";
            vec![Finding::at(source, location, message, help).of(Diagnosis::Shape)]
        })
    }
}

/// What the YAML parser says, in the words of who writes a file.
fn in_words(message: &str) -> String {
    let plain = match message {
        "expected mapping start" => "a map belongs here: `{ name: value }`, or a line `name: value` for each entry",
        "expected sequence start" => "a list belongs here: `[one, other]`, or a line `- one` for each",
        "expected string scalar" => "a text belongs here; in quotes, if it begins like a list or a map",
        "invalid boolean" => "`true` or `false` belongs here",
        other => match other.strip_prefix("duplicate mapping key: ").and_then(|rest| rest.split(", set ").next()) {
            Some(name) => return format!("`{name}` stands here a second time; one map has it once"),
            None => other,
        },
    };
    plain.to_owned()
}
