//! Requests: one function, explicit time-outs, errors sorted by whether waiting helps.

use super::super::SinkError;
use elasticsearch::auth::Credentials;
use elasticsearch::http::headers::{CONTENT_TYPE, HeaderMap, HeaderValue};
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use elasticsearch::http::{Method, Url};
use serde_json::Value as Json;
use std::time::Duration;

/// Of any call. Longer than the server's own limits that the calls name, so that its answer comes first.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(super) struct Client {
    transport: Transport,
}

/// A status and what came with it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Json,
}

pub(super) fn broken(reason: impl Into<String>) -> SinkError {
    SinkError::Broken { store: "elasticsearch", reason: reason.into() }
}

pub(super) fn unavailable(reason: impl Into<String>) -> SinkError {
    SinkError::Unavailable { store: "elasticsearch", reason: reason.into() }
}

impl Client {
    /// Opens it; user and password may stand in the address.
    pub(super) fn open(address: &str) -> Result<Self, SinkError> {
        let unusable = |e: &dyn std::fmt::Display| broken(format!("ELASTICSEARCH_URL can't be used: {e}"));
        let mut url: Url = address.parse().map_err(|e| unusable(&e))?;
        let credentials = url.password().map(|p| Credentials::Basic(url.username().to_owned(), p.to_owned()));
        if credentials.is_some() && (url.set_username("").is_err() || url.set_password(None).is_err()) {
            return Err(unusable(&"it has no host"));
        }
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url)).timeout(TIMEOUT);
        if let Some(credentials) = credentials {
            builder = builder.auth(credentials);
        }
        let transport = builder.build().map_err(|e| unusable(&e))?;
        Ok(Self { transport })
    }

    /// Sends a request; the answer may be any status that waiting doesn't change.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<String>) -> Result<Answer, SinkError> {
        let mut headers = HeaderMap::new();
        if path.contains("_bulk") {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        }
        let sent = self.transport.send(method, path, headers, None::<&()>, body, Some(TIMEOUT)).await;
        let response = sent.map_err(|e| unavailable(with_causes(&e)))?;
        let status = response.status_code().as_u16();
        let bytes = response.bytes().await.map_err(|e| unavailable(with_causes(&e)))?;
        let body = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            Err(_) if bytes.is_empty() => Json::Null,
            Err(_) if status < 400 => return Err(unavailable(format!("{status} with an answer that isn't JSON"))),
            Err(_) => Json::String(String::from_utf8_lossy(&bytes).chars().take(300).collect()),
        };
        if is_passing(status, &body) {
            return Err(unavailable(format!("{status}: {}", reason(&body))));
        }
        Ok(Answer { status, body })
    }
}

impl Answer {
    /// The body of a success; other statuses are a set-up's fault.
    pub(super) fn success(self, what: &str) -> Result<Json, SinkError> {
        if self.status < 300 {
            Ok(self.body)
        } else {
            Err(broken(format!("{what}: {}: {}", self.status, reason(&self.body))))
        }
    }

    pub(super) fn has_error_type(&self, error_type: &str) -> bool {
        self.body["error"]["type"] == error_type
    }
}

/// Whether the same request may succeed later: overload, time-outs, a cluster that isn't whole, a full disk (the server then
/// sets indices read-only with a `cluster_block_exception`, which is a 403 or 429).
pub(super) fn is_passing(status: u16, body: &Json) -> bool {
    matches!(status, 408 | 429 | 500..)
        || body["error"]["type"] == "cluster_block_exception"
        || body["type"] == "cluster_block_exception"
}

/// What the server says went wrong, in a line.
pub(super) fn reason(body: &Json) -> String {
    let error = if body["error"].is_object() { &body["error"] } else { body };
    let part = |error: &Json| match (error["type"].as_str(), error["reason"].as_str()) {
        (Some(kind), Some(reason)) => Some(format!("{kind}: {reason}")),
        _ => None,
    };
    let cause = part(&error["caused_by"]).map(|cause| format!(" ({cause})")).unwrap_or_default();
    match part(error) {
        Some(text) => text + &cause,
        None => body.to_string().chars().take(300).collect(),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source()).map(|e| format!(": {e}"));
    std::iter::once(error.to_string()).chain(causes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn overload_passes_and_a_bad_document_does_not() {
        assert!(is_passing(429, &Json::Null) && is_passing(503, &Json::Null));
        assert!(is_passing(
            403,
            &json!({"type": "cluster_block_exception", "reason": "disk usage exceeded flood-stage"})
        ));
        assert!(!is_passing(400, &json!({"error": {"type": "mapper_parsing_exception"}})));
    }

    #[test]
    fn the_reason_names_the_cause() {
        let body = json!({"error": {"type": "mapper_parsing_exception", "reason": "failed to parse",
            "caused_by": {"type": "x", "reason": "not a date"}}});
        assert_eq!(reason(&body), "mapper_parsing_exception: failed to parse (x: not a date)");
    }
}
