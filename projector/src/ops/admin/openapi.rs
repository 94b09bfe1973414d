//! The description of all routes, as OpenAPI 3.1: made while the routes are added, so that neither can lack the other.

use super::Admin;
use axum::Router;
use axum::body::Bytes;
use axum::handler::Handler;
use axum::http::header::CONTENT_TYPE;
use axum::routing;
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;

/// What a route takes and gives.
#[derive(Debug, Default)]
pub(super) struct Operation {
    summary: &'static str,
    query: Vec<(&'static str, &'static str, bool)>,
    /// Of a change.
    body: Option<Fields>,
    reply: Json,
}

/// The fields of a change beside `by` and `reason`, and which of them must be there.
#[derive(Debug, Default)]
struct Fields {
    all: Vec<(&'static str, Json)>,
    required: Vec<&'static str>,
}

/// Looks only; `reply` are the answer's fields.
pub(super) fn look(summary: &'static str, reply: &[(&str, Json)]) -> Operation {
    Operation { summary, reply: answer(reply), ..Operation::default() }
}

/// Changes something.
pub(super) fn act(summary: &'static str, reply: &[(&str, Json)]) -> Operation {
    Operation { body: Some(Fields::default()), ..look(summary, reply) }
}

impl Operation {
    pub(super) fn query(mut self, name: &'static str, meaning: &'static str) -> Self {
        self.query.push((name, meaning, false));
        self
    }

    pub(super) fn needs(mut self, name: &'static str, meaning: &'static str) -> Self {
        self.query.push((name, meaning, true));
        self
    }

    /// A field that a change must name.
    pub(super) fn with(mut self, name: &'static str, schema: Json) -> Self {
        if let Some(fields) = &mut self.body {
            fields.all.push((name, schema));
            fields.required.push(name);
        }
        self
    }

    /// A field that a change may name.
    pub(super) fn may(mut self, name: &'static str, schema: Json) -> Self {
        if let Some(fields) = &mut self.body {
            fields.all.push((name, schema));
        }
        self
    }

    fn describe(self, verb: &str, path: &str) -> Json {
        let text = |place: &str, name: &str, required: bool, meaning: &str| {
            let schema = json!({"type": "string", "minLength": 1});
            json!({"in": place, "name": name, "required": required, "description": meaning, "schema": schema})
        };
        let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut parameters: Vec<Json> = in_path.map(|name| text("path", name, true, "which one")).collect();
        parameters.extend(self.query.iter().map(|(name, meaning, must)| text("query", name, *must, meaning)));
        let mut responses = Map::new();
        let reply = json!({"description": "done", "content": {"application/json": {"schema": self.reply}}});
        responses.insert("200".to_owned(), reply);
        let mut refusals = vec![
            (400, "the request can't be read"),
            (401, "the token is missing or wrong"),
            (403, "not from here, or no token is set; the detail says what to set"),
            (404, "what is named isn't there"),
            (409, "it can't be done as things are; the detail says what to do first"),
            (500, "it failed"),
            (503, "something that is needed doesn't answer"),
        ];
        if self.body.is_some() {
            refusals.extend([(413, "too large"), (415, "not JSON"), (422, "not of this form")]);
        }
        for (status, meaning) in refusals {
            let schema = json!({"$ref": "#/components/schemas/Problem"});
            let problem = json!({"description": meaning, "content": {"application/problem+json": {"schema": schema}}});
            responses.insert(status.to_string(), problem);
        }
        let mut operation = json!({
            "operationId": format!("{verb} {path}"), "summary": self.summary, "parameters": parameters,
            "responses": responses,
        });
        if let Some(Fields { all, required }) = self.body {
            let who =
                json!({"type": "string", "minLength": 1, "maxLength": 200, "description": "who does it, for the log"});
            let why = json!({"type": "string", "minLength": 1, "maxLength": 1000, "description": "why, for those who ask later"});
            let all = all.into_iter().chain([("by", who), ("reason", why)]);
            let properties: Map<String, Json> = all.map(|(name, schema)| (name.to_owned(), schema)).collect();
            let required: Vec<&str> = required.into_iter().chain(["by", "reason"]).collect();
            let schema = json!({
                "type": "object", "required": required, "properties": properties, "additionalProperties": false,
            });
            operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
        }
        operation
    }
}

/// An answer: fields may be added to it later.
fn answer(fields: &[(&str, Json)]) -> Json {
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Json> = fields.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect();
    json!({"type": "object", "required": names, "properties": properties})
}

/// A text.
pub(super) fn text() -> Json {
    json!({"type": "string"})
}

/// Some of these.
pub(super) fn list(items: &Json) -> Json {
    json!({"type": "array", "items": items})
}

/// A thing whose fields the manual describes.
pub(super) fn thing() -> Json {
    json!({"type": "object"})
}

/// Yes or no.
pub(super) fn flag() -> Json {
    json!({"type": "boolean"})
}

/// Routes with their description.
#[derive(Default)]
pub(super) struct Api {
    router: Router<Arc<Admin>>,
    paths: Map<String, Json>,
}

impl Api {
    pub(super) fn get<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Arc<Admin>>,
        T: 'static,
    {
        self.on("get", path, routing::get(handler), operation)
    }

    pub(super) fn post<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Arc<Admin>>,
        T: 'static,
    {
        self.on("post", path, routing::post(handler), operation)
    }

    pub(super) fn put<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Arc<Admin>>,
        T: 'static,
    {
        self.on("put", path, routing::put(handler), operation)
    }

    fn on(mut self, verb: &str, path: &str, route: routing::MethodRouter<Arc<Admin>>, operation: Operation) -> Self {
        let known = self.paths.entry(path).or_insert_with(|| json!({}));
        known[verb] = operation.describe(verb, path);
        Self { router: self.router.route(path, route), ..self }
    }

    /// The routes, with the description at `/openapi.json`.
    pub(super) fn finish(self) -> Router<Arc<Admin>> {
        let problem = json!({
            "type": "object", "required": ["type", "title", "status", "detail"], "description": "RFC 9457",
            "properties": {
                "type": text(), "title": text(), "status": {"type": "integer"}, "detail": text(),
                "findings": {"type": "array", "items": thing(), "description": "what is wrong in the projections, each with its place"},
            },
        });
        let document = json!({
            "openapi": "3.1.0",
            "info": {"title": "projector admin", "version": env!("CARGO_PKG_VERSION"),
                     "description": "What operators look at and do, as the command line does it. The manual is docs/admin.md."},
            "security": [{"token": []}],
            "paths": self.paths,
            "components": {
                "schemas": {"Problem": problem},
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "--admin-token (ADMIN_TOKEN)"}},
            },
        });
        // Bytes, as handlers are cloned with what they hold.
        let document = Bytes::from(document.to_string());
        let description = routing::get(async move || ([(CONTENT_TYPE, "application/json")], document.clone()));
        self.router.route("/openapi.json", description)
    }
}
