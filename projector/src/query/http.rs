//! The HTTP service: declared routes, health, limits.

use super::answer::{Answer, Halt, answer};
use super::live::{Keeper, ReadModel};
use super::problem::Problem;
use super::request::Asked;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};

/// Requests at a time, those that wait included; more are turned away at once.
const REQUESTS_MAX: usize = 4_096;
/// No request takes longer, waiting included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Queries have no body.
const BODY_BYTES_MAX: usize = 1_024;

const READ_MODEL: HeaderName = HeaderName::from_static("read-model");
const GENERATION: HeaderName = HeaderName::from_static("read-model-generation");
const POSITION: HeaderName = HeaderName::from_static("read-model-position");
const LAG_MS: HeaderName = HeaderName::from_static("read-model-lag-ms");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Clone)]
struct Service {
    keeper: Arc<Keeper>,
    permits: Arc<Semaphore>,
}

/// The service's routes.
pub(crate) fn router(keeper: Arc<Keeper>) -> Router {
    let service = Service { keeper, permits: Arc::new(Semaphore::new(REQUESTS_MAX)) };
    Router::new()
        .route("/health/live", get(|| async { json_response(StatusCode::OK, &json!({"status": "live"})) }))
        .route("/health/ready", get(ready))
        .fallback(query)
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
        .with_state(service)
}

/// Ready as soon as there is a query to answer; what hampers it is named.
async fn ready(State(service): State<Service>) -> Response {
    let Some(live) = service.keeper.live() else {
        return Problem::not_ready("the control store wasn't reached yet").into_response();
    };
    if live.routes.is_empty() {
        let broken: String = live.broken.iter().map(|(name, reason)| format!("; {name}: {reason}")).collect();
        let detail = format!(
            "no live read model has a query that can be served; `projector apply` some that declare them{broken}"
        );
        return Problem::not_ready(detail).into_response();
    }
    let up = |yes: bool| if yes { "up" } else { "down" };
    let body = json!({
        "status": "ready",
        "read_models": live.models.values().map(|m| (m.name().to_owned(), Json::from(m.generation.generation))).collect::<serde_json::Map<_, _>>(),
        "not_served": live.broken,
        "control_store": up(service.keeper.reachable()),
        "notifications": up(service.keeper.feeds.connected()),
    });
    json_response(StatusCode::OK, &body)
}

async fn query(State(service): State<Service>, request: Request) -> Response {
    let Ok(_permit) = service.permits.try_acquire() else { return Problem::overloaded().into_response() };
    match timeout(REQUEST_TIMEOUT, route(&service, &request.into_parts().0)).await {
        Ok(response) => response.unwrap_or_else(IntoResponse::into_response),
        Err(_) => Problem::timed_out().into_response(),
    }
}

async fn route(service: &Service, request: &Parts) -> Result<Response, Problem> {
    let begin = tokio::time::Instant::now();
    service.keeper.make_sure().await;
    loop {
        let live = service.keeper.live().ok_or_else(|| Problem::not_ready("the control store wasn't reached yet"))?;
        let path = request.uri.path();
        let found = live.routes.find(path).ok_or_else(|| Problem::no_such_path(path))?;
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Err(Problem::method(request.method.as_str()));
        }
        let found = found
            .map_err(|name| Problem::parameter(name, format!("`{name}` in the path is not percent-encoded UTF-8")))?;
        let served = found.target;
        let asked = Asked::read(&request.uri, &request.headers)?;
        let answer = answer(served, &found.parameters, &asked, begin).await;
        if !matches!(answer, Err(Halt::Superseded)) {
            let failed = matches!(&answer, Err(Halt::Problem(problem)) if problem.is_failure());
            served.model.note(failed, asked.freshness.tokens.is_empty().then(|| begin.elapsed()));
        }
        return Ok(match answer {
            Ok(Answer { body, position }) => {
                with_freshness(json_response(StatusCode::OK, &body), &served.model, position)
            }
            Err(Halt::Problem(problem)) => {
                let position = super::freshness::position(&served.model.feed.snapshot());
                with_freshness(problem.into_response(), &served.model, position)
            }
            Err(Halt::Superseded) => continue,
        });
    }
}

/// Tells how fresh the answer is: which generation, how many messages it has handled at least, how far behind it is.
fn with_freshness(mut response: Response, model: &ReadModel, position: i64) -> Response {
    let headers = response.headers_mut();
    if let Ok(name) = HeaderValue::from_str(model.name()) {
        headers.insert(READ_MODEL, name);
    }
    headers.insert(GENERATION, HeaderValue::from(model.generation.generation));
    headers.insert(POSITION, HeaderValue::from(position));
    if let Some(lag_ms) = model.lag_ms() {
        headers.insert(LAG_MS, HeaderValue::from(lag_ms));
    }
    response
}

fn json_response(status: StatusCode, body: &Json) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
