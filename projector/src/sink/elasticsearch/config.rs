//! The client: one call, its time-out, and what its failures mean.

use super::super::access::{Credentials, unreached, with_causes, with_remedy};
use super::super::{SinkError, StoreUrls};
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::headers::{CONTENT_TYPE, HeaderMap, HeaderValue};
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use elasticsearch::http::{Method, StatusCode};
use serde_json::Value as Json;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Client {
    transport: Transport,
}

/// A call's answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Json,
}

impl Client {
    pub(super) fn new(urls: &StoreUrls) -> Result<Self, SinkError> {
        let access = urls.elasticsearch().map_err(broken)?;
        let mut transport = TransportBuilder::new(SingleNodeConnectionPool::new(access.url));
        if let Some(Credentials { user, password }) = access.credentials {
            transport = transport.auth(elasticsearch::auth::Credentials::Basic(user, password));
        }
        if let Some(pem) = access.authorities {
            let authorities = Certificate::from_pem(&pem).map_err(|e| broken(format!("STORES_CA_FILE: {e}")))?;
            transport = transport.cert_validation(CertificateValidation::Full(authorities));
        }
        let transport = transport.build().map_err(|e| broken(format!("ELASTICSEARCH_URL can't be used: {e}")))?;
        Ok(Self { transport })
    }

    /// Calls; a server that is away or overloaded is an error, all else an answer.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Answer, SinkError> {
        let mut headers = HeaderMap::new();
        let kind = if path.contains("/_bulk") { "application/x-ndjson" } else { "application/json" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let began = Instant::now();
        let sent = self.transport.send(method, path, headers, None::<&()>, body, Some(TIMEOUT)).await;
        let response = sent.map_err(|e| unreached("elasticsearch", with_causes(&e)))?;
        let status = response.status_code();
        let text = response.text().await.map_err(|e| unavailable(with_causes(&e)))?;
        tracing::trace!(path, %status, ms = began.elapsed().as_millis(), "answered");
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(unavailable(format!("{path}: {status} {}", shorten(&text))));
        }
        let body = serde_json::from_str(&text).unwrap_or(Json::String(text));
        Ok(Answer { status: status.as_u16(), body })
    }

    /// [`Client::call`] for calls that a right set-up never refuses.
    pub(super) async fn expect(&self, method: Method, path: &str, body: Option<&Json>) -> Result<Json, SinkError> {
        let answer = self.call(method, path, body.map(|b| b.to_string().into_bytes())).await?;
        if answer.status < 300 { Ok(answer.body) } else { Err(answer.refused(path)) }
    }
}

impl Answer {
    /// What a refusal of the whole call means: a blocked index (disk full, read-only) passes, the rest doesn't.
    pub(super) fn refused(&self, path: &str) -> SinkError {
        let reason = with_remedy(format!("{path}: {} {}", self.status, shorten(&self.body.to_string())));
        if self.status == 403 && reason.contains("cluster_block") { unavailable(reason) } else { broken(reason) }
    }
}

pub(super) fn unavailable(reason: String) -> SinkError {
    SinkError::Unavailable { store: "elasticsearch", reason }
}

pub(super) fn broken(reason: String) -> SinkError {
    SinkError::Broken { store: "elasticsearch", reason }
}

fn shorten(text: &str) -> String {
    text.chars().take(500).collect()
}
