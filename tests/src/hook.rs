//! A listener for alerts, as an operator's tool is one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::Result;
use axum::{Json, Router, routing::post};
use serde_json::Value;

/// Takes what is POSTed to it, with when that was; until it is dropped.
#[derive(Debug)]
pub struct Hook {
    /// Where it listens.
    pub url: String,
    messages: Arc<Mutex<Vec<(Instant, Value)>>>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Hook {
    /// Listens on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> Result<Self> {
        let messages = Arc::<Mutex<Vec<_>>>::default();
        let got = Arc::clone(&messages);
        let take = move |Json(message): Json<Value>| {
            got.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), message));
            async {}
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/alerts", listener.local_addr()?);
        let app = Router::new().route("/alerts", post(take));
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { url, messages, server })
    }

    /// All that it was told.
    #[must_use]
    pub fn all(&self) -> Vec<(Instant, Value)> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When an alert was told first.
    #[must_use]
    pub fn told(&self, alert: &str, status: &str, read_model: Option<&str>) -> Option<(Instant, Value)> {
        let is = |message: &Value| {
            message["alert"] == alert && message["status"] == status && message["read_model"].as_str() == read_model
        };
        self.all().into_iter().find(|(_, message)| is(message))
    }
}
