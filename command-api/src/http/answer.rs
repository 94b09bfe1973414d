//! Answers to what happened: each carries the sequence and a token that covers all the command touched.

use axum::http::header::{CONTENT_LENGTH, ETAG};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};

use super::metrics::Appended;
use crate::store::{Done, Receipt, Reply};

/// How long the events took to be appended and committed, in ms, as browsers and load tools read it.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Of a command that happened, for whoever lets its answer wait: goes with the response, not to the client.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) body: Json,
    pub(super) token: String,
}

/// What the client is told: `body`, and the sequence of the aggregate that it is about.
pub(super) fn reply(status: StatusCode, body: Json, sequence: i64) -> Reply {
    Reply { status: status.as_u16(), body, sequence }
}

/// A command's answer; its `ETag` is the sequence, for `If-Match`.
pub(super) fn answer(done: &Done) -> Response {
    let token = token(&done.receipt);
    let mut body = done.reply.body.clone();
    body["sequence_number"] = done.reply.sequence.into();
    body["consistency_token"] = token.as_str().into();
    let status = StatusCode::from_u16(done.reply.status).unwrap_or(StatusCode::OK);
    let mut response = (status, axum::Json(&body)).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", done.reply.sequence)) {
        response.headers_mut().insert(ETAG, tag);
    }
    let timing = done.append.map(|took| HeaderValue::from_str(&format!("append;dur={:.3}", took.as_secs_f64() * 1e3)));
    if let Some(Ok(timing)) = timing {
        response.headers_mut().insert(SERVER_TIMING, timing);
    }
    response.extensions_mut().insert(Told { body, token });
    if let Some(took) = done.append {
        response.extensions_mut().insert(Appended(took));
    }
    response
}

/// The same response with another JSON body.
pub(super) fn with_body(response: Response, body: &Json) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, axum::body::Body::from(body.to_string()))
}

/// What a query must have seen to have seen this command, opaque to clients.
fn token(receipt: &Receipt) -> String {
    let Receipt { epoch, txid, streams } = receipt;
    URL_SAFE_NO_PAD.encode(json!({"v": 1, "epoch": epoch, "txid": txid, "streams": streams}).to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_the_transaction_and_its_streams() {
        let streams = vec![("order".into(), "o".to_owned(), 1), ("product".into(), "p".to_owned(), 7)];
        let token = token(&Receipt { epoch: "7.00000001".to_owned(), txid: 123, streams });
        let json = String::from_utf8(URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
        assert_eq!(json, r#"{"v":1,"epoch":"7.00000001","txid":123,"streams":[["order","o",1],["product","p",7]]}"#);
    }
}
