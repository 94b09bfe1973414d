//! A declared query, compiled: what `projector check` and `apply` refuse is refused here, with its place in the file.

use super::parameters::{Arguments, Parameters};
use super::path::PathPattern;
use super::template::{KeyTemplate, SearchTemplate, SqlTemplate};
use super::{parameters, problem::Problem};
use crate::expr::{Collection, Compiler, Kind, Object, Program, Value, json};
use crate::projection::{Compiled, Diagnosis, Finding, Query, Rule, Source, Store};
use serde_json::Value as Json;
use serde_saphyr::{Location, Spanned};

/// Names of the parameters that every query takes, which none may declare.
pub(crate) const FRESHNESS: [&str; 4] = ["consistency_token", "min_seq", "after_version", "wait_ms"];

/// A declared query ready to be answered.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(crate) path: PathPattern,
    pub(crate) parameters: Parameters,
    pub(crate) template: Template,
    rules: Vec<(Program, String)>,
    response: Option<Program>,
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
    Hits { hits: Vec<Value>, total: i64 },
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
                Ok(endpoint) if endpoints.iter().any(|e| e.path.same_requests(&endpoint.path)) => {
                    findings.push(at(source, query, "another query of this file has the same path"));
                }
                Ok(endpoint) => endpoints.push(endpoint),
                Err(found) => findings.extend(found),
            }
        }
        if findings.is_empty() { Ok(endpoints) } else { Err(findings) }
    }

    fn compile(source: &Source, compiled: &Compiled, compiler: &Compiler, query: &Query) -> Result<Self, Vec<Finding>> {
        let one = |message: String| vec![at(source, query, message)];
        let path = PathPattern::parse(&query.get.value).map_err(one)?;
        let parameters = Parameters::new(&query.parameters, query.paging.as_ref());
        let mut wrong: Vec<_> = query.parameters.iter().filter_map(|(name, p)| parameters::check(name, p)).collect();
        let reserved = |name: &&String| {
            FRESHNESS.contains(&name.as_str()) || query.paging.is_some() && ["page", "size"].contains(&name.as_str())
        };
        wrong.extend(
            query.parameters.keys().filter(reserved).map(|name| format!("`{name}` is there without being declared")),
        );
        wrong.extend(path.parameters().filter(|name| parameters.get(name).is_none()).map(undeclared));
        if let Some(paging) = &query.paging
            && !(1 <= paging.size && paging.size <= paging.size_max && paging.size_max <= paging.depth_max)
        {
            wrong.push("paging: 1 ≤ size ≤ size_max ≤ depth_max must hold".into());
        }
        let template = template_of(query, &compiled.projection.store).map_err(one)?;
        let nullable = !matches!(compiled.projection.store, Store::Clickhouse(_));
        wrong.extend(check_template(&template, query, &parameters, &path, nullable));
        if !wrong.is_empty() {
            return Err(wrong.into_iter().map(|message| at(source, query, message)).collect());
        }
        let in_path: Vec<_> = path.parameters().map(str::to_owned).collect();
        let params = parameters.kind(&in_path);
        let given = given_kind(&template, &compiled.document, params.clone());
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
        Ok(Self { path, parameters, template, rules, response })
    }

    /// Whether the parameters go together.
    pub(crate) fn check(&self, arguments: &Arguments) -> Result<(), Problem> {
        if self.rules.is_empty() {
            return Ok(());
        }
        let mut given = Value::Object(Object::from([("params".into(), self.params(arguments))]));
        for (program, otherwise) in &self.rules {
            let holds = program
                .run(&mut given, &mut Value::Object(Object::new()))
                .map_err(|e| Problem::internal(e.to_string()))?;
            if holds != Value::Boolean(true) {
                return Err(Problem::bad_request(otherwise.clone()));
            }
        }
        Ok(())
    }

    /// The answer.
    pub(crate) fn respond(&self, arguments: &Arguments, found: Found) -> Result<Json, Problem> {
        let Some(program) = &self.response else {
            return Ok(plain(found));
        };
        let mut given = Object::from([("params".into(), self.params(arguments))]);
        match found {
            Found::Document(document) => _ = given.insert("document".into(), Value::Object(document)),
            Found::Hits { hits, total } => {
                given.insert("hits".into(), Value::Array(hits));
                given.insert("total".into(), Value::Integer(total));
            }
            Found::Rows(rows) => _ = given.insert("rows".into(), Value::Array(rows)),
        }
        let answer = program.run(&mut Value::Object(given), &mut Value::Object(Object::new()));
        answer.map(|value| json::to_json(&value)).map_err(|e| Problem::internal(e.to_string()))
    }

    fn params(&self, arguments: &Arguments) -> Value {
        Value::Object(json::object_from_json(arguments.clone(), &Kind::any()))
    }
}

/// The answer of a query without `response`.
fn plain(found: Found) -> Json {
    match found {
        Found::Document(document) => Json::Object(json::object_to_json(&document)),
        Found::Hits { hits, .. } => hits.iter().map(json::to_json).collect(),
        Found::Rows(rows) => rows.iter().map(json::to_json).collect(),
    }
}

fn given_kind(template: &Template, document: &Kind, params: Kind) -> Kind {
    let params = Collection::empty().with_known("params", params);
    let list = |of: Kind| Kind::array(Collection::empty().with_unknown(of));
    Kind::object(match template {
        Template::Document(_) => params.with_known("document", document.clone()),
        Template::Search(_) => params.with_known("hits", list(document.clone())).with_known("total", Kind::integer()),
        Template::Sql(_) => params.with_known("rows", list(Kind::any_object())),
    })
}

fn template_of(query: &Query, store: &Store) -> Result<Template, String> {
    let wanted = match store {
        Store::Redis(_) => "document",
        Store::Elasticsearch(_) => "search",
        Store::Clickhouse(_) | Store::Postgres(_) => "sql",
    };
    let given =
        [("document", query.document.is_some()), ("search", query.search.is_some()), ("sql", query.sql.is_some())];
    if given.into_iter().any(|(name, there)| there != (name == wanted)) {
        return Err(format!(
            "a query of a read model in {} has `{wanted}`, and neither of the other two",
            store.name()
        ));
    }
    let template = match (&query.document, &query.search, &query.sql) {
        (Some(document), ..) => KeyTemplate::parse(&document.key.value).map(Template::Document),
        (_, Some(body), _) => SearchTemplate::parse(body).map(Template::Search),
        (.., Some(sql)) => SqlTemplate::parse(&sql.value).map(Template::Sql),
        _ => Err(String::new()),
    };
    let template = template.map_err(|message| format!("{wanted}: {message}"))?;
    let adds_up = matches!(store, Store::Clickhouse(config) if config.rollup.is_some());
    if matches!(&template, Template::Sql(sql) if sql.reads_rollup()) && !adds_up {
        return Err("sql: `{rollup}` needs `rollup` under `store.clickhouse`, which says what is added up".to_owned());
    }
    Ok(template)
}

/// What is wrong with a template; `nullable` says whether every type of the store's SQL has a null.
fn check_template(
    template: &Template,
    query: &Query,
    parameters: &Parameters,
    path: &PathPattern,
    nullable: bool,
) -> Vec<String> {
    let paged = |name: &str| query.paging.is_some() && ["limit", "offset"].contains(&name);
    let absent = |name: &str| parameters.may_be_absent(name, path.parameters().any(|p| p == name));
    match template {
        Template::Document(key) => {
            let unknown = key.parameters().filter(|name| parameters.get(name).is_none()).map(undeclared);
            let optional = key
                .parameters()
                .filter(|name| absent(name))
                .map(|name| format!("`{name}` makes the key, so it must be required"));
            let paging = query.paging.as_ref().map(|_| "a document has no pages".to_owned());
            unknown.chain(optional).chain(paging).collect()
        }
        Template::Search(body) => {
            body.parameters().into_iter().filter(|name| parameters.get(name).is_none()).map(undeclared).collect()
        }
        Template::Sql(sql) => {
            let unknown = sql
                .bound
                .iter()
                .map(|(name, _)| name.as_str())
                .filter(|n| !paged(n) && parameters.get(n).is_none())
                .map(undeclared);
            let takes_null = |kind: &str| nullable || kind.starts_with("Nullable(");
            let optional = sql.bound.iter().filter(|(name, kind)| absent(name) && !takes_null(kind));
            let optional = optional.map(|(name, kind)| {
                format!("`{name}` may be absent: bind it as `Nullable({kind})`, or give it a default")
            });
            unknown.chain(optional).collect()
        }
    }
}

fn undeclared(name: &str) -> String {
    format!("`{name}` is not among the `parameters`")
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
