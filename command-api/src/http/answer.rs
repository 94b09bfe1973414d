//! Answers to what happened: each carries the sequence and a token that covers all the command touched.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};

use crate::store::Receipt;

/// A command's answer: `body` with the sequence of the aggregate that it is about.
pub(super) fn answer(status: StatusCode, mut body: Json, sequence: i64, receipt: &Receipt) -> Response {
    body["sequence_number"] = sequence.into();
    body["consistency_token"] = token(receipt).into();
    (status, axum::Json(body)).into_response()
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
        let streams = vec![("order", "o".to_owned(), 1), ("product", "p".to_owned(), 7)];
        let token = token(&Receipt { epoch: "7.00000001".to_owned(), txid: 123, streams });
        let json = String::from_utf8(URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
        assert_eq!(json, r#"{"v":1,"epoch":"7.00000001","txid":123,"streams":[["order","o",1],["product","p",7]]}"#);
    }
}
