//! The HTTP service: declared routes, health, limits, and what an answer carries beside its body.

use super::answer::{Answer, Request as Question, Stale};
use super::live::{ReadModel, Served};
use super::measures::Waited;
use super::openapi;
use super::problem::Problem;
use super::represent::{Form, csv, wanted};
use super::request::{Asked, pairs};
use super::service::{Service, ServiceLimits};
use super::subscribe;
use super::wait::Halt;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value as Json, json};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};

/// No request takes longer, waiting included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Queries have no body.
const BODY_BYTES_MAX: usize = 1_024;
/// A path with its query string; tokens are long.
const URI_BYTES_MAX: usize = 32 * 1_024;

const READ_MODEL: HeaderName = HeaderName::from_static("read-model");
const GENERATION: HeaderName = HeaderName::from_static("read-model-generation");
const POSITION: HeaderName = HeaderName::from_static("read-model-position");
const LAG_MS: HeaderName = HeaderName::from_static("read-model-lag-ms");
const WAITED_MS: HeaderName = HeaderName::from_static("read-model-waited-ms");
const FRESHNESS: HeaderName = HeaderName::from_static("read-model-freshness");
const NEXT_CURSOR: HeaderName = HeaderName::from_static("next-cursor");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TOKEN: HeaderName = HeaderName::from_static("consistency-token");

/// The service's routes.
pub(crate) fn router(service: Service, limits: &ServiceLimits) -> Router {
    Router::new()
        .route("/health/live", get(|| async { json_response(StatusCode::OK, &json!({"status": "live"})) }))
        .route("/health/ready", get(ready))
        .route("/openapi.json", get(description))
        .route("/freshness/{read_model}", get(super::reached::freshness))
        .fallback(query)
        .layer(CompressionLayer::new())
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        .layer(cors(&limits.cors_origins))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
        .layer(from_fn(telemetry::serve))
        .with_state(service)
}

/// Scripts of these origins may ask, and see what answers carry.
fn cors(origins: &[String]) -> CorsLayer {
    let shown = [
        READ_MODEL,
        GENERATION,
        POSITION,
        LAG_MS,
        FRESHNESS,
        PREFERENCE_APPLIED,
        REQUEST_ID,
        ETAG,
        NEXT_CURSOR,
        RETRY_AFTER,
    ];
    let asked = [
        TOKEN,
        IF_NONE_MATCH,
        ACCEPT,
        REQUEST_ID,
        HeaderName::from_static("prefer"),
        HeaderName::from_static("last-event-id"),
    ];
    let origins = match origins {
        [] => return CorsLayer::new(),
        [all] if all == "*" => AllowOrigin::any(),
        named => AllowOrigin::list(named.iter().filter_map(|origin| origin.trim().parse().ok())),
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers(asked)
        .expose_headers(shown)
        .max_age(Duration::from_secs(600))
}

/// Ready as soon as there is a query to answer; what hampers it is named.
async fn ready(State(service): State<Service>) -> Response {
    if service.stopping.is_cancelled() {
        return Problem::not_ready("the service is stopping").into_response();
    }
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
        "write_database": if service.write_side.is_some() { "known" } else { "not given" },
    });
    json_response(StatusCode::OK, &body)
}

/// All that is served now, as OpenAPI.
async fn description(State(service): State<Service>) -> Response {
    match service.keeper.live() {
        Some(live) => {
            json_response(StatusCode::OK, &openapi::document(live.routes.all().map(|(path, served)| (path, &**served))))
        }
        None => Problem::not_ready("the control store wasn't reached yet").into_response(),
    }
}

async fn query(State(service): State<Service>, request: Request) -> Response {
    let request = request.into_parts().0;
    service.limited(route(&service, &request)).await
}

impl Service {
    /// Answers within the limits on requests at a time and on a request's time.
    pub(super) async fn limited(&self, work: impl Future<Output = Result<Response, Problem>>) -> Response {
        let Ok(_permit) = self.permits.try_acquire() else {
            self.measures.overloaded.inc();
            return Problem::overloaded().into_response();
        };
        match timeout(REQUEST_TIMEOUT, work).await {
            Ok(response) => response.unwrap_or_else(IntoResponse::into_response),
            Err(_) => {
                self.measures.timed_out.inc();
                Problem::timed_out().into_response()
            }
        }
    }

    /// Notes how a query ended that came at `begin`.
    fn note(&self, served: &Served, answer: &Result<(Arc<Answer>, Option<Duration>), Halt>, begin: Instant) {
        let (took, read_model) = (begin.elapsed(), served.model.name());
        let (status, waited) = match answer {
            Ok((answer, waited)) => {
                let outcome = if answer.stale == Some(Stale::Behind) { Waited::Behind } else { Waited::Met };
                (Some(StatusCode::OK), waited.map(|waited| (outcome, waited)))
            }
            Err(Halt::Problem(problem)) => {
                let outcome = match problem.name {
                    "read-model-behind" => Some(Waited::Behind),
                    "parked" => Some(Waited::Parked),
                    "unknown-epoch" => Some(Waited::UnknownEpoch),
                    _ => None,
                };
                (Some(problem.status), outcome.map(|outcome| (outcome, took)))
            }
            Err(Halt::Superseded) => (None, Some((Waited::Superseded, took))),
        };
        if let Some(status) = status {
            self.measures.answered(&served.endpoint.query.get.value, status.as_u16(), took);
        }
        if let Some((outcome, waited)) = waited {
            self.measures.waited(read_model, outcome, waited);
        }
    }
}

async fn route(service: &Service, request: &Parts) -> Result<Response, Problem> {
    if request.uri.path_and_query().is_some_and(|all| all.as_str().len() > URI_BYTES_MAX) {
        return Err(Problem::bad_request(format!(
            "the address is longer than {URI_BYTES_MAX} bytes; tokens fit into the header Consistency-Token"
        )));
    }
    let begin = Instant::now();
    match wanted(&request.headers) {
        Form::Events => subscribe::stream(service.clone(), request.clone(), begin).await,
        form => {
            let (answered, answer) = ask(service, request, begin).await?;
            Ok(match answer {
                Ok(answer) => answered.respond(&answer, form, &request.headers),
                Err(problem) => {
                    let position = super::freshness::position(&answered.model.feed.snapshot());
                    answered.with_source(problem.into_response(), position)
                }
            })
        }
    }
}

/// Which read model answered a request.
pub(super) struct Answered {
    pub(super) model: Arc<ReadModel>,
    /// How long it was waited for, where the caller asked for something.
    pub(super) waited: Option<Duration>,
}

/// Answers a request from what is live: the answer or the problem, each with the read model; or a problem of the request itself.
pub(super) async fn ask(
    service: &Service,
    request: &Parts,
    begin: Instant,
) -> Result<(Answered, Result<Arc<Answer>, Problem>), Problem> {
    ask_as(service, request, begin, true).await
}

/// As [`ask`]; a subscriber has its token's answer already, and then only wants what is new.
pub(super) async fn ask_as(
    service: &Service,
    request: &Parts,
    begin: Instant,
    is_first: bool,
) -> Result<(Answered, Result<Arc<Answer>, Problem>), Problem> {
    service.keeper.make_sure().await;
    loop {
        let live = service.keeper.live().ok_or_else(|| Problem::not_ready("the control store wasn't reached yet"))?;
        let path = request.uri.path();
        let pairs = pairs(&request.uri)?;
        let found = live.routes.find(path, &pairs).ok_or_else(|| Problem::no_such_path(path))?;
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Err(Problem::method(request.method.as_str()));
        }
        let found = found
            .map_err(|name| Problem::parameter(name, format!("`{name}` in the path is not percent-encoded UTF-8")))?;
        telemetry::named(|| format!("{} {}", request.method, found.target.endpoint.query.get.value));
        let own = pairs.into_iter().filter(|pair| !found.pattern.fixed().contains(pair)).collect();
        let mut asked = Asked::read(own, &request.headers)?;
        if wanted(&request.headers) == Form::Events {
            asked.freshness.is_watching = true;
            if !is_first {
                asked.freshness = asked.freshness.already_met();
            }
        }
        let mut answered = Answered::of(Arc::clone(&found.target.model));
        let question = match Question::new(found.target, &found.parameters, &asked, begin) {
            Ok(question) => question,
            Err(problem) => return Ok((answered, Err(problem))),
        };
        let answer = Box::pin(question.answer(service)).await;
        if is_first {
            service.note(found.target, &answer, begin);
        }
        if !matches!(answer, Err(Halt::Superseded)) {
            let failed = matches!(&answer, Err(Halt::Problem(problem)) if problem.is_failure());
            let waited_for_nothing = matches!(&answer, Ok((_, None)));
            answered.model.note(failed, waited_for_nothing.then(|| begin.elapsed()));
        }
        match answer {
            Ok((answer, waited)) => {
                answered.waited = waited;
                return Ok((answered, Ok(answer)));
            }
            Err(Halt::Problem(problem)) => return Ok((answered, Err(problem))),
            Err(Halt::Superseded) => {}
        }
    }
}

impl Answered {
    pub(super) fn of(model: Arc<ReadModel>) -> Self {
        Self { model, waited: None }
    }

    fn respond(&self, answer: &Answer, form: Form, asked: &HeaderMap) -> Response {
        let is_known = |value: &HeaderValue| {
            let listed = value.to_str().unwrap_or_default().split(',').map(str::trim);
            listed
                .into_iter()
                .any(|etag| etag == "*" || etag.trim_start_matches("W/") == answer.etag.trim_start_matches("W/"))
        };
        let mut response = if asked.get_all(IF_NONE_MATCH).iter().any(is_known) && answer.stale.is_none() {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            match form {
                Form::Csv => ([(CONTENT_TYPE, "text/csv; charset=utf-8")], csv(&answer.body)).into_response(),
                _ => ([(CONTENT_TYPE, "application/json")], answer.text.clone()).into_response(),
            }
        };
        let headers = response.headers_mut();
        // It may be kept, and must be asked for again: 304 if it is still the same.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        headers.insert(VARY, HeaderValue::from_static("accept, consistency-token, prefer"));
        let etag = if form == Form::Csv { answer.etag.replace("W/\"", "W/\"csv-") } else { answer.etag.clone() };
        insert(headers, ETAG, &etag);
        headers.insert(AGE, HeaderValue::from(answer.made.elapsed().as_secs()));
        if let Some(cursor) = &answer.next_cursor {
            insert(headers, NEXT_CURSOR, cursor);
        }
        if let Some(stale) = answer.stale {
            headers.insert(FRESHNESS, HeaderValue::from_static("stale"));
            if stale == Stale::Behind {
                headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("stale-ok"));
            }
        }
        self.with_source(response, answer.position())
    }

    /// Tells which generation an answer is of, how many messages that has handled at least, how far behind it is.
    pub(super) fn with_source(&self, mut response: Response, position: i64) -> Response {
        let headers = response.headers_mut();
        insert(headers, READ_MODEL, self.model.name());
        if let Some(waited_ms) = self.waited.and_then(|waited| u64::try_from(waited.as_millis()).ok()) {
            headers.insert(WAITED_MS, HeaderValue::from(waited_ms));
        }
        headers.insert(GENERATION, HeaderValue::from(self.model.generation.generation));
        headers.insert(POSITION, HeaderValue::from(position));
        if let Some(lag_ms) = self.model.lag_ms() {
            headers.insert(LAG_MS, HeaderValue::from(lag_ms));
        }
        response
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

pub(super) fn json_response(status: StatusCode, body: &Json) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
