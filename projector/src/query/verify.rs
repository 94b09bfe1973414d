//! What `projector check` finds wrong in a declared query, beyond what its programs say.

use super::endpoint::{About, FRESHNESS, Template};
use super::fields::Fields;
use super::parameters::{self, Parameters};
use super::path::PathPattern;
use super::template::{AFTER, SqlTemplate, collect_parameters};
use crate::projection::{Compiled, Paging, Query, Store};
use std::str::FromStr;

/// A query's declaration, taken apart.
pub(super) struct Declared<'a> {
    pub(super) query: &'a Query,
    pub(super) compiled: &'a Compiled,
    pub(super) path: &'a PathPattern,
    pub(super) also: &'a [PathPattern],
    pub(super) parameters: &'a Parameters,
    pub(super) template: &'a Template,
    pub(super) about: Option<&'a About>,
    pub(super) fallback: Option<&'a SqlTemplate>,
}

impl Declared<'_> {
    /// All that is wrong, in words.
    pub(super) fn findings(&self) -> Vec<String> {
        let mut wrong: Vec<_> =
            self.query.parameters.iter().filter_map(|(name, p)| parameters::check(name, p)).collect();
        wrong.extend(self.names());
        wrong.extend(self.paths());
        wrong.extend(self.query.paging.as_ref().and_then(bounds));
        wrong.extend(self.sort());
        wrong.extend(self.cursor());
        wrong.extend(self.template());
        wrong.extend(self.unused());
        wrong.extend(self.fields());
        wrong.extend(self.meaning());
        wrong.extend(self.settings());
        wrong
    }

    fn names(&self) -> Vec<String> {
        let Query { paging, sort, .. } = self.query;
        let ours = |name: &str| {
            FRESHNESS.contains(&name)
                || paging.is_some() && ["page", "size"].contains(&name)
                || paging.as_ref().is_some_and(|p| p.cursor.is_some()) && name == "cursor"
                || sort.is_some() && name == "sort"
                || name.starts_with(AFTER)
        };
        let reserved = self.query.parameters.keys().filter(|name| ours(name));
        reserved.map(|name| format!("`{name}` is there without being declared")).collect()
    }

    fn paths(&self) -> Vec<String> {
        let unknown = self.path.parameters().filter(|name| self.parameters.get(name).is_none()).map(undeclared);
        let mut wrong: Vec<_> = unknown.collect();
        let named = |path: &PathPattern| {
            let mut names: Vec<_> = path.parameters().map(str::to_owned).collect();
            names.sort_unstable();
            names
        };
        if self.also.iter().any(|path| named(path) != named(self.path)) {
            wrong.push("a path under `also` has other parameters than the path under `get`".into());
        }
        let fixed = [self.path].into_iter().chain(self.also).flat_map(PathPattern::fixed);
        for (name, _) in
            fixed.filter(|(name, _)| self.parameters.get(name).is_some() || FRESHNESS.contains(&name.as_str()))
        {
            wrong.push(format!("`{name}` stands behind `?`, so it can't be a parameter too"));
        }
        wrong
    }

    fn sort(&self) -> Vec<String> {
        let Some(sort) = &self.query.sort else { return Vec::new() };
        let mut wrong = Vec::new();
        if !sort.keys.contains_key(&sort.default) {
            wrong.push(format!("sort: the default `{}` is none of its keys", sort.default));
        }
        if matches!(self.template, Template::Document(_)) {
            wrong.push("sort: a document has no order".into());
        }
        wrong
    }

    fn cursor(&self) -> Vec<String> {
        let Some(fields) = self.query.paging.as_ref().and_then(|paging| paging.cursor.as_ref()) else {
            return Vec::new();
        };
        match self.template {
            Template::Document(_) => Vec::new(),
            Template::Search(_) if !fields.is_empty() => {
                vec!["cursor: a search goes on behind its last hit's sort values; write `cursor: []`".into()]
            }
            Template::Search(search) => {
                let alone = |by: &serde_json::Value| by.as_array().is_none_or(|list| list.len() < 2);
                if search.sorts().next().is_none() || search.sorts().any(alone) {
                    return vec![
                        "cursor: every `sort` needs a second key that tells entries apart, such as an id".into(),
                    ];
                }
                Vec::new()
            }
            Template::Sql(_) if fields.is_empty() => {
                vec!["cursor: name the fields of the last row that tell where to go on".into()]
            }
            Template::Sql(sql) => {
                let bound = |field: &&String| sql.bound.iter().any(|(name, _)| *name == format!("{AFTER}{field}"));
                let missing = fields.iter().filter(|field| !bound(field));
                missing.map(|field| format!("cursor: `{{{AFTER}{field}:Type}}` doesn't stand in `sql`")).collect()
            }
        }
    }

    fn template(&self) -> Vec<String> {
        let Query { paging, .. } = self.query;
        let ours = |name: &str| {
            let cursor = paging.as_ref().and_then(|p| p.cursor.as_ref());
            paging.is_some() && ["limit", "offset"].contains(&name)
                || cursor.is_some_and(|fields| fields.iter().any(|f| format!("{AFTER}{f}") == name))
        };
        let absent = |name: &str| {
            name.starts_with(AFTER) || self.parameters.may_be_absent(name, self.path.parameters().any(|p| p == name))
        };
        match self.template {
            Template::Document(key) => {
                let unknown = key.parameters().filter(|name| self.parameters.get(name).is_none()).map(undeclared);
                let optional = key
                    .parameters()
                    .filter(|name| absent(name))
                    .map(|name| format!("`{name}` makes the key, so it must be required"));
                let paging = paging.as_ref().map(|_| "a document has no pages".to_owned());
                unknown.chain(optional).chain(paging).collect()
            }
            Template::Search(body) => {
                let names = body.written_parameters().into_iter();
                names.filter(|name| self.parameters.get(name).is_none()).map(undeclared).collect()
            }
            Template::Sql(sql) => {
                let names = sql.bound.iter().map(|(name, _)| name.as_str());
                let unknown = names.filter(|n| !ours(n) && self.parameters.get(n).is_none()).map(undeclared);
                let nullable = !matches!(self.compiled.projection.store, Store::Clickhouse(_));
                let takes_null = |kind: &str| nullable || kind.starts_with("Nullable(");
                let optional = sql.bound.iter().filter(|(name, kind)| absent(name) && !takes_null(kind));
                let optional = optional.map(|(name, kind)| {
                    format!("`{name}` may be absent: bind it as `Nullable({kind})`, or give it a default")
                });
                let hidden =
                    matches!(self.compiled.projection.store, Store::Postgres(_)).then(|| sql.hidden_column()).flatten();
                let hidden =
                    hidden.map(|name| format!("sql: `{name}` is the projector's own column, which queries don't see"));
                unknown.chain(optional).chain(hidden).collect()
            }
        }
    }

    /// A parameter that nothing looks at would be taken, and change nothing.
    fn unused(&self) -> Vec<String> {
        let mut used: Vec<String> = match self.template {
            Template::Document(key) => key.parameters().map(str::to_owned).collect(),
            Template::Search(body) => body.parameters().into_iter().map(str::to_owned).collect(),
            Template::Sql(sql) => sql.bound.iter().map(|(name, _)| name.clone()).collect(),
        };
        if let Some(missing) = &self.query.missing {
            let mut names = Vec::new();
            collect_parameters(missing, &mut names);
            used.extend(names.into_iter().map(str::to_owned));
        }
        used.extend(self.about.map(|about| about.parameter.clone()));
        let programs: Vec<_> = self
            .query
            .rules
            .iter()
            .map(|rule| &rule.that)
            .chain(&self.query.response)
            .map(|p| p.value.as_str())
            .collect();
        let in_program = |name: &str| {
            programs.iter().any(|text| {
                text.match_indices("params").any(|(at, word)| {
                    let rest = text[at + word.len()..].trim_start_matches(['.', ',', ' ', '[', '"']);
                    rest.strip_prefix(name).is_some_and(|r| !r.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
                })
            })
        };
        let idle = self.query.parameters.keys().filter(|name| !used.contains(name) && !in_program(name));
        idle.map(|name| format!("`{name}` is declared, but nothing uses it")).collect()
    }

    /// Fields that a search names and the read model doesn't have: it would find nothing, without a word.
    fn fields(&self) -> Vec<String> {
        let (Template::Search(search), Some(fields)) = (self.template, fields_of(self.compiled)) else {
            return Vec::new();
        };
        let mut names = search.fields();
        names.sort_unstable();
        names.dedup();
        names.iter().filter(|name| !name.contains('*')).filter_map(|name| fields.unknown(name)).collect()
    }

    /// What `min_seq`, `one` and a fallback need.
    fn meaning(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let in_path = |name: &str| self.path.parameters().any(|p| p == name);
        if self.query.about.len() > 1 {
            wrong.push("about: a query is about one aggregate".into());
        }
        // What is known without being said is said by the key already.
        if let Some(About { aggregate_type, parameter }) = self.about.filter(|_| !self.query.about.is_empty()) {
            if !self.compiled.aggregate_types.contains(aggregate_type) {
                let known = self.compiled.aggregate_types.join("`, `");
                wrong.push(format!("about: no event of `{aggregate_type}` feeds the read model; `{known}` do"));
            }
            if self.parameters.get(parameter).is_none() {
                wrong.push(undeclared(parameter));
            } else if self.parameters.may_be_absent(parameter, in_path(parameter)) {
                wrong.push(format!("about: `{parameter}` may be absent; let it be required"));
            }
        }
        let is_document = matches!(self.template, Template::Document(_));
        if self.query.one && (is_document || self.query.paging.is_some()) {
            wrong.push("one: for a search or SQL without `paging`".into());
        }
        if let Some(missing) = &self.query.missing {
            let mut names = Vec::new();
            collect_parameters(missing, &mut names);
            wrong.extend(
                names
                    .into_iter()
                    .filter(|name| self.parameters.get(name).is_none())
                    .map(|name| format!("missing: {}", undeclared(name))),
            );
            if !missing.is_object() || !is_document && !self.query.one {
                wrong.push("missing: a document in place of one (`document`, or `one: true`)".into());
            }
            if self.fallback.is_some() {
                wrong.push("missing: beside `fallback` it would never be asked".into());
            }
        }
        if let Some(fallback) = self.fallback {
            if !is_document && !self.query.one {
                wrong.push("fallback: only for one document (`document`, or `one: true`)".into());
            }
            let names = fallback.bound.iter().map(|(name, _)| name.as_str());
            wrong.extend(
                names
                    .filter(|name| self.parameters.get(name).is_none())
                    .map(|name| format!("fallback: {}", undeclared(name))),
            );
        }
        wrong
    }

    fn settings(&self) -> Vec<String> {
        let Query { cache, limits, row_filter, .. } = self.query;
        let mut wrong = Vec::new();
        if cache.as_ref().is_some_and(|cache| !(1..=86_400).contains(&cache.ttl_s)) {
            wrong.push("cache: `ttl_s` lies from 1 to 86400".into());
        }
        if !(1..=10_000).contains(&limits.concurrency) {
            wrong.push("limits: `concurrency` lies from 1 to 10000".into());
        }
        if !(10..=7_000).contains(&limits.time_ms) {
            wrong.push("limits: `time_ms` lies from 10 to 7000".into());
        }
        if !(1_024..=64 * 1024 * 1024).contains(&limits.answer_bytes) {
            wrong.push("limits: `answer_bytes` lies from 1024 to 67108864".into());
        }
        if let Some(zone) = self.query.time_zone.as_ref().filter(|zone| chrono_tz::Tz::from_str(zone).is_err()) {
            wrong.push(format!("time_zone: there is no `{zone}`; expected a name such as Europe/Rome"));
        }
        let unknown = row_filter.keys().filter(|name| self.parameters.get(name).is_none());
        wrong.extend(unknown.map(|name| format!("row_filter: {}", undeclared(name))));
        wrong
    }
}

fn bounds(paging: &Paging) -> Option<String> {
    let right = 1 <= paging.size && paging.size <= paging.size_max && paging.size_max <= paging.depth_max;
    (!right).then(|| "paging: 1 ≤ size ≤ size_max ≤ depth_max must hold".into())
}

pub(super) fn undeclared(name: &str) -> String {
    format!("`{name}` is not among the `parameters`")
}

/// What a search can name.
pub(super) fn fields_of(compiled: &Compiled) -> Option<Fields<'_>> {
    match &compiled.projection.store {
        Store::Elasticsearch(store) => Some(Fields { document: &compiled.document, refined: &store.fields }),
        _ => None,
    }
}
