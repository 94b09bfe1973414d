//! What is wrong with a document's type once it is known: fields of several types, names that aren't free, and settings of the
//! store that its fields don't fit.

use super::compile::ReadModelKind;
use super::diagnostic::{Diagnosis, Finding, Source};
use super::{ElasticsearchStore, PostgresStore, Projection, Store};
use crate::expr::{Collection, Diagnostic, Flow, Kind, Reason, distance, flows};
use serde_json::Value as Json;

/// Types of a mapping, and which inferred types each takes: text, whole number, number, truth, time, object.
const MAPPING_TYPES: [(&str, &str); 30] = [
    ("keyword", "twnbd"),
    ("constant_keyword", "t"),
    ("wildcard", "t"),
    ("text", "twnbd"),
    ("match_only_text", "t"),
    ("search_as_you_type", "t"),
    ("completion", "t"),
    ("binary", "t"),
    ("ip", "t"),
    ("version", "t"),
    ("long", "w"),
    ("integer", "w"),
    ("short", "w"),
    ("byte", "w"),
    ("unsigned_long", "w"),
    ("double", "wn"),
    ("float", "wn"),
    ("half_float", "wn"),
    ("scaled_float", "wn"),
    ("rank_feature", "wn"),
    ("boolean", "b"),
    ("date", "td"),
    ("date_nanos", "td"),
    ("object", "o"),
    ("nested", "o"),
    ("flattened", "o"),
    ("geo_point", "to"),
    ("geo_shape", "to"),
    ("dense_vector", "wn"),
    ("token_count", "t"),
];

/// Everything that is wrong with the document that a projection makes.
pub(super) fn document(source: &Source, projection: &Projection, kind: ReadModelKind, document: &Kind) -> Vec<Finding> {
    let mut findings = Vec::new();
    mixed(source, projection, "", document, &mut findings);
    for name in names(document).into_iter().filter(|name| name.starts_with('_')) {
        let message = format!("`{name}`: names that begin with `_` are the projector's own");
        findings.push(at_field(source, projection, &name, message, "give it another name").of(Diagnosis::ReservedName));
    }
    match &projection.store {
        Store::Elasticsearch(store) => elasticsearch(source, store, document, &mut findings),
        Store::Postgres(store) => postgres(source, projection, store, document, &mut findings),
        Store::Clickhouse(store) => {
            for (name, sql_type) in &store.columns {
                known(source, document, name, &mut findings);
                let nullable = field(document, name).is_some_and(|k| k.contains_null() || k.contains_undefined());
                let takes_null =
                    ["Nullable(", "LowCardinality(Nullable(", "Variant(", "Dynamic", "JSON", "Array(", "Map("]
                        .iter()
                        .any(|prefix| sql_type.starts_with(prefix));
                if nullable && !takes_null {
                    let message = format!("`{name}` may be null or missing, and {sql_type} takes no null");
                    let help =
                        format!("write Nullable({sql_type}), or give it a value in every program: `… ?? default`");
                    findings.push(Finding::at_entry(source, name, message, help).of(Diagnosis::Mapping));
                }
            }
        }
        Store::Redis(store) => {
            if store.prefix.is_empty() && kind != ReadModelKind::Facts {
                let help = "give its keys a prefix of their own, such as `loan:`";
                findings.push(Finding::at_entry(source, "prefix", "the prefix is empty", help).of(Diagnosis::Mapping));
            }
        }
    }
    findings
}

/// The types that a field may have, apart from being null or missing.
fn types(kind: &Kind) -> Vec<&'static str> {
    let all = [
        (kind.contains_bytes() || kind.contains_regex(), "text"),
        (kind.contains_integer() || kind.contains_float(), "a number"),
        (kind.contains_boolean(), "true or false"),
        (kind.contains_timestamp(), "a time"),
        (kind.contains_object(), "an object"),
        (kind.contains_array(), "a list"),
    ];
    all.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect()
}

/// Finds the fields that are of several types. What may be anything is no field's mistake.
fn mixed(source: &Source, projection: &Projection, path: &str, kind: &Kind, findings: &mut Vec<Finding>) {
    let several = types(kind);
    if several.len() > 1 && several.len() < 6 && !path.is_empty() {
        let set = flows_of(projection)
            .filter(|(_, flow)| flow.field == path)
            .map(|(event, flow)| format!("{event}: `{}`", flow.text));
        let mut set: Vec<_> = set.collect();
        set.dedup();
        let message = format!("`{path}` is now {}", several.join(", now "));
        let help = format!("make it one type wherever it is set; it is set by {}", set.join("; "));
        findings.push(at_field(source, projection, path, message, help).of(Diagnosis::MixedTypes));
        return;
    }
    if several.len() > 1 {
        return;
    }
    if let Some(fields) = kind.as_object() {
        for (name, kind) in fields.known() {
            let inner = if path.is_empty() { name.as_str().to_owned() } else { format!("{path}.{}", name.as_str()) };
            mixed(source, projection, &inner, kind, findings);
        }
    } else if let Some(items) = kind.as_array() {
        mixed(source, projection, &format!("{path}[]"), &items.reduced_kind(), findings);
    }
}

fn flows_of(projection: &Projection) -> impl Iterator<Item = (&String, Flow)> {
    projection.on.iter().flat_map(|(event, program)| flows(&program.value).into_iter().map(move |flow| (event, flow)))
}

/// A finding where a field is set for the first time.
fn at_field(
    source: &Source,
    projection: &Projection,
    field: &str,
    message: String,
    help: impl Into<String>,
) -> Finding {
    let place = projection.on.values().find_map(|program| {
        let flow = flows(&program.value)
            .into_iter()
            .find(|flow| flow.field == field || flow.field == format!("[].{field}"))?;
        Some((program, flow.span))
    });
    let help = help.into();
    match place {
        Some((program, span)) => {
            let diagnostic =
                Diagnostic { message, span, label: "set here".to_owned(), help: Some(help), reason: Reason::Engine };
            Finding::in_program(source, program, &diagnostic)
        }
        None => Finding::at(source, projection.name.defined, message, help),
    }
}

pub(super) fn names(document: &Kind) -> Vec<String> {
    let known = document.as_object().map(Collection::known);
    known.into_iter().flatten().map(|(name, _)| name.as_str().to_owned()).collect()
}

/// The type at a path of names; through lists, as search documents have no lists.
fn field(document: &Kind, path: &str) -> Option<Kind> {
    path.split('.').try_fold(document.clone(), |kind, name| {
        let kind = inside(&kind);
        kind.as_object()?.known().get(&name.into()).cloned()
    })
}

fn inside(kind: &Kind) -> Kind {
    match kind.as_array() {
        Some(items) if kind.as_object().is_none() => inside(&items.reduced_kind()),
        _ => kind.clone(),
    }
}

/// Whether all that may be in there is known.
fn is_closed(document: &Kind, path: &str) -> bool {
    let mut kind = document.clone();
    for name in path.split('.') {
        let here = inside(&kind);
        let Some(fields) = here.as_object() else { return !here.is_any() };
        if fields.unknown_kind().contains_any_defined() {
            return false;
        }
        match fields.known().get(&name.into()) {
            Some(inner) => kind = inner.clone(),
            None => return true,
        }
    }
    true
}

/// A setting's field must be one that a program sets.
fn known(source: &Source, document: &Kind, path: &str, findings: &mut Vec<Finding>) -> bool {
    if field(document, path).is_some() || !is_closed(document, path) {
        return true;
    }
    let parent = path
        .rsplit_once('.')
        .and_then(|(parent, _)| field(document, parent))
        .map_or(document.clone(), |kind| inside(&kind));
    let names = names(&parent);
    let last = path.rsplit('.').next().unwrap_or(path);
    let near = names.iter().min_by_key(|name| distance(name, last)).filter(|name| distance(name, last) <= 3);
    let guess = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    let message = format!("no program sets `{path}`");
    findings.push(
        Finding::at_entry(source, path, message, format!("{guess}There are {}", names.join(", ")))
            .of(Diagnosis::Mapping),
    );
    false
}

fn elasticsearch(source: &Source, store: &ElasticsearchStore, document: &Kind, findings: &mut Vec<Finding>) {
    for (path, refined) in &store.fields {
        if !known(source, document, path, findings) {
            continue;
        }
        let mut refuse = |message: String, help: String| {
            findings.push(Finding::at_entry(source, path, message, help).of(Diagnosis::Mapping))
        };
        let Some(name) = refined.get("type").and_then(Json::as_str) else {
            if refined.get("properties").is_none() {
                refuse(
                    format!("the mapping of `{path}` has no type"),
                    "write `{ type: keyword }` or another type".to_owned(),
                );
            }
            continue;
        };
        let Some((_, takes)) = MAPPING_TYPES.iter().find(|(known, _)| *known == name) else {
            let near = MAPPING_TYPES
                .iter()
                .min_by_key(|(known, _)| distance(known, name))
                .map_or("keyword", |(known, _)| known);
            refuse(format!("`{path}`: there is no type `{name}`"), format!("did you mean `{near}`?"));
            continue;
        };
        let Some(kind) = field(document, path).map(|kind| inside(&kind)) else { continue };
        let letters = [
            (kind.contains_bytes() || kind.contains_regex(), 't'),
            (kind.contains_integer(), 'w'),
            (kind.contains_float(), 'n'),
            (kind.contains_boolean(), 'b'),
            (kind.contains_timestamp(), 'd'),
            (kind.contains_object(), 'o'),
        ];
        let found: Vec<char> = letters.iter().filter(|(is, _)| *is).map(|(_, letter)| *letter).collect();
        if found.len() < letters.len() && found.iter().any(|letter| !takes.contains(*letter)) {
            let is = types(&kind).join(" or ");
            refuse(
                format!("`{path}` is {is}, which the type `{name}` doesn't take"),
                "choose another type, or set another value".to_owned(),
            );
        }
    }
}

fn postgres(
    source: &Source,
    projection: &Projection,
    store: &PostgresStore,
    document: &Kind,
    findings: &mut Vec<Finding>,
) {
    for name in store.columns.keys().chain(store.indexes.iter().flatten()) {
        known(source, document, name, findings);
    }
    for name in names(document).into_iter().filter(|name| name.len() > 63) {
        let message = format!("`{name}` has more than the 63 bytes that a column's name may have");
        findings.push(at_field(source, projection, &name, message, "give it a shorter name").of(Diagnosis::Mapping));
    }
}
