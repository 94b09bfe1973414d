//! What commands took and came to, as Prometheus reads it (`/metrics`). Labels are paths as they are declared, and words of ours.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::store::Store;

/// Name, labels and meaning of each; docs/write-side.md lists them.
pub const METRICS: [(&str, &[&str], &str); 3] = [
    (
        "command_request_seconds",
        &["command", "outcome"],
        "Answering a command, by its path: accepted, refused (4xx), failed (5xx)",
    ),
    ("command_append_seconds", &[], "Appending a command's events and committing them"),
    ("command_outbox_unstamped_rows", &[], "Rows of the outbox that aren't known to be published, 100,000 at most"),
];
const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
const COUNT_WITHIN: Duration = Duration::from_secs(1);

type Labels = [(&'static str, String); 2];

/// How long appending a command's events took: goes with its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended(pub(super) Duration);

/// Distributions since the service was started.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    requests: Family<Labels, Histogram, fn() -> Histogram>,
    appends: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { requests: Family::new_with_constructor(seconds), appends: seconds() }
    }
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// Measures each command.
pub(super) async fn measure(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let (method, began) = (request.method().clone(), Instant::now());
    let response = next.run(request).await;
    let Some(path) = path.filter(|_| method != Method::GET && method != Method::HEAD) else { return response };
    let command = format!("{method} {}", path.strip_prefix("/api").unwrap_or(&path));
    let outcome = match response.status() {
        status if status.is_server_error() => "failed",
        status if status.is_client_error() => "refused",
        _ => "accepted",
    };
    let labels = [("command", command), ("outcome", outcome.to_owned())];
    metrics.requests.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
    if let Some(Appended(took)) = response.extensions().get::<Appended>() {
        metrics.appends.observe(took.as_secs_f64());
    }
    response
}

/// The page.
pub(super) async fn page(metrics: Metrics, store: Store) -> Response {
    let sql = "select count(*) from (select from outbox where published_at is null limit 100000) as some";
    let count = sqlx::query_scalar::<_, i64>(sql).fetch_one(store.pool());
    // What can't be counted now isn't shown.
    let unstamped = tokio::time::timeout(COUNT_WITHIN, count).await.ok().and_then(Result::ok);
    match metrics.text(unstamped) {
        Ok(text) => ([(CONTENT_TYPE, CONTENT)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Metrics {
    fn text(&self, unstamped: Option<i64>) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::default();
        let [requests, appends, rows] = METRICS;
        registry.register(requests.0, requests.2, self.requests.clone());
        registry.register(appends.0, appends.2, self.appends.clone());
        if let Some(unstamped) = unstamped {
            let gauge = Gauge::<i64>::default();
            gauge.set(unstamped);
            registry.register(rows.0, rows.2, gauge);
        }
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::post;

    #[tokio::test]
    async fn commands_are_measured_by_their_declared_path() {
        let metrics = Metrics::default();
        let accepted = || async {
            let mut response = StatusCode::CREATED.into_response();
            response.extensions_mut().insert(Appended(Duration::from_millis(3)));
            response
        };
        let routes = Router::new().route("/orders/{id}/cancel", post(accepted));
        let app = Router::new()
            .merge(routes.clone())
            .nest("/api", routes)
            .layer(from_fn_with_state(metrics.clone(), measure));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let http = reqwest::Client::new();
        for path in ["/orders/1/cancel", "/api/orders/2/cancel", "/nothing"] {
            http.post(format!("http://{address}{path}")).send().await.unwrap();
        }
        let text = metrics.text(Some(9)).unwrap();
        let counts: Vec<_> = text.lines().filter(|line| line.contains("_count") || line.contains("_rows ")).collect();
        let requests = "command_request_seconds_count{command=\"POST /orders/{id}/cancel\",outcome=\"accepted\"} 2";
        // A path that isn't declared makes no label.
        let expected = [requests, "command_append_seconds_count 2", "command_outbox_unstamped_rows 9"];
        assert_eq!(counts[..2], expected[..2], "{text}");
        assert_eq!(counts.last(), expected.last(), "{text}");
    }

    #[test]
    fn what_is_shown_is_documented() {
        let document = include_str!("../../../docs/write-side.md");
        for (name, ..) in METRICS {
            assert!(document.contains(&format!("`{name}`")), "{name} is not in docs/write-side.md");
        }
    }
}
