//! `apply` against a stub of Kafka Connect: what users see when Connect says no.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use connectors::apply::{self, ApplyError, Outcome};
use connectors::connect::{Client, Config};
use serde_json::{Value, json};

async fn serve(router: axum::Router) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::new(&format!("http://{address}/")).unwrap()
}

const LIMIT: Duration = Duration::from_secs(5);

fn config() -> Config {
    Config::from([
        ("connector.class".to_owned(), "Outbox".to_owned()),
        ("poll.interval.ms".to_owned(), "10".to_owned()),
    ])
}

fn validation(errors: Value) -> Value {
    json!({"name": "Outbox", "error_count": 1, "configs": [
        {"definition": {"name": "poll.interval.ms"}, "value": {"name": "poll.interval.ms", "errors": []}},
        {"definition": {"name": "database.port"}, "value": {"name": "database.port", "errors": errors}},
    ]})
}

#[tokio::test]
async fn every_refused_field_is_printed_and_nothing_is_applied() {
    let puts = Arc::new(AtomicUsize::new(0));
    let counted = puts.clone();
    let router = axum::Router::new()
        .route(
            "/connector-plugins/Outbox/config/validate",
            put(async || Json(validation(json!(["must be a number", "is required"])))),
        )
        .route(
            "/connectors/outbox/config",
            put(move || async move {
                counted.fetch_add(1, Ordering::SeqCst);
                StatusCode::CREATED
            }),
        );
    let error = apply::configure(&serve(router).await, "outbox", &config(), false, LIMIT).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Kafka Connect refuses the configuration:\n  - database.port: must be a number; is required"
    );
    assert_eq!(puts.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_failed_task_is_restarted_once_and_then_shown_with_its_trace() {
    let restarts = Arc::new(AtomicUsize::new(0));
    let counted = restarts.clone();
    let failed = json!({"name": "outbox", "connector": {"state": "RUNNING", "worker_id": "w"},
        "tasks": [{"id": 0, "state": "FAILED", "worker_id": "w", "trace": "ConnectException: no such publication"}]});
    let router = axum::Router::new().route("/connectors/outbox/status", get(async move || Json(failed))).route(
        "/connectors/outbox/restart",
        post(move || async move {
            counted.fetch_add(1, Ordering::SeqCst);
            StatusCode::ACCEPTED
        }),
    );
    let error = apply::wait_running(&serve(router).await, "outbox", Duration::from_secs(10)).await.unwrap_err();
    assert!(matches!(error, ApplyError::Failed { .. }), "{error}");
    assert!(error.to_string().ends_with("its trace:\nConnectException: no such publication"), "{error}");
    assert_eq!(restarts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connector_without_tasks_is_not_running_yet() {
    let empty = json!({"name": "outbox", "connector": {"state": "RUNNING", "worker_id": "w"}, "tasks": []});
    let router = axum::Router::new().route("/connectors/outbox/status", get(async move || Json(empty)));
    let error = apply::wait_running(&serve(router).await, "outbox", Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, ApplyError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn the_same_configuration_again_changes_nothing() {
    let mut stored = config();
    stored.insert("name".to_owned(), "outbox".to_owned());
    let router = axum::Router::new()
        .route("/connector-plugins/Outbox/config/validate", put(async || Json(validation(json!([])))))
        .route("/connectors/outbox/config", get(async move || Json(stored)))
        .route("/connectors/outbox/resume", put(async || StatusCode::ACCEPTED));
    let outcome = apply::configure(&serve(router).await, "outbox", &config(), false, LIMIT).await.unwrap();
    assert_eq!(outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn a_refusal_carries_the_message_of_connect() {
    let refusal = (StatusCode::BAD_REQUEST, Json(json!({"error_code": 400, "message": "connector class is unknown"})));
    let router = axum::Router::new().route("/connector-plugins/Outbox/config/validate", put(async move || refusal));
    let error =
        apply::configure(&serve(router).await, "outbox", &config(), false, LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("400 Bad Request connector class is unknown"), "{error}");
}
