//! Asking the query service whether a read model shows what a token names.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value as Json, json};

/// What its answer may take beyond the wait: it answers late rather than never.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// The query service, as far as commands know it.
#[derive(Clone, Debug)]
pub(super) struct QueryService {
    http: reqwest::Client,
    url: String,
}

/// Whether a read model shows what a command wrote.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Visible,
    Late { reason: String, detail: String, lag_ms: Option<u64> },
}

/// Of its problem details, what is passed on.
#[derive(Deserialize)]
struct Told {
    r#type: String,
    #[serde(default)]
    detail: String,
    lag_ms: Option<u64>,
}

impl QueryService {
    pub(super) fn new(url: &str) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder().tcp_nodelay(true).build()?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned() })
    }

    pub(super) async fn ask(&self, read_model: &str, token: &str, wait: Duration) -> Seen {
        let request = self.http.get(format!("{}/freshness/{read_model}?wait_ms={}", self.url, wait.as_millis()));
        let request = match telemetry::traceparent() {
            Some(traceparent) => request.header("traceparent", traceparent),
            None => request,
        };
        match request.header("consistency-token", token).timeout(wait + ANSWER_WITHIN).send().await {
            Ok(answer) if answer.status().is_success() => Seen::Visible,
            Ok(answer) => {
                let status = answer.status();
                match answer.json::<Told>().await {
                    Ok(Told { r#type, detail, lag_ms }) => {
                        let reason = r#type.rsplit('/').next().unwrap_or_default().to_owned();
                        Seen::Late { reason, detail, lag_ms }
                    }
                    Err(_) => Seen::late("not-asked", &format!("the query service answers {status}")),
                }
            }
            Err(error) => {
                tracing::warn!(read_model, %error, "the query service can't be asked");
                let what = if error.is_timeout() { "doesn't answer in time" } else { "can't be reached" };
                Seen::late("not-asked", &format!("the query service {what}"))
            }
        }
    }
}

impl Seen {
    pub(super) fn late(reason: &str, detail: &str) -> Self {
        Self::Late { reason: reason.to_owned(), detail: detail.to_owned(), lag_ms: None }
    }

    pub(super) fn is_visible(&self) -> bool {
        *self == Self::Visible
    }

    pub(super) fn to_json(&self) -> Json {
        match self {
            Self::Visible => json!({"visible": true}),
            Self::Late { reason, detail, lag_ms } => {
                let mut late = json!({"visible": false, "reason": reason, "detail": detail});
                if let Some(lag_ms) = lag_ms {
                    late["lag_ms"] = json!(lag_ms);
                }
                late
            }
        }
    }
}
