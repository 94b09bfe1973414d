//! Commands over HTTP/JSON. Every path answers under `/api` too; all of them are listed in `routes`.

mod accounts;
mod answer;
mod consistency;
mod customers;
mod health;
mod metrics;
mod openapi;
mod orders;
mod problem;
mod products;
mod request;
mod routes;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, Method, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};

use crate::store::Store;
pub use consistency::{Consistency, ConsistencyError};
pub use metrics::METRICS;
use metrics::Metrics;
use problem::Problem;

/// Requests under way; more are turned away at once, which bounds memory and what a client waits for in vain.
const REQUESTS_MAX: usize = 1_024;
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longer than any command takes with all its retries; a client must not hang.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// All endpoints.
pub fn router(store: Store, consistency: Consistency) -> Router {
    let commands = routes::api().finish();
    let measured = Metrics::default();
    let (shown, of) = (measured.clone(), store.clone());
    let page = move || metrics::page(shown.clone(), of.clone());
    Router::new()
        .merge(commands.clone())
        .nest("/api", commands)
        .fallback(async |uri: Uri| Problem::no_such_path(uri.path()))
        .method_not_allowed_fallback(async |method: Method| Problem::method(&method))
        .with_state(store)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(limit_time))
        .layer(from_fn_with_state(Arc::new(Semaphore::new(REQUESTS_MAX)), limit_number))
        // Around the time limit: a command that has happened isn't timed out by its wait.
        .layer(from_fn_with_state(consistency, consistency::wait))
        .layer(from_fn_with_state(measured, metrics::measure))
        .layer(from_fn(telemetry::serve))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
        .route("/metrics", get(page))
}

async fn limit_number(State(permits): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    // Who asks about health wants to know of the process, not of its queue.
    let path = request.uri().path();
    if path.ends_with("/health/live") || path.ends_with("/health/ready") {
        return next.run(request).await;
    }
    match permits.try_acquire() {
        Ok(_permit) => next.run(request).await,
        Err(_) => Problem::overloaded().into_response(),
    }
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::timed_out().into_response(),
    }
}
