//! Answers that are no answer: RFC 9457 problem details with stable types.

use crate::control::ControlError;
use crate::generation::JobError;
use crate::verbs::{VerbError, finding_json};
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

/// A problem; `name` makes its type, `/problems/<name>`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    name: &'static str,
    title: &'static str,
    pub(crate) detail: String,
    findings: Vec<Json>,
}

impl Problem {
    fn new(status: StatusCode, name: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, name, title, detail: detail.into(), findings: Vec::new() }
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "the request can't be read", detail)
    }

    pub(crate) fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "who asks isn't known", detail)
    }

    pub(crate) fn forbidden(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "this isn't allowed", detail)
    }

    pub(crate) fn no_such_path(path: &str) -> Self {
        let detail = format!("there is nothing at `{path}`; /openapi.json describes what there is");
        Self::new(StatusCode::NOT_FOUND, "no-such-path", "there is no such path", detail)
    }

    pub(crate) fn busy() -> Self {
        let detail = "more watchers than this process takes; close some of their pages";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "too many watchers", detail)
    }
}

impl From<VerbError> for Problem {
    fn from(error: VerbError) -> Self {
        let detail = error.to_string();
        let away = |what| Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", what, detail.clone());
        let refused = || Self::new(StatusCode::CONFLICT, "refused", "it can't be done as things are", detail.clone());
        match error {
            VerbError::NotFound(_) => {
                Self::new(StatusCode::NOT_FOUND, "not-found", "what is named isn't there", detail)
            }
            VerbError::Findings(findings) => Self {
                findings: findings.iter().map(finding_json).collect(),
                ..Self::new(StatusCode::CONFLICT, "wrong-projections", "the projections are wrong", detail)
            },
            VerbError::Refused(_)
            | VerbError::Unconfigured(_)
            | VerbError::Halt(_)
            | VerbError::Control(ControlError::Refused(_))
            | VerbError::Job(
                JobError::HistoryGone(_) | JobError::Place(_) | JobError::Control(ControlError::Refused(_)),
            ) => refused(),
            VerbError::Control(error) if !error.is_transient() => internal(detail),
            VerbError::Control(_) => away("the control store doesn't answer"),
            VerbError::Unreadable(_) | VerbError::Decode(_) | VerbError::Host(_) => internal(detail),
            VerbError::Job(_)
            | VerbError::Sink(_)
            | VerbError::Source(_)
            | VerbError::Connect(_)
            | VerbError::EventStore(_) => away("something that is needed doesn't answer"),
        }
    }
}

fn internal(detail: String) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "it failed", detail)
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        VerbError::from(error).into()
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self { status: rejection.status(), ..Self::malformed(rejection.body_text()) }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::malformed(rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::malformed(rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("/problems/{}", self.name), "title": self.title, "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if !self.findings.is_empty() {
            body["findings"] = self.findings.into();
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
