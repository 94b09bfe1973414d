//! How queries read the stores: one file a store. Reads are bound to one generation's physical place.

mod clickhouse;
mod elasticsearch;
mod postgres;
mod redis;

pub(crate) use clickhouse::ClickhouseReader;
pub(crate) use elasticsearch::{FoundHits, SearchReader};
pub(crate) use postgres::PostgresReader;
pub(crate) use redis::RedisReader;

use crate::control::Generation;
use crate::expr::Kind;
use crate::projection::Store;
use crate::sink::StoreUrls;
use crate::sink::access::{with_causes, with_remedy};
use std::time::Duration;

/// Why a store gave nothing; in words for the log, the caller hears less.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// Down, slow, overloaded, or an answer that isn't whole.
    #[error("{0}")]
    Unavailable(String),
    /// It refuses this query: what the projection's file declares is wrong.
    #[error("refused: {0}")]
    Refused(String),
}

impl ReadError {
    /// The store can't be reached; with the causes, which some errors don't name themselves.
    fn unavailable(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Unavailable(with_remedy(with_causes(error)))
    }
}

/// Sends a request and reads the whole answer as JSON.
async fn call<T: serde::de::DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, ReadError> {
    let response = request.send().await.map_err(|e| ReadError::unavailable(&e))?;
    let status = response.status();
    let body = response.bytes().await.map_err(|e| ReadError::unavailable(&e))?;
    if !status.is_success() {
        let said = format!("{status}: {}", String::from_utf8_lossy(&body).chars().take(500).collect::<String>());
        let refused = status == reqwest::StatusCode::BAD_REQUEST;
        return Err(if refused { ReadError::Refused(said) } else { ReadError::Unavailable(with_remedy(said)) });
    }
    serde_json::from_slice(&body).map_err(|e| ReadError::Unavailable(format!("unexpected answer: {e}")))
}

/// Reads one generation.
#[derive(Clone)]
pub(crate) enum Reader {
    Redis(RedisReader),
    Search(SearchReader),
    Clickhouse(ClickhouseReader),
    Postgres(PostgresReader),
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A search or a report that takes longer is given up.
const HTTP_TIMEOUT: Duration = Duration::from_secs(8);

/// One client for the stores that speak HTTP: it keeps connections open.
pub(crate) fn http_client(urls: &StoreUrls) -> Result<reqwest::Client, ReadError> {
    let mut client =
        reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(HTTP_TIMEOUT).tcp_nodelay(true);
    if let Some(pem) = urls.authorities().map_err(ReadError::Unavailable)? {
        let authorities = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| ReadError::unavailable(&e))?;
        client = client.tls_certs_only(authorities);
    }
    client.pool_max_idle_per_host(64).build().map_err(|e| ReadError::unavailable(&e))
}

impl Reader {
    /// Opens the reader that a generation's store asks for. Connects with the first read.
    pub(crate) fn open(
        store: &Store,
        generation: &Generation,
        document: &Kind,
        urls: &StoreUrls,
        client: &reqwest::Client,
    ) -> Result<Self, ReadError> {
        Ok(match store {
            Store::Redis(config) => Self::Redis(RedisReader::open(config, generation, document, urls)?),
            Store::Elasticsearch(_) => Self::Search(SearchReader::open(generation, document, urls, client)?),
            Store::Clickhouse(config) => Self::Clickhouse(ClickhouseReader::open(config, generation, urls, client)?),
            Store::Postgres(config) => Self::Postgres(PostgresReader::open(config, generation, urls)?),
        })
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
