//! Telling alerts to a webhook: one JSON message each, in order, tried again for a while. Nobody waits for it.

use super::machine::Notice;
use crate::control::{Alert, Severity};
use crate::host::Backoff;
use chrono::{DateTime, Utc};
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(5);
/// For how long a message is worth telling.
const TELL_WITHIN: Duration = Duration::from_secs(300);
const WAITING_MAX: usize = 256;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Message {
    alert: String,
    /// `firing` or `resolved`.
    status: &'static str,
    severity: Severity,
    read_model: Option<String>,
    since: DateTime<Utc>,
    resolved_at: Option<DateTime<Utc>>,
    text: String,
    remedy: String,
}

impl From<&Alert> for Message {
    fn from(alert: &Alert) -> Self {
        let Alert { name, read_model, severity, since, text, remedy, resolved_at } = alert.clone();
        let status = if resolved_at.is_some() { "resolved" } else { "firing" };
        Self { alert: name, status, severity, read_model, since, resolved_at, text, remedy }
    }
}

/// Sends messages on a task of its own, which ends when this is dropped.
#[derive(Debug)]
pub struct Webhook {
    queue: mpsc::Sender<Message>,
    failures: Counter,
}

impl Webhook {
    /// Begins to send to `url`; messages that are given up are counted.
    ///
    /// # Errors
    /// There is no HTTP client to be had.
    pub fn start(url: &str, failures: Counter) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        let (queue, mut messages) = mpsc::channel(WAITING_MAX);
        let (url, counted) = (url.to_owned(), failures.clone());
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                if !tell(&http, &url, &message).await {
                    counted.inc();
                }
            }
        });
        Ok(Self { queue, failures })
    }

    /// Tells it as soon as it is its turn; returns at once.
    pub fn tell(&self, notice: &Notice) {
        let message = Message::from(notice.alert());
        if let Err(error) = self.queue.try_send(message) {
            self.failures.inc();
            tracing::error!(%error, alert = notice.alert().name, "the alert webhook is too slow: a message is dropped");
        }
    }
}

async fn tell(http: &reqwest::Client, url: &str, message: &Message) -> bool {
    let (mut backoff, until) = (Backoff::default(), Instant::now() + TELL_WITHIN);
    loop {
        let sent = http.post(url).json(message).send().await.and_then(reqwest::Response::error_for_status);
        // The address may hold a secret.
        let Err(error) = sent.map_err(reqwest::Error::without_url) else { return true };
        let pause = backoff.next_pause();
        if Instant::now() + pause > until {
            tracing::error!(%error, alert = message.alert, "not told to the alert webhook: given up");
            return false;
        }
        if backoff.tries() == 1 {
            tracing::warn!(%error, alert = message.alert, "not told to the alert webhook; trying again");
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn messages_come_in_order_though_the_listener_fails_at_first() {
        let got: Arc<Mutex<Vec<serde_json::Value>>> = Arc::default();
        let seen = Arc::clone(&got);
        let answer = move |axum::Json(body): axum::Json<serde_json::Value>| {
            let mut seen = seen.lock().unwrap();
            let n = seen.len();
            seen.push(body);
            async move { if n == 0 { StatusCode::BAD_GATEWAY } else { StatusCode::OK } }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let server = tokio::spawn(axum::serve(listener, Router::new().route("/hook", post(answer))).into_future());
        let webhook = Webhook::start(&url, Counter::default()).unwrap();
        let alert = Alert {
            name: "store-down".into(),
            read_model: Some("loans".into()),
            severity: Severity::Critical,
            since: Utc::now(),
            text: "redis is away".into(),
            remedy: "bring it back".into(),
            resolved_at: None,
        };
        webhook.tell(&Notice::Raised(alert.clone()));
        webhook.tell(&Notice::Resolved(Alert { resolved_at: Some(Utc::now()), ..alert }));
        for _ in 0..100 {
            if got.lock().unwrap().len() == 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let got: Vec<_> = got.lock().unwrap().iter().map(|body| body["status"].clone()).collect();
        assert_eq!(got, ["firing", "firing", "resolved"]);
        server.abort();
    }
}
