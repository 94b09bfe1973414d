//! Whether this process runs, and whether it can work.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::store::Store;

const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// It runs.
pub(super) async fn live() -> Json<Value> {
    Json(json!({"status": "live"}))
}

/// It reaches its database.
pub(super) async fn ready(State(store): State<Store>) -> Result<Json<Value>, Problem> {
    let asked = sqlx::query("select 1").execute(store.pool());
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(Ok(_)) => Ok(Json(json!({"status": "ready"}))),
        _ => Err(Problem::unavailable()),
    }
}
