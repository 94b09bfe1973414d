//! Reading requests: bodies whose faults are named by field, ids in paths, the metadata of events.

use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::problem::Problem;
use super::{BODY_BYTES_MAX, REQUEST_ID};

const TEXT_CHARS_MAX: usize = 2_000;
/// Larger amounts would overflow when they are multiplied and summed up.
const CENTS_MAX: i64 = 1_000_000_000_000_000;

/// A JSON body, whatever the content type says.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(BODY_BYTES_MAX),
            _ => Problem::malformed(".", "the body can't be read to its end"),
        })?;
        // A command without fields needs no body.
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        parse(bytes).map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let reason = error.inner().to_string();
        Problem::malformed(field(&error.path().to_string(), &reason), reason)
    })?;
    deserializer.end().map_err(|error| Problem::malformed(".", error.to_string()))?;
    Ok(parsed)
}

/// serde places a missing or unknown field at its parent, and names it in its message alone.
fn field(path: &str, reason: &str) -> String {
    let named =
        ["missing field `", "unknown field `"].iter().find_map(|start| reason.strip_prefix(start)?.split('`').next());
    match named {
        // where it was when the body ended is unknown
        None if path == "?" => ".".to_owned(),
        Some(name) if path == "." => name.to_owned(),
        Some(name) if !path.ends_with(name) => format!("{path}.{name}"),
        _ => path.to_owned(),
    }
}

/// An id in a path. What isn't a UUID is nothing's id.
pub(super) fn id(aggregate: &str, text: &str) -> Result<Uuid, Problem> {
    text.parse().map_err(|_| Problem::not_found(aggregate, text))
}

/// For fields where null means something else than absence.
pub(super) fn present<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// A text that says something.
pub(super) fn text(field: &str, value: String) -> Result<String, Problem> {
    if value.trim().is_empty() {
        return Err(Problem::malformed(field, "must not be empty"));
    }
    optional_text(field, value)
}

/// A text of bounded length. Postgres can't store a zero character.
pub(super) fn optional_text(field: &str, value: String) -> Result<String, Problem> {
    if value.chars().count() > TEXT_CHARS_MAX {
        return Err(Problem::malformed(field, format!("must have at most {TEXT_CHARS_MAX} characters")));
    }
    if value.contains('\0') {
        return Err(Problem::malformed(field, "must not contain the zero character"));
    }
    Ok(value)
}

pub(super) fn email(field: &str, value: String) -> Result<String, Problem> {
    let value = text(field, value)?;
    let shaped = value.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    if shaped { Ok(value) } else { Err(Problem::malformed(field, "must be an e-mail address")) }
}

pub(super) fn currency(field: &str, value: String) -> Result<String, Problem> {
    let shaped = value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_uppercase());
    if shaped { Ok(value) } else { Err(Problem::malformed(field, "must be an ISO 4217 code such as USD")) }
}

/// An amount or a count from 0 on.
pub(super) fn not_negative(field: &str, value: i64) -> Result<i64, Problem> {
    if (0..=CENTS_MAX).contains(&value) {
        return Ok(value);
    }
    Err(Problem::malformed(field, format!("must be from 0 to {CENTS_MAX}")))
}

/// Who asked, and as part of what: goes with every event of the command.
#[derive(Debug)]
pub(super) struct Metadata(pub(super) Json);

impl<S: Send + Sync> FromRequestParts<S> for Metadata {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(metadata(&parts.headers)))
    }
}

fn metadata(headers: &HeaderMap) -> Json {
    let header = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?.trim();
        // Longer ones are nobody's id; they would only fill the log.
        (!value.is_empty() && value.len() <= 256).then(|| Json::from(value))
    };
    let request_id = header(REQUEST_ID.as_str());
    let members = [
        ("user_id", header("x-user-id")),
        ("correlation_id", header("x-correlation-id").or_else(|| request_id.clone())),
        ("causation_id", header("x-causation-id").or(request_id)),
        ("traceparent", header("traceparent")),
        ("tracestate", header("tracestate")),
    ];
    Json::Object(members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Map<_, _>>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use axum::http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[allow(dead_code)]
        list: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code)]
        n: i64,
    }

    #[test]
    fn faults_are_named_by_field() {
        for (body, at) in [
            ("{", "."),
            ("{}", "list"),
            (r#"{"list": [], "more": 1}"#, "more"),
            (r#"{"list": [{"n": 1}, {}]}"#, "list[1].n"),
            (r#"{"list": [{"n": "1"}]}"#, "list[0].n"),
            (r#"{"list": [{"n": 1.5}]}"#, "list[0].n"),
            (r#"{"list": [{"n": 1, "m": 2}]}"#, "list[0].m"),
            (r#"{"list": []} x"#, "."),
        ] {
            let problem = parse::<Outer>(body.as_bytes()).unwrap_err();
            assert_eq!(
                (problem.status.as_u16(), problem.field.as_deref()),
                (400, Some(at)),
                "{body}: {}",
                problem.detail
            );
        }
    }

    #[test]
    fn metadata_falls_back_to_the_request_and_leaves_out_what_is_absent() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("r1"));
        assert_eq!(metadata(&headers), json!({"correlation_id": "r1", "causation_id": "r1"}));
        headers.insert("x-user-id", HeaderValue::from_static("u1"));
        headers.insert("x-correlation-id", HeaderValue::from_static("c1"));
        let expected = json!({"user_id": "u1", "correlation_id": "c1", "causation_id": "r1"});
        assert_eq!(metadata(&headers), expected);
    }

    #[test]
    fn texts_and_amounts_are_bounded() {
        assert!(text("name", "  ".to_owned()).is_err() && text("name", "a\0".to_owned()).is_err());
        assert!(text("name", "x".repeat(TEXT_CHARS_MAX + 1)).is_err() && text("name", "Ada".to_owned()).is_ok());
        assert!(email("email", "ada".to_owned()).is_err() && email("email", "ada@b".to_owned()).is_ok());
        assert!(currency("currency", "usd".to_owned()).is_err() && currency("currency", "USD".to_owned()).is_ok());
        assert!(not_negative("price_cents", -1).is_err() && not_negative("price_cents", i64::MAX).is_err());
    }
}
