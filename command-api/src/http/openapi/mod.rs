//! The description of all endpoints, as OpenAPI 3.1: made while the routes are added, so that neither can lack the other.

pub(super) mod schema;

use axum::Router;
use axum::body::Bytes;
use axum::handler::Handler;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use axum::routing::{self, MethodRouter};
use serde_json::{Map, Value as Json, json};

use super::consistency;
use crate::store::Store;

/// HTTP's methods that are offered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verb {
    Get,
    Post,
    Patch,
    Delete,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    fn to<H: Handler<T, Store>, T: 'static>(self, handler: H) -> MethodRouter<Store> {
        match self {
            Self::Get => routing::get(handler),
            Self::Post => routing::post(handler),
            Self::Patch => routing::patch(handler),
            Self::Delete => routing::delete(handler),
        }
    }
}

/// What an endpoint takes and gives.
#[derive(Debug)]
pub(super) struct Operation {
    summary: &'static str,
    body: Option<Json>,
    query: Vec<(&'static str, &'static str)>,
    status: u16,
    reply: Json,
    command: bool,
}

impl Operation {
    /// Changes something. `reply` are the fields beside sequence and token.
    pub(super) fn command(summary: &'static str, status: u16, reply: &[(&str, Json)]) -> Self {
        let common = [("sequence_number", schema::integer(1, i64::MAX)), ("consistency_token", schema::text())];
        let fields: Vec<(&str, Json)> = reply.iter().cloned().chain(common).collect();
        let mut reply = schema::answer(&fields);
        reply["properties"]["read_models"] = consistency::schema();
        Self { summary, body: None, query: vec![], status, reply, command: true }
    }

    /// Only looks.
    pub(super) fn look(summary: &'static str, reply: Json) -> Self {
        Self { summary, body: None, query: vec![], status: 200, reply, command: false }
    }

    pub(super) fn body(self, schema: Json) -> Self {
        Self { body: Some(schema), ..self }
    }

    pub(super) fn query(mut self, name: &'static str, meaning: &'static str) -> Self {
        self.query.push((name, meaning));
        self
    }

    fn describe(self, verb: Verb, path: &str) -> Json {
        let text = |place: &str, name: &str, required: bool, meaning: &str| json!({"in": place, "name": name, "required": required, "description": meaning, "schema": {"type": "string"}});
        let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut parameters: Vec<Json> = in_path.map(|name| text("path", name, true, "an id")).collect();
        parameters.extend(self.query.iter().map(|(name, meaning)| text("query", name, false, meaning)));
        if self.command {
            for (name, meaning) in [
                ("Idempotency-Key", "makes retries safe: the same key gives the first answer again"),
                ("If-Match", "the sequence that the client knows, as in the ETag of an answer"),
                (
                    "Prefer",
                    "wait=order_summary,order_details; wait_ms=1000: answer once these read models show it; respond-async: at once",
                ),
                ("X-User-Id", "who asks; goes with the events"),
                ("X-Correlation-Id", "what this is part of; goes with the events"),
                ("X-Causation-Id", "what caused this; goes with the events"),
            ] {
                parameters.push(text("header", name, false, meaning));
            }
        }
        let problem = |meaning: &str| json!({"description": meaning, "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}});
        let mut responses = Map::new();
        let reply = json!({"description": "done", "content": {"application/json": {"schema": self.reply}}});
        responses.insert(self.status.to_string(), reply);
        let mut refusals = vec![(400, "malformed"), (404, "not found"), (503, "the write database is down; try again")];
        if self.command {
            refusals.extend([
                (409, "others were faster, or the same command is under way; try again"),
                (412, "another sequence than the client knows"),
                (413, "too large"),
                (422, "a rule forbids it, or names an unknown id"),
            ]);
        }
        for (status, meaning) in refusals {
            responses.insert(status.to_string(), problem(meaning));
        }
        let id = format!("{} {path}", verb.name());
        let mut operation =
            json!({"operationId": id, "summary": self.summary, "parameters": parameters, "responses": responses});
        if let Some(body) = self.body {
            operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": body}}});
        }
        operation
    }
}

/// Routes with their description.
#[derive(Debug, Default)]
pub(super) struct Api {
    router: Router<Store>,
    paths: Map<String, Json>,
    commands: Vec<String>,
}

impl Api {
    pub(super) fn on<H: Handler<T, Store>, T: 'static>(
        mut self,
        verb: Verb,
        path: &str,
        handler: H,
        operation: Operation,
    ) -> Self {
        if operation.command {
            self.commands.push(format!("{} {path}", verb.name().to_uppercase()));
        }
        let known = self.paths.entry(path).or_insert_with(|| json!({}));
        known[verb.name()] = operation.describe(verb, path);
        Self { router: self.router.route(path, verb.to(handler)), ..self }
    }

    /// What changes something, such as `POST /orders`.
    pub(super) fn commands(self) -> Vec<String> {
        self.commands
    }

    /// The routes, with the description at `/openapi.json` and, for people, at `/docs`.
    pub(super) fn finish(self) -> Router<Store> {
        let document = json!({
            "openapi": "3.1.0",
            "info": {"title": "command-api", "version": env!("CARGO_PKG_VERSION"),
                     "description": "Commands of the shop and its accounts. Every path answers under /api too."},
            "paths": self.paths,
            "components": {"schemas": {"Problem": schema::problem()}},
        });
        // Bytes, as handlers are cloned with what they hold.
        let (page, document) = (Bytes::from(page(&document)), Bytes::from(document.to_string()));
        self.router
            .route(
                "/openapi.json",
                routing::get(async move || ([(CONTENT_TYPE, "application/json")], document.clone())),
            )
            .route("/docs", routing::get(async move || Html(page.clone())))
    }
}

/// The same for people: no scripts, nothing from elsewhere.
fn page(document: &Json) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let mut html = "<!doctype html><meta charset=utf-8><title>command-api</title>\
        <style>body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}code,pre{font-size:13px}\
        pre{background:#f4f4f4;padding:.7em;overflow:auto}summary{cursor:pointer}</style><h1>command-api</h1>\
        <p>The machine's version: <a href=openapi.json>openapi.json</a>."
        .to_owned();
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        for (verb, operation) in operations.as_object().into_iter().flatten() {
            let summary = escape(operation["summary"].as_str().unwrap_or_default());
            html.push_str(&format!(
                "<details><summary><code>{} {path}</code> {summary}</summary>",
                verb.to_uppercase()
            ));
            for (label, part) in [
                ("Takes", &operation["requestBody"]["content"]["application/json"]["schema"]),
                (
                    "Gives",
                    operation["responses"].as_object().and_then(|all| all.values().next()).unwrap_or(&Json::Null),
                ),
            ] {
                if !part.is_null() {
                    html.push_str(&format!("<p>{label}<pre>{}</pre>", escape(&format!("{part:#}"))));
                }
            }
            html.push_str("</details>");
        }
    }
    html
}
