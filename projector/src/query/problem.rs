//! Answers that are no answer: RFC 9457 problem details with stable types.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value as Json};

/// A problem; `name` makes its type, `/problems/<name>`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) name: &'static str,
    title: &'static str,
    detail: String,
    retry_after_s: Option<u32>,
    // Boxed: it is the rare way of every result.
    members: Box<Map<String, Json>>,
}

impl Problem {
    fn new(status: StatusCode, name: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, name, title, detail: detail.into(), retry_after_s: None, members: Box::default() }
    }

    /// A parameter that is unknown, missing, given twice or of the wrong form.
    pub(crate) fn parameter(parameter: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-parameter", "a parameter can't be used", detail)
            .with("parameter", parameter)
    }

    /// Parameters that don't go together, or a request that no parameter is to blame for.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "the request can't be answered", detail)
    }

    /// A token that can't be read.
    pub(crate) fn token(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-token", "the consistency token can't be read", detail)
            .with("parameter", "consistency_token")
    }

    /// No query has this path.
    pub(crate) fn no_such_path(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-path",
            "no query has this path",
            format!("no read model declares a query for `{path}`"),
        )
    }

    /// No live read model has this name.
    pub(crate) fn no_such_read_model(name: &str) -> Self {
        let detail = format!("no live read model is called `{name}`");
        Self::new(StatusCode::NOT_FOUND, "no-such-read-model", "there is no such read model", detail)
    }

    /// The read model has no such document.
    pub(crate) fn not_found(read_model: &str, key: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "there is no such document",
            format!("{read_model} has no document `{key}`"),
        )
        .with("read_model", read_model)
    }

    /// Queries are read with GET.
    pub(crate) fn method(method: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "queries are read with GET",
            format!("{method} is not offered here"),
        )
    }

    /// The token is of another life of the source database.
    pub(crate) fn unknown_epoch(read_model: &str, token: &str, reached: &str) -> Self {
        let detail = "the token is of another epoch of the source database than the read model's; after a fail-over or a restore, \
                      transaction ids repeat, so whether it is reached can't be known: read without it, or write again";
        Self::new(StatusCode::CONFLICT, "unknown-epoch", "the token is of another epoch", detail)
            .with("read_model", read_model)
            .with("token_epoch", token)
            .with("read_model_epoch", reached)
    }

    /// What is required is a dead letter, or waits behind one.
    pub(crate) fn parked(read_model: &str, required: Json) -> Self {
        let detail = "what was required couldn't be applied to the read model, or waits behind an event that couldn't; operators see it \
                      in `projector dlq list`; reads without a token go on";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "parked", "blocked by a dead letter", detail)
            .retry_after(60)
            .with("read_model", read_model)
            .with("required", required)
    }

    /// The time limit passed before the read model had what was required.
    pub(crate) fn behind(read_model: &str, required: Json, reached: Json, lag_ms: u64, connected: bool) -> Self {
        let detail = if connected {
            "the read model doesn't have what was required yet; try again, or wait longer (wait_ms, at most 5000)"
        } else {
            "how far the read model is can't be learned now, the control store doesn't answer; reads without a token go on"
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "read-model-behind", "the read model is behind", detail)
            .retry_after(1)
            .with("read_model", read_model)
            .with("required", required)
            .with("reached", reached)
            .with("lag_ms", lag_ms)
    }

    /// The token names an event that was never committed.
    pub(crate) fn no_such_event(required: Json) -> Self {
        let detail = "the token names an event that the write database doesn't have: its command was never committed, or the database was \
                      restored to before it; drop the token";
        Self::new(StatusCode::CONFLICT, "unknown-event", "the token names an event that there isn't", detail)
            .with("required", required)
    }

    /// The write database had to be asked, and gave no answer.
    pub(crate) fn write_side(read_model: &str, why: &str) -> Self {
        let detail = format!("the write database had to be asked, and gave no answer: {why}");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "write-side-unavailable",
            "the write database doesn't answer",
            detail,
        )
        .retry_after(5)
        .with("read_model", read_model)
    }

    /// The answer is larger than the query may answer.
    pub(crate) fn too_large(bytes_max: usize) -> Self {
        let detail = format!("the answer has more than {bytes_max} bytes; ask for less, by pages or filters");
        Self::new(StatusCode::BAD_REQUEST, "answer-too-large", "the answer is too large", detail)
    }

    /// More subscribers than are let in.
    pub(crate) fn subscribers() -> Self {
        let detail = "more subscribers than this service takes; ask without `Accept: text/event-stream`, or later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "too many subscribers", detail).retry_after(5)
    }

    /// The store is down or didn't answer in time.
    pub(crate) fn store(read_model: &str) -> Self {
        let detail = format!("the store of {read_model} doesn't answer; the log says why");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "the read store doesn't answer", detail)
            .retry_after(1)
            .with("read_model", read_model)
    }

    /// Nothing is live, or the control store wasn't reached yet.
    pub(crate) fn not_ready(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "no read model is served yet", detail).retry_after(1)
    }

    /// More requests than are let in at a time.
    pub(crate) fn overloaded() -> Self {
        let detail = "more requests than this service takes at a time";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "too many requests at a time", detail).retry_after(1)
    }

    /// The request took longer than any may.
    pub(crate) fn timed_out() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "timed-out",
            "the request took too long",
            "the time limit of a request passed",
        )
        .retry_after(1)
    }

    /// Our own fault.
    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the query failed", detail)
    }

    /// Whether it is the store's fault or ours, rather than that of the question or of events that haven't come yet.
    pub(crate) fn is_failure(&self) -> bool {
        ["store-unavailable", "internal"].contains(&self.name)
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    fn with(mut self, member: &str, value: impl Into<Json>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// The body.
    pub(crate) fn body(&self) -> Json {
        let mut body = Map::new();
        body.insert("type".into(), format!("/problems/{}", self.name).into());
        body.insert("title".into(), self.title.into());
        body.insert("status".into(), self.status.as_u16().into());
        body.insert("detail".into(), self.detail.clone().into());
        body.extend((*self.members).clone());
        Json::Object(body)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(axum::http::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}
