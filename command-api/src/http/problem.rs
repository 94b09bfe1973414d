//! Answers to what didn't happen: RFC 9457 problem details with stable types.

use std::borrow::Cow;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::store::CommandError;

/// A problem; `name` makes its type, `/problems/<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) name: Cow<'static, str>,
    pub(super) detail: String,
    pub(super) field: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, name: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { status, name: name.into(), detail: detail.into(), field: None }
    }

    /// A body that can't be read, and where.
    pub(super) fn malformed(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(StatusCode::BAD_REQUEST, "malformed", detail) }
    }

    pub(super) fn too_large(bytes_max: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", format!("a body has at most {bytes_max} bytes"))
    }

    pub(super) fn not_found(aggregate: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", format!("{aggregate} {id} does not exist"))
    }

    pub(super) fn not_then(detail: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-then", detail)
    }

    pub(super) fn no_such_path(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "no-such-path", format!("no command has the path {path}"))
    }

    pub(super) fn method(method: &Method) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", format!("{method} is not offered here"))
    }

    pub(super) fn timed_out() -> Self {
        let detail = "the command took too long; whether it happened is not known";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timed-out", detail)
    }

    pub(super) fn overloaded() -> Self {
        let detail = "more requests are under way than this service takes; nothing happened";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
    }

    pub(super) fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "the write database doesn't answer")
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Refused(rule) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, rule.name(), rule.to_string()),
            CommandError::NotFound { aggregate, id } => Self::not_found(aggregate, &id.to_string()),
            CommandError::RefusedBefore { rule, detail } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, rule, detail),
            CommandError::KeyReused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", error.to_string())
            }
            CommandError::InFlight => Self::new(StatusCode::CONFLICT, "command-in-flight", error.to_string()),
            CommandError::Stale { .. } => {
                Self::new(StatusCode::PRECONDITION_FAILED, "sequence-mismatch", error.to_string())
            }
            CommandError::LostRace => Self::new(StatusCode::CONFLICT, "lost-race", error.to_string()),
            CommandError::Database(error) if is_down(&error) => {
                tracing::warn!(error = %error, "the write database is not available");
                Self::unavailable()
            }
            error => {
                tracing::error!(error = ?error, "a command failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the command failed; the log says why")
            }
        }
    }
}

/// The server's state rather than the statement's fault.
fn is_down(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            // connection failures, insufficient resources, shutdown and start-up, a statement's time limit, read only
            let code = error.code().unwrap_or_default();
            ["08", "53", "57"].iter().any(|class| code.starts_with(class)) || code == "25006"
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("/problems/{}", self.name),
            "title": self.name.replace('-', " "),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(field) = self.field {
            body["field"] = field.into();
        }
        let mut response = (self.status, axum::Json(body)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
