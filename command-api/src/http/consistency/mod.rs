//! When a command is answered: at once (async), or when read models show what it wrote (sync), as the client asks or, if it
//! doesn't, as is set for that command (hybrid).
//!
//! Async is the default and the cheapest: whoever reads what it has written passes the command's token on to its query. A client
//! that can't (what it goes to next is drawn by somebody else) asks the command to wait: `Prefer: wait=order_summary,order_details`.
//! Some commands may have a list of their own by configuration, which `Prefer: respond-async` declines.
//!
//! # How this service learns what a read model has
//! It asks the query service: `GET /freshness/{read_model}` with the command's token, one request a read model, all at once. That
//! sleeps on the projector's notifications and answers when the read model has handled every event of the token; no polling here
//! or there. The token, which is opaque to all but who makes and reads it, and that path are all that this side knows of the
//! projector: neither its tables in the control store, which change with it, nor which read models there are.
//!
//! # What a late read model means
//! The wait begins after the commit, so nothing that comes of it is a failure of the command: its status stays, and
//! `read_models` in the answer says of each whether it is `visible`, else why not. Saying 503 would invite the client to repeat
//! what has happened. The wait is bounded (`wait_ms`, at most 5,000), holds no connection to the database, and doesn't count against the
//! command's own time limit. A retry with the same key waits again, for the first answer's token.

mod ask;
mod prefer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use serde_json::{Map, Value as Json, json};
use tokio::sync::Semaphore;

use super::answer::{Told, with_body};
use super::routes;
use ask::{QueryService, Seen};
use prefer::{Preference, READ_MODELS_MAX, is_name};

/// How long a command waits if the client doesn't say.
const WAIT_DEFAULT: Duration = Duration::from_millis(1_000);
/// Commands that wait at a time; more are answered at once, and say so.
const WAITING_MAX: usize = 1_024;
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Which commands wait for what by themselves, and who is asked.
#[derive(Clone, Debug)]
pub struct Consistency {
    service: Option<QueryService>,
    /// Read models by command, such as `POST /payments`.
    defaults: Arc<BTreeMap<String, Vec<String>>>,
    waiting: Arc<Semaphore>,
}

/// Settings that can't be followed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ConsistencyError {
    #[error("`{0}` is not of the form `POST /payments=order_summary,order_details`")]
    Malformed(String),
    #[error("there is no command `{command}`; there are: {known}")]
    UnknownCommand { command: String, known: String },
    #[error("`{0}` names more than {READ_MODELS_MAX} read models")]
    TooMany(String),
    #[error("`{0}` has to wait for read models, but no query service is named that could be asked: set QUERY_URL")]
    NobodyToAsk(String),
    #[error("the HTTP client for the query service: {0}")]
    Client(#[from] reqwest::Error),
}

impl Consistency {
    /// All commands are answered at once, whatever is preferred.
    #[must_use]
    pub fn none() -> Self {
        Self { service: None, defaults: Arc::default(), waiting: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// Asks the query service at `query_url`. Each of `waits` is a command with what it waits for by default, such as
    /// `POST /payments=order_summary,order_details`.
    ///
    /// # Errors
    /// [`ConsistencyError`]: a text that can't be read, a command that there isn't.
    pub fn new(query_url: Option<&str>, waits: &[String]) -> Result<Self, ConsistencyError> {
        let service = query_url.filter(|url| !url.is_empty()).map(QueryService::new).transpose()?;
        let known = routes::api().commands();
        let mut defaults = BTreeMap::new();
        for text in waits.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            let malformed = || ConsistencyError::Malformed(text.to_owned());
            let (command, names) = text.split_once('=').ok_or_else(malformed)?;
            let names: Vec<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
            if names.iter().any(|name| !is_name(name)) {
                return Err(malformed());
            }
            if names.len() > READ_MODELS_MAX {
                return Err(ConsistencyError::TooMany(text.to_owned()));
            }
            let command = command.trim().to_owned();
            if !known.contains(&command) {
                return Err(ConsistencyError::UnknownCommand { command, known: known.join(", ") });
            }
            if service.is_none() {
                return Err(ConsistencyError::NobodyToAsk(command));
            }
            defaults.insert(command, names);
        }
        Ok(Self { service, defaults: Arc::new(defaults), ..Self::none() })
    }

    fn by_default(&self, request: &Request) -> Vec<String> {
        let Some(path) = request.extensions().get::<MatchedPath>() else { return Vec::new() };
        let path = path.as_str().strip_prefix("/api").unwrap_or(path.as_str());
        self.defaults.get(&format!("{} {path}", request.method())).cloned().unwrap_or_default()
    }

    /// What each read model has to say, in the order in which they were named.
    async fn look(&self, names: &[String], token: &str, wait: Duration) -> Vec<Seen> {
        let all = |why: &'static str, detail: &str| names.iter().map(|_| Seen::late(why, detail)).collect();
        let Some(service) = &self.service else {
            return all("not-asked", "this service knows no query service that it could ask");
        };
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return all("not-asked", "too many commands wait for read models at this time");
        };
        join_all(names.iter().map(|name| service.ask(name, token, wait))).await
    }
}

/// Around all endpoints: lets the answers of commands wait.
pub(super) async fn wait(State(consistency): State<Consistency>, request: Request, next: Next) -> Response {
    let preference = match prefer::read(request.headers()) {
        Ok(preference) => preference,
        Err(problem) => return problem.into_response(),
    };
    let (names, wait) = match preference {
        Preference::Unsaid => (consistency.by_default(&request), WAIT_DEFAULT),
        Preference::Async => (Vec::new(), WAIT_DEFAULT),
        Preference::Wait { read_models, wait } => (read_models, wait.unwrap_or(WAIT_DEFAULT)),
    };
    let mut response = next.run(request).await;
    let Some(told) = response.extensions_mut().remove::<Told>().filter(|_| !names.is_empty()) else { return response };
    let look = consistency.look(&names, &told.token, wait);
    let seen = telemetry::within("wait for read models", &[("read_models", &names.join(","))], look).await;
    let mut body = told.body;
    body["read_models"] =
        Json::Object(names.iter().cloned().zip(seen.iter().map(Seen::to_json)).collect::<Map<_, _>>());
    let visible = names.iter().zip(&seen).filter(|(_, seen)| seen.is_visible()).map(|(name, _)| name.as_str());
    let visible = visible.collect::<Vec<_>>().join(",");
    let mut response = with_body(response, &body);
    if let (false, Ok(applied)) = (visible.is_empty(), HeaderValue::from_str(&format!("wait=\"{visible}\""))) {
        response.headers_mut().insert(APPLIED, applied);
    }
    response
}

/// For the description of commands.
pub(super) fn schema() -> Json {
    json!({
        "type": "object",
        "description": "where the command was to wait for read models: of each, whether it shows what the command wrote",
        "additionalProperties": {
            "type": "object",
            "required": ["visible"],
            "properties": {
                "visible": {"type": "boolean"},
                "reason": {"type": "string", "description": "why it isn't visible, such as read-model-behind"},
                "detail": {"type": "string"},
                "lag_ms": {"type": "integer"},
            },
        },
    })
}

#[cfg(test)]
mod tests;
