//! The part of Kafka Connect's REST API that is needed here.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

/// A connector's configuration: Connect takes strings only.
pub type Config = BTreeMap<String, String>;

/// A field that Connect's validation refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The configuration's key.
    pub field: String,
    /// Connect's reasons.
    pub errors: Vec<String>,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.errors.join("; "))
    }
}

/// State of a connector and its tasks.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The connector itself.
    pub connector: Worker,
    /// Its tasks; none until Connect has assigned them.
    pub tasks: Vec<Worker>,
}

/// State of the connector or of one task.
#[derive(Clone, Debug, Deserialize)]
pub struct Worker {
    /// RUNNING, FAILED, UNASSIGNED, PAUSED, STOPPED or RESTARTING.
    pub state: String,
    /// The stack trace of a failure.
    #[serde(default)]
    pub trace: Option<String>,
}

impl Status {
    /// The trace of the first part that failed.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        std::iter::once(&self.connector)
            .chain(&self.tasks)
            .find(|worker| worker.state == "FAILED")
            .map(|worker| worker.trace.as_deref().unwrap_or("no trace given"))
    }

    /// Whether the connector is stopped, with no task left.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.tasks.is_empty() && self.connector.state == "STOPPED"
    }

    /// Whether the connector and at least one task run.
    #[must_use]
    pub fn running(&self) -> bool {
        let mut all = std::iter::once(&self.connector).chain(&self.tasks);
        !self.tasks.is_empty() && all.all(|worker| worker.state == "RUNNING")
    }
}

/// Why a request to Connect failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No answer, or not an answer of Connect.
    #[error("asking Kafka Connect at {url}")]
    Http {
        /// The URL asked.
        url: String,
        /// The client's reason.
        source: reqwest::Error,
    },
    /// An answer that is an error.
    #[error("Kafka Connect refuses {url}: {status} {message}")]
    Refused {
        /// The URL asked.
        url: String,
        /// The HTTP status.
        status: reqwest::StatusCode,
        /// Connect's message.
        message: String,
    },
    /// The configuration names no connector class.
    #[error("the configuration has no connector.class")]
    NoClass,
}

/// A client of one Kafka Connect cluster.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

#[derive(Deserialize)]
struct Validation {
    #[serde(default)]
    configs: Vec<ValidatedField>,
}

#[derive(Deserialize)]
struct ValidatedField {
    value: ValidatedValue,
}

#[derive(Deserialize)]
struct ValidatedValue {
    name: String,
    #[serde(default)]
    errors: Vec<String>,
}

impl Client {
    /// A client of the cluster at `base`, such as `http://127.0.0.1:18083`.
    ///
    /// # Errors
    /// The TLS set-up of this machine is unusable.
    pub fn new(base: &str) -> Result<Self, ConnectError> {
        let http = reqwest::Client::builder()
            // Validation connects to the database, so it can take a while.
            .timeout(Duration::from_secs(60))
            .build()
            .map_err(|source| ConnectError::Http { url: base.to_owned(), source })?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned() })
    }

    /// Fields that the connector's own validation refuses; it also tries the database's address and password.
    ///
    /// # Errors
    /// Connect is unreachable or does not know the class.
    pub async fn validate(&self, config: &Config) -> Result<Vec<FieldError>, ConnectError> {
        let class = config.get("connector.class").ok_or(ConnectError::NoClass)?;
        let path = format!("/connector-plugins/{class}/config/validate");
        let answer = self.send(Method::PUT, &path, Some(&json!(config))).await?;
        let validation: Validation = self.decode(&path, answer).await?;
        let refused = validation.configs.into_iter().map(|field| field.value).filter(|value| !value.errors.is_empty());
        Ok(refused.map(|value| FieldError { field: value.name, errors: value.errors }).collect())
    }

    /// The configuration of a connector, `None` if there is no such connector.
    ///
    /// # Errors
    /// Connect is unreachable.
    pub async fn config(&self, name: &str) -> Result<Option<Config>, ConnectError> {
        self.optional(&format!("/connectors/{name}/config")).await
    }

    /// The state of a connector, `None` if there is no such connector, or Connect has none yet.
    ///
    /// # Errors
    /// Connect is unreachable.
    pub async fn status(&self, name: &str) -> Result<Option<Status>, ConnectError> {
        self.optional(&format!("/connectors/{name}/status")).await
    }

    /// Creates a connector that does not run yet.
    ///
    /// # Errors
    /// Connect is unreachable or refuses the configuration.
    pub async fn create_stopped(&self, name: &str, config: &Config) -> Result<(), ConnectError> {
        let body = json!({ "name": name, "config": config, "initial_state": "STOPPED" });
        self.send(Method::POST, "/connectors", Some(&body)).await.map(drop)
    }

    /// Changes the configuration of a connector.
    ///
    /// # Errors
    /// Connect is unreachable or refuses the configuration.
    pub async fn put_config(&self, name: &str, config: &Config) -> Result<(), ConnectError> {
        self.send(Method::PUT, &format!("/connectors/{name}/config"), Some(&json!(config))).await.map(drop)
    }

    /// Asks for a connector's tasks to be shut down; its configuration and offsets stay.
    ///
    /// # Errors
    /// Connect is unreachable or refuses.
    pub async fn stop(&self, name: &str) -> Result<(), ConnectError> {
        self.send(Method::PUT, &format!("/connectors/{name}/stop"), None).await.map(drop)
    }

    /// Starts a stopped connector.
    ///
    /// # Errors
    /// Connect is unreachable or refuses.
    pub async fn resume(&self, name: &str) -> Result<(), ConnectError> {
        self.send(Method::PUT, &format!("/connectors/{name}/resume"), None).await.map(drop)
    }

    /// Forgets how far a stopped connector has read.
    ///
    /// # Errors
    /// Connect is unreachable or refuses, as it does while the connector runs.
    pub async fn forget_offsets(&self, name: &str) -> Result<(), ConnectError> {
        self.send(Method::DELETE, &format!("/connectors/{name}/offsets"), None).await.map(drop)
    }

    /// Restarts what failed of a connector: Connect never does so by itself.
    ///
    /// # Errors
    /// Connect is unreachable or refuses.
    pub async fn restart_failed(&self, name: &str) -> Result<(), ConnectError> {
        let path = format!("/connectors/{name}/restart?includeTasks=true&onlyFailed=true");
        self.send(Method::POST, &path, None).await.map(drop)
    }

    /// Removes a connector; false if there was none.
    ///
    /// # Errors
    /// Connect is unreachable or refuses.
    pub async fn delete(&self, name: &str) -> Result<bool, ConnectError> {
        match self.send(Method::DELETE, &format!("/connectors/{name}"), None).await {
            Ok(_) => Ok(true),
            Err(ConnectError::Refused { status: reqwest::StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn optional<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ConnectError> {
        match self.send(Method::GET, path, None).await {
            Ok(answer) => self.decode(path, answer).await.map(Some),
            Err(ConnectError::Refused { status: reqwest::StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<reqwest::Response, ConnectError> {
        let url = format!("{}{path}", self.base);
        let failed = |source| ConnectError::Http { url: url.clone(), source };
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            let mut request = self.http.request(method.clone(), &url);
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.send().await.map_err(failed)?;
            let status = answer.status();
            if status.is_success() {
                return Ok(answer);
            }
            // 409: the workers are rebalancing, which passes.
            if status == reqwest::StatusCode::CONFLICT && std::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(300)).await;
                continue;
            }
            let text = answer.text().await.unwrap_or_default();
            let message = serde_json::from_str::<Value>(&text)
                .ok()
                .and_then(|body| body.get("message")?.as_str().map(str::to_owned))
                .unwrap_or(text);
            return Err(ConnectError::Refused { url, status, message });
        }
    }

    async fn decode<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        answer: reqwest::Response,
    ) -> Result<T, ConnectError> {
        answer.json().await.map_err(|source| ConnectError::Http { url: format!("{}{path}", self.base), source })
    }
}
