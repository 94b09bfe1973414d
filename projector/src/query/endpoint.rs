//! A declared query, compiled: what `projector check` and `apply` refuse is refused here, with its place in the file.

use super::ask;
use super::cursor::List;
use super::facets;
use super::hits;
use super::parameters::{Arguments, Parameters};
use super::path::PathPattern;
use super::problem::Problem;
use super::store::FoundHits;
use super::suggest;
use super::template::{AFTER, KeyTemplate, SearchTemplate, SqlTemplate, substitute};
use super::verify;
use crate::expr::{Collection, Compiler, Kind, Object, Program, Value, json};
use crate::projection::{Compiled, Diagnosis, Finding, Query, ReadModelKind, Rule, Source};
use chrono::{NaiveDate, Utc};
use chrono_tz::Tz;
use serde_json::Value as Json;
use serde_saphyr::{Location, Spanned};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Semaphore;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Names of the parameters that every query takes, which none may declare.
pub(crate) const FRESHNESS: [&str; 5] = ["consistency_token", "consistency", "min_seq", "after_version", "wait_ms"];

/// A declared query ready to be answered.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Tells it from every other one of this process.
    pub(crate) id: u64,
    pub(crate) path: PathPattern,
    /// Other paths of it.
    pub(crate) also: Vec<PathPattern>,
    pub(crate) parameters: Parameters,
    pub(crate) template: Template,
    /// Whose events `min_seq` and `consistency=strong` are about.
    pub(crate) about: Option<About>,
    /// Where a missing document is looked for.
    pub(crate) fallback: Option<SqlTemplate>,
    /// The declaration.
    pub(crate) query: Arc<Query>,
    /// Reads of the store that are let in at a time.
    pub(crate) permits: Arc<Semaphore>,
    /// The type of a document.
    pub(crate) document: Kind,
    time_zone: Tz,
    rules: Vec<(Program, String)>,
    response: Option<Program>,
}

/// An aggregate that a query is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) aggregate_type: String,
    /// The parameter with its id.
    pub(crate) parameter: String,
}

/// What is asked of the store.
#[derive(Clone, Debug)]
pub(crate) enum Template {
    Document(KeyTemplate),
    Search(SearchTemplate),
    Sql(SqlTemplate),
}

/// What the store gave.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Document(Object),
    Hits(FoundHits),
    Rows(Vec<Value>),
}

impl Endpoint {
    /// Compiles the queries of a projection.
    ///
    /// # Errors
    /// Everything that is wrong in them.
    pub fn compile_all(source: &Source, compiled: &Compiled) -> Result<Vec<Self>, Vec<Finding>> {
        let compiler = Compiler::default();
        let mut endpoints: Vec<Self> = Vec::new();
        let mut findings = Vec::new();
        for query in &compiled.projection.queries {
            match Self::compile(source, compiled, &compiler, query) {
                Ok(endpoint) if endpoints.iter().any(|e| e.shares_a_path_with(&endpoint)) => {
                    findings.push(at(source, query, "another query of this file has the same path"));
                }
                Ok(endpoint) => endpoints.push(endpoint),
                Err(found) => findings.extend(found),
            }
        }
        if findings.is_empty() { Ok(endpoints) } else { Err(findings) }
    }

    /// All paths under which it is answered.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathPattern> {
        [&self.path].into_iter().chain(&self.also)
    }

    pub(crate) fn shares_a_path_with(&self, other: &Self) -> bool {
        self.paths().any(|path| other.paths().any(|theirs| path.same_requests(theirs)))
    }

    fn compile(source: &Source, compiled: &Compiled, compiler: &Compiler, query: &Query) -> Result<Self, Vec<Finding>> {
        let one = |message: String| vec![at(source, query, message)];
        let path = PathPattern::parse(&query.get.value).map_err(one)?;
        let also = query
            .also
            .iter()
            .map(|text| PathPattern::parse(&text.value))
            .collect::<Result<Vec<_>, _>>()
            .map_err(one)?;
        let parameters = Parameters::new(&query.parameters, query.paging.as_ref(), query.sort.as_ref());
        let template = ask::template_of(query, compiled).map_err(one)?;
        let fallback = query.fallback.as_ref().map(|f| SqlTemplate::elsewhere(&f.sql.value));
        let fallback = fallback.transpose().map_err(|message| one(format!("fallback: {message}")))?;
        let about = about(query, compiled, &template);
        let declared = verify::Declared {
            query,
            compiled,
            path: &path,
            also: &also,
            parameters: &parameters,
            template: &template,
            about: about.as_ref(),
            fallback: fallback.as_ref(),
        };
        let fields = verify::fields_of(compiled);
        let mut wrong: Vec<_> = declared.findings().into_iter().map(|message| (query.get.defined, message)).collect();
        wrong.extend(facets::findings(query, &parameters, fields));
        wrong.extend(hits::findings(query, fields));
        wrong.extend(fields.map(|fields| suggest::findings(query, &parameters, fields)).unwrap_or_default());
        if !wrong.is_empty() {
            let said = |message| format!("query {}: {message}", query.get.value);
            return Err(wrong.into_iter().map(|(place, message)| located(source, place, said(message))).collect());
        }
        let in_path: Vec<_> = path.parameters().map(str::to_owned).collect();
        let params = parameters.kind(&in_path);
        let facets = fields.filter(|_| !query.facets.is_empty()).map(|fields| facets::kind(&query.facets, fields));
        let given = given_kind(&template, query, &compiled.document, params.clone(), facets);
        let only_params = Kind::object(Collection::empty().with_known("params", params));
        let program = |text: &Spanned<String>, kind: &Kind| {
            let nothing = Kind::object(Collection::empty());
            compiler
                .compile(&text.value, kind, &nothing)
                .map_err(|found| found.iter().map(|d| Finding::in_program(source, text, d)).collect::<Vec<_>>())
        };
        let rule = |rule: &Rule| {
            let compiled = program(&rule.that, &only_params)?;
            match compiled.result().is_boolean() {
                true => Ok((compiled, rule.otherwise.clone())),
                false => Err(vec![located(
                    source,
                    rule.that.defined,
                    format!("a rule is true or false, not {}", compiled.result()),
                )]),
            }
        };
        let rules = query.rules.iter().map(rule).collect::<Result<_, _>>()?;
        let response = query.response.as_ref().map(|text| program(text, &given)).transpose()?;
        let template = match (template, &response) {
            (Template::Search(search), Some(response)) if !response.reads_own("total") => {
                Template::Search(search.uncounted())
            }
            (template, _) => template,
        };
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            path,
            also,
            parameters,
            template,
            about,
            fallback,
            query: Arc::new(query.clone()),
            permits: Arc::new(Semaphore::new(query.limits.concurrency)),
            document: compiled.document.clone(),
            time_zone: query.time_zone.as_ref().and_then(|zone| zone.parse().ok()).unwrap_or(Tz::UTC),
            rules,
            response,
        })
    }

    /// The day that `today` means now.
    pub(crate) fn today(&self) -> NaiveDate {
        Utc::now().with_timezone(&self.time_zone).date_naive()
    }

    /// What stands for a document that isn't there.
    pub(crate) fn missing(&self, arguments: &Arguments) -> Option<Object> {
        match substitute(self.query.missing.as_ref()?, arguments)? {
            Json::Object(fields) => Some(json::object_from_json(fields, &self.document)),
            _ => None,
        }
    }

    /// The type of the answer's body.
    pub(crate) fn answer_kind(&self) -> Kind {
        let list = |of: Kind| Kind::array(Collection::empty().with_unknown(of));
        match (&self.response, &self.template) {
            (Some(program), _) => program.result().clone(),
            (None, _) if self.query.suggest.is_some() => suggest::kind(),
            (None, Template::Sql(_)) if self.query.one => Kind::any_object(),
            (None, Template::Sql(_)) => list(Kind::any_object()),
            (None, Template::Search(_)) if !self.query.fields.is_empty() => {
                list(hits::kind(&self.query, &self.document))
            }
            (None, Template::Search(_)) if !self.query.one => list(self.document.clone()),
            _ => self.document.clone(),
        }
    }

    /// Whether the parameters go together.
    pub(crate) fn check(&self, arguments: &Arguments) -> Result<(), Problem> {
        if self.rules.is_empty() {
            return Ok(());
        }
        let mut given = Value::Object(Object::from([("params".into(), self.params(arguments))]));
        for (program, otherwise) in &self.rules {
            let holds = program.run(&mut given, &Value::Null).map_err(|e| Problem::internal(e.to_string()))?;
            if holds != Value::Boolean(true) {
                return Err(Problem::bad_request(otherwise.clone()));
            }
        }
        Ok(())
    }

    /// The answer; `list` is what a cursor would belong to.
    pub(crate) fn respond(&self, arguments: &Arguments, found: Found, list: &List) -> Result<Respond, Problem> {
        let next_cursor = self.cursor_behind(arguments, &found, list);
        let found = match found {
            Found::Hits(found) if !self.query.fields.is_empty() => {
                let shown = found.hits.into_iter().map(|hit| hits::shown(&self.query, hit));
                Found::Hits(FoundHits { hits: shown.collect(), ..found })
            }
            found => found,
        };
        let Some(program) = &self.response else {
            return Ok(Respond { body: self.plain(found), next_cursor });
        };
        let mut given = Object::from([("params".into(), self.params(arguments))]);
        match found {
            Found::Document(document) => _ = given.insert("document".into(), Value::Object(document)),
            Found::Hits(FoundHits { hits, total, facets, took_ms, .. }) => {
                given.insert("took_ms".into(), Value::Integer(took_ms));
                if let Some(suggest) = &self.query.suggest {
                    given.insert("suggestions".into(), Value::Array(suggest::texts(suggest, &hits)));
                } else {
                    let declared = &self.query.facets;
                    let facets = if declared.is_empty() { facets } else { facets::counted(declared, &facets) };
                    given.insert("hits".into(), Value::Array(hits));
                    given.insert("total".into(), Value::Integer(total));
                    given.insert("facets".into(), json::from_json(facets, &Kind::any()));
                }
            }
            Found::Rows(rows) => _ = given.insert("rows".into(), Value::Array(rows)),
        }
        if self.query.paging.as_ref().is_some_and(|paging| paging.cursor.is_some()) {
            given.insert("next_cursor".into(), next_cursor.as_deref().map_or(Value::Null, Value::from));
        }
        let answer = program.run(&mut Value::Object(given), &Value::Null);
        let body = answer.map(|value| json::to_json(&value)).map_err(|e| Problem::internal(e.to_string()))?;
        Ok(Respond { body, next_cursor })
    }

    /// The values of a given cursor, bound by name for SQL.
    pub(crate) fn bind_after(&self, arguments: &mut Arguments, values: &[Json]) -> Result<(), Problem> {
        let fields = self.query.paging.as_ref().and_then(|paging| paging.cursor.as_deref()).unwrap_or_default();
        if fields.len() != values.len() {
            return Err(Problem::parameter("cursor", "`cursor` is of another query; begin again without it"));
        }
        for (field, value) in fields.iter().zip(values) {
            arguments.insert(format!("{AFTER}{field}"), value.clone());
        }
        Ok(())
    }

    /// A full page has a next one; that may be empty.
    fn cursor_behind(&self, arguments: &Arguments, found: &Found, list: &List) -> Option<String> {
        let fields = self.query.paging.as_ref()?.cursor.as_ref()?;
        let size = usize::try_from(arguments.get("size")?.as_i64()?).ok()?;
        match found {
            Found::Hits(found) if found.hits.len() >= size => Some(list.behind(found.last.as_deref()?)),
            Found::Rows(rows) if rows.len() >= size => {
                let last = rows.last()?.as_object()?;
                let values: Vec<_> =
                    fields.iter().map(|f| last.get(f.as_str()).map_or(Json::Null, json::to_json)).collect();
                Some(list.behind(&values))
            }
            _ => None,
        }
    }

    /// The answer of a query without `response`.
    fn plain(&self, found: Found) -> Json {
        let list = |items: &[Value]| items.iter().map(json::to_json).collect();
        match (found, &self.query.suggest) {
            (Found::Document(document), _) => Json::Object(json::object_to_json(&document)),
            (Found::Hits(found), Some(suggest)) => list(&suggest::texts(suggest, &found.hits)),
            (Found::Hits(found), None) => list(&found.hits),
            (Found::Rows(rows), _) => list(&rows),
        }
    }

    fn params(&self, arguments: &Arguments) -> Value {
        Value::Object(json::object_from_json(arguments.clone(), &Kind::any()))
    }
}

/// An answer's body, and where its list goes on.
pub(crate) struct Respond {
    pub(crate) body: Json,
    pub(crate) next_cursor: Option<String>,
}

/// What the query says, or what is plain without words: a document under its aggregate's id.
fn about(query: &Query, compiled: &Compiled, template: &Template) -> Option<About> {
    if let Some((aggregate_type, parameter)) = query.about.iter().next() {
        return Some(About { aggregate_type: aggregate_type.clone(), parameter: parameter.clone() });
    }
    let Template::Document(key) = template else { return None };
    match (compiled.kind, compiled.aggregate_types.as_slice()) {
        (ReadModelKind::Entity, [only]) => {
            Some(About { aggregate_type: only.clone(), parameter: key.only_parameter()?.to_owned() })
        }
        _ => None,
    }
}

fn given_kind(template: &Template, query: &Query, document: &Kind, params: Kind, facets: Option<Kind>) -> Kind {
    let mut given = Collection::empty().with_known("params", params);
    let list = |of: Kind| Kind::array(Collection::empty().with_unknown(of));
    given = match template {
        Template::Document(_) => given.with_known("document", document.clone()),
        Template::Search(_) if query.one => given.with_known("document", document.clone()),
        Template::Sql(_) if query.one => given.with_known("document", Kind::any_object()),
        Template::Search(_) if query.suggest.is_some() => {
            given.with_known("suggestions", suggest::kind()).with_known("took_ms", Kind::integer())
        }
        Template::Search(_) => {
            let mut hit = document.as_object().cloned().unwrap_or_else(Collection::any);
            hit.known_mut().insert("_highlight".into(), Kind::object(Collection::any()).or_undefined());
            let hit = if query.fields.is_empty() { Kind::object(hit) } else { hits::kind(query, document) };
            given
                .with_known("hits", list(hit))
                .with_known("total", Kind::integer())
                .with_known("facets", facets.unwrap_or_else(Kind::any))
                .with_known("took_ms", Kind::integer())
        }
        Template::Sql(_) => given.with_known("rows", list(Kind::any_object())),
    };
    if query.paging.as_ref().is_some_and(|paging| paging.cursor.is_some()) {
        given = given.with_known("next_cursor", Kind::bytes().or_null());
    }
    Kind::object(given)
}

fn at(source: &Source, query: &Query, message: impl Into<String>) -> Finding {
    located(source, query.get.defined, format!("query {}: {}", query.get.value, message.into()))
}

fn located(source: &Source, location: Location, message: String) -> Finding {
    Finding::at(source, location, message, "see docs/projections.md, `queries`").of(Diagnosis::Query)
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
