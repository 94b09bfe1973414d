//! The shape of a declared query. Doc comments here are the reference manual.
//!
//! A query is a path under which `projector serve` answers from the read model in whose file it stands. Values of the
//! caller reach the store only as bound values (a key's part, a value in a search's body, a bound parameter of SQL), never as
//! text pasted into a query.

use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::time::Duration;

/// A declared query: `GET` on a path. Exactly one of `document`, `search`, `suggest`, `sql` says how the store is asked; it must be
/// one of the read model's store (Redis: `document`, Elasticsearch: `search` or `suggest`, ClickHouse and Postgres: `sql`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The path, such as `/orders/{id}`; a part in braces takes one segment. Answered under `/api` too. Behind `?` may stand
    /// what a request must ask for to be meant: `/orders/{id}?view=details`.
    pub get: Spanned<String>,
    /// Other paths of the same query, with the same parameters.
    #[serde(default)]
    pub also: Vec<Spanned<String>>,
    /// What it answers, in a sentence.
    #[serde(default)]
    pub description: String,
    /// The parameters: those of the path, and those of the query string. Any other is refused with 400.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// The aggregate that it is about, and the parameter that has its id: `{ member: id }`. It gives `min_seq` and
    /// `consistency=strong` their meaning. For one document under its aggregate's id it is known without being said.
    #[serde(default)]
    pub about: BTreeMap<String, String>,
    /// Adds the parameters `page` (from 1) and `size`. A search gets them as `from` and `size`; SQL binds them as
    /// `{limit:UInt64}` and `{offset:UInt64}` (Postgres: `bigint`).
    #[serde(default)]
    pub paging: Option<Paging>,
    /// Adds the parameter `sort`, with these keys.
    #[serde(default)]
    pub sort: Option<Sort>,
    /// What must hold between parameters, beyond what each says on its own.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// One document by its key.
    #[serde(default)]
    pub document: Option<DocumentTemplate>,
    /// A search's body (query DSL). A node `{param: name}` stands for the parameter's typed value. Where that parameter is
    /// optional and absent, the nearest enclosing element of a list vanishes, or else the whole entry of the body. Deleted
    /// documents are left out, and `track_total_hits` is true, without being asked for.
    #[serde(default)]
    pub search: Option<serde_json::Value>,
    /// The fields that each hit of a search shows, null where a document lacks one, and beside them `highlight` where the search asks
    /// for highlights. All that a document has by default, and `_highlight`.
    #[serde(default)]
    pub fields: Vec<Spanned<String>>,
    /// What is counted beside the hits of a search, by name. Each facet counts what the query finds under the `filter`s of parameters on
    /// all other fields than its own, so that it shows what another choice would find; `.facets.<name>` is the list of counts.
    #[serde(default)]
    pub facets: BTreeMap<String, Facet>,
    /// Texts of a field that fit one that is still being typed, in place of `search`: at most ten, best first.
    #[serde(default)]
    pub suggest: Option<Suggest>,
    /// A statement for ClickHouse or Postgres. `{table}` is this generation's table (ClickHouse: put `final` behind it;
    /// Postgres: without what is deleted or expired), `{rollup}` in ClickHouse its days added up (`rollup` of the store): rows of the
    /// day, the fields of `by` and of `sum`, to be added up further. `{name:Type}` is a bound parameter; an absent one is null, so in
    /// ClickHouse its type must be `Nullable(…)`.
    #[serde(default)]
    pub sql: Option<Spanned<String>>,
    /// Takes the first hit or row alone, as `.document`; where there is none, the answer is 404.
    #[serde(default)]
    pub one: bool,
    /// A program whose value is the answer. `.params` has the parameters, and beside it stands what the store gave:
    /// `.document`; `.hits` (a list of documents, or of their `fields`), `.total`, `.facets` (by name,
    /// or the search's `aggs` as the server gives them) and `.took_ms`; `.suggestions` and `.took_ms`; or `.rows`. With a cursor also `.next_cursor`. By default documents, rows and texts are answered as they are.
    #[serde(default)]
    pub response: Option<Spanned<String>>,
    /// Answers may be given again to others who ask the same.
    #[serde(default)]
    pub cache: Option<Cache>,
    /// What a document that isn't there is taken to be, in place of 404; `{param: name}` stands for a value.
    #[serde(default)]
    pub missing: Option<serde_json::Value>,
    /// The time zone in which `today` is meant: `Europe/Rome`. UTC by default.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// Where a document is looked for that the read model doesn't have.
    #[serde(default)]
    pub fallback: Option<Fallback>,
    /// How much of it there may be at a time, and how long it may take.
    #[serde(default)]
    pub limits: QueryLimits,
    /// Who may ask. Shown in the description; not enforced until callers are known by more than their address.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Which parameter must be which claim of the caller: `{ member_id: sub }`. As `roles`, not enforced yet.
    #[serde(default)]
    pub row_filter: BTreeMap<String, String>,
}

/// Which field of a document must be what, compared with the parameter's value, for the document to be found.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// The field that is the value; of a list, one of its values.
    pub is: Option<Spanned<String>>,
    /// The field that is above it.
    pub gt: Option<Spanned<String>>,
    /// The field that is it, or above.
    pub gte: Option<Spanned<String>>,
    /// The field that is below it.
    pub lt: Option<Spanned<String>>,
    /// The field that is it, or below.
    pub lte: Option<Spanned<String>>,
}

/// Counts by the values of a field: by each on its own, by parts of the calendar, or between bounds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facet {
    /// The field.
    pub field: Spanned<String>,
    /// How many values are counted, the most frequent first (10 by default): a list of `value` and `count`.
    #[serde(default)]
    pub size: Option<u32>,
    /// Of a time: `day`, `week`, `month`, `quarter`, `year`, or `{ param: name }` with one of these: a list of `from` (the first day, in the
    /// query's `time_zone`) and `count`, without those that count nothing.
    #[serde(default)]
    pub interval: Option<serde_json::Value>,
    /// Of a number: where one range ends and the next begins: a list of `from`, `to` (exclusive; null where it is open) and `count`.
    #[serde(default)]
    pub bounds: Vec<serde_json::Number>,
}

/// What fits a text that is still being typed: it begins like that, or nearly, in one of its words.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suggest {
    /// The field; its mapping needs a part of type `search_as_you_type`:
    /// `{ type: text, fields: { typed: { type: search_as_you_type } } }`.
    pub field: Spanned<String>,
    /// The parameter with the text.
    pub text: Spanned<String>,
}

/// The orders in which a list can be had.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sort {
    /// The key when none is given.
    pub default: String,
    /// What each key means: in a search the body's `sort`, in SQL the text that stands for `{sort}`.
    pub keys: BTreeMap<String, serde_json::Value>,
}

/// Answers that are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// How long one is given again, in seconds. It is never given to a caller whose token asks for more than it holds.
    pub ttl_s: u64,
    /// Drops it earlier, as soon as the read model has moved on.
    #[serde(default)]
    pub drop_on_progress: bool,
}

/// A statement for the write database.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// A `select` for Postgres whose first row becomes `.document`; `{name:type}` is a bound parameter. The answer is marked stale.
    pub sql: Spanned<String>,
}

/// What a query may take; more is turned away with 503 and `Retry-After`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueryLimits {
    /// How many read the store at a time. Those that wait for a token don't count.
    pub concurrency: usize,
    /// How long the store may take, in ms, waiting for a token not included.
    pub time_ms: u64,
    /// The largest answer, in bytes.
    pub answer_bytes: usize,
}

impl QueryLimits {
    /// [`QueryLimits::time_ms`].
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_millis(self.time_ms)
    }
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { concurrency: 256, time_ms: 7_000, answer_bytes: 8 * 1024 * 1024 }
    }
}

/// One parameter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// What it must be.
    #[serde(rename = "type")]
    pub kind: ParameterType,
    /// Whether it must be given. One of the path always is.
    #[serde(default)]
    pub required: bool,
    /// What it is when it isn't given: a value of its type; for a date also `today`, `today-29d`, `today+1d` (UTC). Without
    /// a default it is null for `response`, and what uses it in a search vanishes.
    #[serde(default)]
    pub default: Option<serde_json::Value>,
    /// The smallest integer.
    #[serde(default)]
    pub min: Option<i64>,
    /// The largest integer; of text, the largest number of characters (256 by default).
    #[serde(default)]
    pub max: Option<i64>,
    /// Leaves out of a search or suggestions what isn't like that: `{ is: state }`, `{ gte: due }`. When the parameter is absent, nothing.
    #[serde(default)]
    pub filter: Option<Filter>,
    /// The texts that are allowed; all by default.
    #[serde(default)]
    pub values: Vec<String>,
    /// What it means, in a sentence.
    #[serde(default)]
    pub doc: String,
    /// A value for the description.
    #[serde(default)]
    pub example: Option<serde_json::Value>,
}

/// What a parameter must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    /// Text, not empty.
    String,
    /// A whole number of 64 bits.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A day: `2026-05-23`.
    Date,
    /// A UUID; seen by templates in lower case with hyphens.
    Uuid,
}

/// Pages by number.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paging {
    /// The size of a page when none is given.
    #[serde(default = "Paging::size_default")]
    pub size: i64,
    /// The largest size.
    #[serde(default = "Paging::size_max_default")]
    pub size_max: i64,
    /// How many entries deep pages may reach (`page` × `size`). Elasticsearch refuses more than 10,000.
    #[serde(default = "Paging::depth_max_default")]
    pub depth_max: i64,
    /// Adds the parameter `cursor`, by which pages of any depth are read one after the other: `.next_cursor` is what to give for
    /// the next, null behind the last. Of a search it is the last hit's sort values (`[]` here), so its `sort` must name exactly
    /// one document in the end. Of SQL it is these fields of the last row, bound as `{after_<field>:Type}` (null on the first page).
    #[serde(default)]
    pub cursor: Option<Vec<String>>,
}

impl Paging {
    fn size_default() -> i64 {
        20
    }
    fn size_max_default() -> i64 {
        100
    }
    fn depth_max_default() -> i64 {
        10_000
    }
}

/// What must hold between parameters; else 400 with the message.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A program whose value is true or false; `.params` has the parameters. Dates are text (`2026-05-23`).
    pub that: Spanned<String>,
    /// What the caller is told when it is false.
    pub otherwise: String,
}

/// One document by its key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentTemplate {
    /// The document's key, with parameters in braces: `{id}`.
    pub key: Spanned<String>,
}
