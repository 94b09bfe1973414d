//! What is served, as OpenAPI 3.1: read off the declarations and the types that were inferred for their answers.

use super::endpoint::{Endpoint, Template};
use super::live::Served;
use super::parameters::TEXT_CHARS_MAX;
use super::path::PathPattern;
use crate::expr::Kind;
use crate::projection::{Parameter, ParameterType};
use serde_json::{Map, Value as Json, json};

/// The description of these queries.
pub(crate) fn document<'a>(queries: impl Iterator<Item = (&'a PathPattern, &'a Served)>) -> Json {
    let mut paths: Map<String, Json> = Map::new();
    for (path, served) in queries {
        let operation = operation(path, &served.endpoint, served.model.name());
        // Two queries of one path are told apart by what stands behind `?`: one operation with both meanings.
        match paths.get_mut(&path.path()) {
            None => _ = paths.insert(path.path(), json!({"get": operation})),
            Some(known) => merge(&mut known["get"], &operation),
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "projector serve", "version": env!("CARGO_PKG_VERSION"),
            "description": "Declared queries. Every path answers under /api too. What the parameters of freshness mean: docs/freshness.md.",
        },
        "paths": paths,
        "components": {"schemas": {"Problem": problem()}, "parameters": common(), "responses": refusals(), "headers": headers()},
    })
}

fn merge(known: &mut Json, other: &Json) {
    let summary = format!("{} Or: {}", text(&known["description"]), text(&other["description"]));
    known["description"] = summary.into();
    let theirs = other["parameters"].as_array().into_iter().flatten();
    let mut new: Vec<_> = Vec::new();
    if let Some(own) = known["parameters"].as_array() {
        new.extend(theirs.filter(|p| p["$ref"].is_null() && !own.iter().any(|o| o["name"] == p["name"])).cloned());
    }
    if let Some(own) = known["parameters"].as_array_mut() {
        own.extend(new);
    }
    let schema = "/responses/200/content/application~1json/schema";
    let (first, second) = (known.pointer(schema).cloned(), other.pointer(schema).cloned());
    if let (Some(first), Some(second), Some(place)) = (first, second, known.pointer_mut(schema)) {
        *place = json!({"anyOf": [first, second]});
    }
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_default()
}

fn operation(path: &PathPattern, endpoint: &Endpoint, read_model: &str) -> Json {
    let in_path: Vec<_> = path.parameters().collect();
    let mut parameters: Vec<Json> = Vec::new();
    for (name, parameter) in endpoint.parameters.all() {
        parameters.push(describe(name, parameter, in_path.contains(&name.as_str())));
    }
    for (name, value) in path.fixed() {
        parameters.push(
            json!({"in": "query", "name": name, "required": false, "schema": {"type": "string", "enum": [value]}}),
        );
    }
    let common =
        ["consistency_token", "consistency", "min_seq", "wait_ms", "Consistency-Token", "Prefer", "If-None-Match"];
    let has_min_seq = endpoint.about.is_some() || matches!(endpoint.template, Template::Document(_));
    let common = common.into_iter().filter(|name| has_min_seq || *name != "min_seq");
    parameters.extend(common.map(|name| json!({"$ref": format!("#/components/parameters/{name}")})));
    let schema = schema(&endpoint.answer_kind());
    let headers = [
        "ETag",
        "Read-Model",
        "Read-Model-Generation",
        "Read-Model-Position",
        "Read-Model-Lag-Ms",
        "Read-Model-Freshness",
    ];
    let headers: Map<String, Json> = headers
        .into_iter()
        .map(|name| (name.to_owned(), json!({"$ref": format!("#/components/headers/{name}")})))
        .collect();
    let content = json!({
        "application/json": {"schema": schema, "example": example(&schema)},
        "text/csv": {"schema": {"type": "string"}},
        "text/event-stream": {"schema": {"type": "string"}},
    });
    let mut responses = Map::new();
    responses.insert("200".into(), json!({"description": "the answer", "headers": headers, "content": content}));
    responses.insert("304".into(), json!({"description": "the answer is still the one that If-None-Match names"}));
    let is_one = matches!(endpoint.template, Template::Document(_)) || endpoint.query.one;
    for (status, _, _) in REFUSALS.iter().filter(|(status, ..)| is_one || *status != 404) {
        responses.insert(status.to_string(), json!({"$ref": format!("#/components/responses/{status}")}));
    }
    let description = endpoint.query.description.trim();
    let mut operation = json!({
        "operationId": format!("get {}", endpoint.query.get.value), "summary": description.split(['.', ';']).next().unwrap_or_default(),
        "description": description, "tags": [read_model], "parameters": parameters, "responses": responses,
    });
    if !endpoint.query.roles.is_empty() {
        operation["x-roles"] = json!(endpoint.query.roles);
    }
    if !endpoint.query.row_filter.is_empty() {
        operation["x-row-filter"] = json!(endpoint.query.row_filter);
    }
    operation
}

fn describe(name: &str, parameter: &Parameter, in_path: bool) -> Json {
    let mut schema = match parameter.kind {
        ParameterType::String if parameter.values.is_empty() => {
            json!({"type": "string", "minLength": 1, "maxLength": parameter.max.unwrap_or(TEXT_CHARS_MAX)})
        }
        ParameterType::String => json!({"type": "string", "enum": parameter.values}),
        ParameterType::Integer => {
            let (min, max) = (parameter.min.unwrap_or(i64::MIN), parameter.max.unwrap_or(i64::MAX));
            json!({"type": "integer", "format": "int64", "minimum": min, "maximum": max})
        }
        ParameterType::Boolean => json!({"type": "boolean"}),
        ParameterType::Date => json!({"type": "string", "format": "date"}),
        ParameterType::Uuid => json!({"type": "string", "format": "uuid"}),
    };
    match &parameter.default {
        // `today` is a day only when it is asked.
        Some(Json::String(day)) if day.starts_with("today") => {
            schema["description"] = format!("{day} by default").into()
        }
        Some(default) => schema["default"] = default.clone(),
        None => {}
    }
    let example = parameter.example.clone().or_else(|| parameter.values.first().map(|v| v.as_str().into()));
    let example = example.unwrap_or_else(|| match parameter.kind {
        ParameterType::String => "text".into(),
        ParameterType::Integer => parameter.min.unwrap_or(1).max(1).min(parameter.max.unwrap_or(i64::MAX)).into(),
        ParameterType::Boolean => true.into(),
        ParameterType::Date => "2026-05-23".into(),
        ParameterType::Uuid => "0192f0c1-1111-7000-8000-000000000001".into(),
    });
    let mut described = json!({
        "in": if in_path { "path" } else { "query" }, "name": name, "required": in_path || parameter.required,
        "description": parameter.doc, "schema": schema,
    });
    if name != "cursor" {
        described["example"] = example;
    }
    described
}

/// A type as JSON Schema.
pub(crate) fn schema(kind: &Kind) -> Json {
    schema_to(kind, 0)
}

/// Deeper than any answer; a type that holds itself ends here.
const DEPTH_MAX: usize = 8;

fn schema_to(kind: &Kind, depth: usize) -> Json {
    if depth > DEPTH_MAX || kind.is_any() || kind.is_json() {
        return json!({});
    }
    let mut any_of: Vec<Json> = Vec::new();
    if kind.contains_bytes() {
        any_of.push(json!({"type": "string"}));
    }
    if kind.contains_timestamp() {
        any_of.push(json!({"type": "string", "format": "date-time"}));
    }
    if kind.contains_integer() {
        any_of.push(json!({"type": "integer", "format": "int64"}));
    }
    if kind.contains_float() {
        any_of.push(json!({"type": "number"}));
    }
    if kind.contains_boolean() {
        any_of.push(json!({"type": "boolean"}));
    }
    if let Some(items) = kind.as_array() {
        any_of.push(json!({"type": "array", "items": schema_to(&items.reduced_kind().without_undefined(), depth + 1)}));
    }
    if let Some(fields) = kind.as_object() {
        let known = fields.known().iter();
        let properties: Map<String, Json> = known
            .clone()
            .map(|(name, kind)| (name.to_string(), schema_to(&kind.clone().without_undefined(), depth + 1)))
            .collect();
        let required: Vec<_> =
            known.filter(|(_, kind)| !kind.contains_undefined()).map(|(name, _)| name.to_string()).collect();
        let mut object = json!({"type": "object", "properties": properties});
        // Of a document it isn't promised: fields come with the events that set them.
        if depth == 0 && !required.is_empty() {
            object["required"] = json!(required);
        }
        any_of.push(object);
    }
    if kind.contains_null() || kind.contains_undefined() {
        any_of.push(json!({"type": "null"}));
    }
    match any_of.len() {
        0 => json!({}),
        1 => any_of.swap_remove(0),
        _ => json!({"anyOf": any_of}),
    }
}

/// A value that fits a schema of ours.
fn example(schema: &Json) -> Json {
    if let Some(first) = schema["anyOf"].as_array().and_then(|all| all.first()) {
        return example(first);
    }
    match (text(&schema["type"]), text(&schema["format"])) {
        ("string", "date-time") => json!("2026-05-23T10:00:00.123000Z"),
        ("string", _) => json!("text"),
        ("integer", _) => json!(1),
        ("number", _) => json!(1.5),
        ("boolean", _) => json!(true),
        ("array", _) => json!([example(&schema["items"])]),
        ("object", _) => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            Json::Object(properties.map(|(name, schema)| (name.clone(), example(schema))).collect())
        }
        _ => Json::Null,
    }
}

/// Status, problems of that status, meaning.
const REFUSALS: [(u16, &str, &str); 4] = [
    (400, "invalid-parameter, invalid-token, bad-request, answer-too-large", "the request can't be answered as it is"),
    (404, "not-found", "there is no such document"),
    (
        409,
        "unknown-epoch, unknown-event",
        "the token is of another life of the write database, or names an event that there isn't",
    ),
    (
        503,
        "read-model-behind, parked, store-unavailable, write-side-unavailable, overloaded, timed-out, not-ready",
        "not now; `Retry-After` says when to try again",
    ),
];

fn refusals() -> Map<String, Json> {
    let one = |(status, types, meaning): &(u16, &str, &str)| {
        let names: Vec<_> = types.split(", ").map(|name| format!("/problems/{name}")).collect();
        let example = json!({"type": names[0], "title": meaning, "status": status, "detail": meaning});
        let content = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}});
        (status.to_string(), json!({"description": format!("{meaning}: {}", names.join(", ")), "content": content}))
    };
    REFUSALS.iter().map(one).collect()
}

fn problem() -> Json {
    json!({
        "type": "object", "required": ["type", "title", "status", "detail"], "description": "RFC 9457",
        "properties": {
            "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"},
            "parameter": {"type": "string", "description": "the parameter to blame"},
            "read_model": {"type": "string"}, "lag_ms": {"type": "integer"}, "required": {}, "reached": {},
        },
    })
}

fn common() -> Json {
    let wait = "How long to wait for what is asked, in ms; 1000 by default.";
    json!({
        "consistency_token": {"in": "query", "name": "consistency_token", "required": false, "schema": {"type": "string"},
            "description": "What a command answered: the answer holds what it wrote. Several: repeated, or with commas."},
        "Consistency-Token": {"in": "header", "name": "Consistency-Token", "required": false, "schema": {"type": "string"},
            "description": "As the parameter consistency_token."},
        "consistency": {"in": "query", "name": "consistency", "required": false, "schema": {"type": "string", "enum": ["eventual", "strong"]},
            "description": "strong: the answer holds all that was committed when the request came."},
        "min_seq": {"in": "query", "name": "min_seq", "required": false, "schema": {"type": "integer", "format": "int64", "minimum": 0},
            "description": "The aggregate's own sequence that the answer must hold at least; the short form of a token."},
        "wait_ms": {"in": "query", "name": "wait_ms", "required": false, "description": wait,
            "schema": {"type": "integer", "minimum": 0, "maximum": 5000, "default": 1000}},
        "Prefer": {"in": "header", "name": "Prefer", "required": false, "schema": {"type": "string"}, "example": "stale-ok",
            "description": "stale-ok: at the time limit rather the stale answer, marked as such, than 503."},
        "If-None-Match": {"in": "header", "name": "If-None-Match", "required": false, "schema": {"type": "string"},
            "description": "An ETag; 304 if the answer is still the same."},
    })
}

fn headers() -> Json {
    let header = |kind: &str, meaning: &str| json!({"schema": {"type": kind}, "description": meaning});
    json!({
        "ETag": header("string", "names this very answer"),
        "Read-Model": header("string", "which read model answered"),
        "Read-Model-Generation": header("integer", "which generation of it"),
        "Read-Model-Position": header("integer", "how many messages that has handled at least"),
        "Read-Model-Lag-Ms": header("integer", "how far it is behind; absent when nobody knows"),
        "Read-Model-Freshness": header("string", "`stale` where the answer lacks something that was asked for, or is the write database's"),
    })
}
