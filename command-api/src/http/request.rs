//! Reading requests: bodies whose faults are named by field, ids in paths, the metadata of events, keys of retries.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request as HttpRequest};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::problem::Problem;
use super::{BODY_BYTES_MAX, REQUEST_ID};
use crate::store::{Key, Request};

pub(super) const TEXT_CHARS_MAX: usize = 2_000;
/// Larger amounts would overflow when they are multiplied and summed up.
pub(super) const CENTS_MAX: i64 = 1_000_000_000_000_000;

const KEY_CHARS_MAX: usize = 255;

/// A command as it was asked for: its JSON body, whatever the content type says, and what the headers tell.
#[derive(Debug)]
pub(super) struct Ask<T> {
    pub(super) body: T,
    pub(super) request: Request,
    /// Of method, path and body: the same for a retry.
    pub(super) fingerprint: Uuid,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Ask<T> {
    type Rejection = Problem;

    async fn from_request(request: HttpRequest, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(body, &parts, state).await?;
        let fingerprint = fingerprint(parts.method.as_str(), parts.uri.path(), &bytes);
        // A command without fields needs no body.
        let body = parse(if bytes.is_empty() { b"{}" } else { &bytes })?;
        let request = Request {
            metadata: metadata(&parts.headers),
            key: key(&parts.headers)?.map(|id| Key { id, fingerprint }),
            expected: expected(&parts.headers)?,
        };
        Ok(Self { body, request, fingerprint })
    }
}

async fn read<S: Send + Sync>(body: Body, parts: &Parts, state: &S) -> Result<Bytes, Problem> {
    // Made again with its extensions: the limit on its size is one of them.
    let request = HttpRequest::from_parts(parts.clone(), body);
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(BODY_BYTES_MAX),
        _ => Problem::malformed(".", "the body can't be read to its end"),
    })
}

/// Bodies that say the same are the same, whatever the order of their fields.
fn fingerprint(method: &str, path: &str, body: &[u8]) -> Uuid {
    let mut canonical = serde_json::from_slice::<Json>(body).unwrap_or_default();
    canonical.sort_all_objects();
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{method} {path}\n{canonical}").as_bytes())
}

/// `Idempotency-Key`, which belongs to the user who sends it.
fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    const NAME: &str = "idempotency-key";
    let Some(value) = headers.get(NAME) else { return Ok(None) };
    let value = value.to_str().map_err(|_| Problem::malformed(NAME, "must be visible ASCII"))?.trim();
    if value.is_empty() || value.len() > KEY_CHARS_MAX {
        return Err(Problem::malformed(NAME, format!("must have 1 to {KEY_CHARS_MAX} characters")));
    }
    let user = headers.get("x-user-id").and_then(|user| user.to_str().ok()).unwrap_or_default();
    Ok(Some(format!("key/{user}/{value}")))
}

/// `If-Match` with the `ETag` of an earlier answer; `*` asks for nothing.
fn expected(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.trim_matches('"').parse().ok().filter(|n: &i64| *n > 0);
    number.map(Some).ok_or_else(|| Problem::malformed("if-match", "must be one sequence number, such as \"7\""))
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

/// As [`parse`], for a part of a body at `path`.
pub(super) fn from_json<T: DeserializeOwned>(path: &str, json: Json) -> Result<T, Problem> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let reason = error.inner().to_string();
        let inner = field(&error.path().to_string(), &reason);
        let at = if inner == "." { path.to_owned() } else { format!("{path}.{inner}") };
        Problem::malformed(at, reason)
    })
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

/// A text that says something in at most so many characters.
pub(super) fn text_at_most(field: &str, value: String, chars_max: usize) -> Result<String, Problem> {
    if value.chars().count() > chars_max {
        return Err(Problem::malformed(field, format!("must have at most {chars_max} characters")));
    }
    text(field, value)
}

/// [`optional_text`], where there is one.
pub(super) fn maybe_text(field: &str, value: Option<String>) -> Result<Option<String>, Problem> {
    value.map(|value| optional_text(field, value)).transpose()
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
    fn retries_have_one_fingerprint_and_others_another() {
        let one = fingerprint("POST", "/orders", br#"{"a": 1, "b": {"c": [1, 2], "d": 2}}"#);
        assert_eq!(fingerprint("POST", "/orders", br#"{"b":{"d":2,"c":[1,2]},"a":1}"#), one);
        for other in [
            fingerprint("POST", "/orders", br#"{"a": 1, "b": {"c": [2, 1], "d": 2}}"#),
            fingerprint("POST", "/payments", br#"{"a": 1, "b": {"c": [1, 2], "d": 2}}"#),
            fingerprint("DELETE", "/orders", b""),
        ] {
            assert_ne!(other, one);
        }
    }

    #[test]
    fn keys_belong_to_users_and_if_match_is_one_number() {
        let mut headers = HeaderMap::new();
        assert_eq!((key(&headers).unwrap(), expected(&headers).unwrap()), (None, None));
        headers.insert("idempotency-key", HeaderValue::from_static(" k "));
        headers.insert("if-match", HeaderValue::from_static("\"7\""));
        assert_eq!((key(&headers).unwrap(), expected(&headers).unwrap()), (Some("key//k".to_owned()), Some(7)));
        headers.insert("x-user-id", HeaderValue::from_static("u1"));
        assert_eq!(key(&headers).unwrap(), Some("key/u1/k".to_owned()));
        headers.insert("idempotency-key", HeaderValue::from_static(" "));
        assert_eq!(key(&headers).unwrap_err().field.as_deref(), Some("idempotency-key"));
        for wrong in ["\"a\"", "0", "\"1\", \"2\""] {
            headers.insert("if-match", HeaderValue::from_str(wrong).unwrap());
            assert_eq!(expected(&headers).unwrap_err().field.as_deref(), Some("if-match"));
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
