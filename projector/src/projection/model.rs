//! The shape of a projection's file. Doc comments here are the reference manual.

use super::diagnostic::{Diagnosis, Finding, Source};
use super::query::Query;
use super::test::TestCase;
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
    /// A program for each event type: `.` is the document, `%` the event. For facts and rollups, `.` is the row to be added, or an array of
    /// rows.
    pub on: BTreeMap<String, Spanned<String>>,
    /// The queries that `projector serve` answers from this read model.
    #[serde(default)]
    pub queries: Vec<Query>,
    /// What `projector test` makes sure of: given events, the documents that they make.
    #[serde(default)]
    pub tests: Vec<TestCase>,
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
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickhouseStore {
    /// The field by whose day the table is partitioned and sorted; its column is a `Date`.
    pub day: String,
    /// Column types that differ from the inferred ones (text → `String`, integer → `Int64`, time → `DateTime64(6, 'UTC')`).
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
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
            let message = message.strip_prefix(&place).unwrap_or(message).to_owned();
            let help = "see docs/projections.md for the fields of a projection";
            vec![Finding::at(source, location, message, help).of(Diagnosis::Shape)]
        })
    }
}
