//! What needs no database: paths, bodies and headers that are refused before one is asked.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use command_api::http::{Consistency, router};
use command_api::store::{Codec, Options, Store};
use reqwest::{Method, Response};
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

/// A service whose database is nowhere.
async fn service() -> String {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let pool =
        PgPoolOptions::new().acquire_timeout(Duration::from_millis(200)).connect_lazy("postgres://x@127.0.0.1:9/x");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(
        axum::serve(
            listener,
            router(Store::new(pool.unwrap(), Codec::default(), Options::default()), Consistency::none()),
        )
        .into_future(),
    );
    format!("http://{address}")
}

async fn ask(service: &str, method: &str, path: &str, body: String) -> Response {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    reqwest::Client::new().request(method, format!("{service}{path}")).body(body).send().await.unwrap()
}

#[tokio::test]
async fn problems_have_stable_types_and_name_the_field() {
    let service = service().await;
    let order = |items: &str, zip: &str| {
        let (id, address) = (Uuid::nil(), format!(r#"{{"city": "Zurich", "zip": "{zip}"}}"#));
        format!(r#"{{"customer_id": "{id}", "items": {items}, "shipping_address": {address}}}"#)
    };
    let text = str::to_owned;
    let cancel = format!("/orders/{}/cancel", Uuid::nil());
    for (method, path, body, status, problem, field) in [
        ("POST", "/customers", text("{}"), 400, "malformed", Some("email")),
        ("POST", "/customers", text(r#"{"email": "a@b"}"#), 400, "malformed", Some("name")),
        ("POST", "/api/customers", text(r#"{"email": "a@b", "first_name": "A"}"#), 400, "malformed", Some("last_name")),
        (
            "POST",
            "/orders",
            order(r#"[{"product_id": "x", "quantity": 1}]"#, "8001"),
            400,
            "malformed",
            Some("items[0].product_id"),
        ),
        ("POST", "/orders", order("[]", " "), 400, "malformed", Some("shipping_address.zip")),
        ("POST", "/orders/nonsense/cancel", text(r#"{"reason": "x"}"#), 404, "not-found", None),
        ("POST", &cancel, text("{}"), 400, "malformed", Some("reason")),
        ("POST", "/nowhere", text(""), 404, "no-such-path", None),
        ("GET", "/orders", text(""), 405, "method-not-allowed", None),
        ("POST", "/customers", " ".repeat(70_000), 413, "too-large", None),
        ("POST", "/customers", text(r#"{"email": "a@b", "name": "A"}"#), 503, "store-unavailable", None),
        ("GET", "/health/ready", text(""), 503, "store-unavailable", None),
    ] {
        let answer = ask(&service, method, path, body).await;
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
        assert!(answer.headers().contains_key("x-request-id"));
        assert_eq!(answer.status().as_u16(), status, "{path}");
        let json: Value = answer.json().await.unwrap();
        assert_eq!(json["type"].as_str(), Some(&*format!("/problems/{problem}")), "{path}: {json}");
        assert_eq!(json.get("field").and_then(Value::as_str), field, "{json}");
        assert_eq!(json["status"], status);
    }
}

#[tokio::test]
async fn it_lives_without_a_database() {
    let service = service().await;
    for path in ["/health/live", "/api/health/live"] {
        assert!(ask(&service, "GET", path, String::new()).await.status().is_success());
    }
}
