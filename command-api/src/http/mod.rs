//! Commands over HTTP/JSON. Every path answers under `/api` too.

mod accounts;
mod answer;
mod customers;
mod health;
mod orders;
mod problem;
mod products;
mod request;

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, Method, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};

use crate::store::Store;
use problem::Problem;

const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longer than any command takes with all its retries; a client must not hang.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// All endpoints.
pub fn router(store: Store) -> Router {
    let commands = Router::new()
        .route("/customers", post(customers::register))
        .route("/customers/{id}", patch(customers::change))
        .route("/products", post(products::create))
        .route("/products/{id}", patch(products::change))
        .route("/products/{id}/stock", post(products::adjust_stock))
        .route("/products/{id}/reviews", post(products::review))
        .route("/orders", post(orders::place))
        .route("/orders/{id}/items", post(orders::add_item))
        .route("/orders/{id}/items/{item_id}", delete(orders::remove_item))
        .route("/orders/{id}/cancel", post(orders::cancel))
        .route("/orders/{id}/ship", post(orders::ship))
        .route("/orders/{id}/deliver", post(orders::deliver))
        .route("/payments", post(orders::pay))
        .route("/v1/commands/accounts/{verb}", post(accounts::command))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready));
    Router::new()
        .merge(commands.clone())
        .nest("/api", commands)
        .fallback(async |uri: Uri| Problem::no_such_path(uri.path()))
        .method_not_allowed_fallback(async |method: Method| Problem::method(&method))
        .with_state(store)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(limit_time))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::timed_out().into_response(),
    }
}
