//! The client: one statement, its time-out, and what its failures mean.

use super::super::access::{Credentials, unreached, with_causes, with_remedy};
use super::super::{SinkError, StoreUrls};
use bytes::Bytes;
use clickhouse::Client as Http;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::{Client as HyperClient, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The server's codes for content that it can't take: parse errors, types, ranges, nulls, constraints. Only these are ever an
/// event's fault; a code that isn't known here is waited for.
const CONTENT: [u32; 25] =
    [6, 25, 26, 27, 32, 33, 38, 41, 53, 69, 70, 72, 117, 130, 131, 158, 321, 349, 376, 407, 441, 467, 469, 675, 691];
/// Codes for a wrong set-up, which waiting doesn't mend: syntax, no such table, database, column or setting; access.
const SETUP: [u32; 14] = [10, 16, 36, 47, 50, 60, 62, 81, 115, 192, 193, 194, 497, 516];
/// The server closes connections that were idle for 3 s.
const IDLE_MAX: Duration = Duration::from_secs(2);
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(super) struct Client {
    http: Http,
}

/// Why a statement failed.
pub(super) enum Failure {
    /// The rows that it carried are to blame; the server's words.
    Refused(String),
    /// All else.
    Error(SinkError),
}

impl From<Failure> for SinkError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(reason) => broken(reason),
            Failure::Error(error) => error,
        }
    }
}

impl Client {
    pub(super) fn new(urls: &StoreUrls) -> Result<Self, SinkError> {
        let access = urls.clickhouse().map_err(broken)?;
        let http = if access.url.scheme() == "https" {
            https(access.authorities.as_deref()).map_err(broken)?
        } else {
            Http::default()
        };
        let http = match &access.credentials {
            Some(Credentials { user, password }) => http.with_user(user).with_password(password),
            None => http,
        };
        let http = http
            // Without a database: each statement names it, and the first one makes it.
            .with_url(access.base())
            // An insert is answered when its rows are there, an answer begins when it is whole.
            .with_setting("async_insert", "0")
            .with_setting("wait_end_of_query", "1")
            // History reaches over more months than a block may have by default.
            .with_setting("max_partitions_per_insert_block", "0")
            .with_setting("input_format_null_as_default", "0")
            .with_setting("input_format_skip_unknown_fields", "0")
            .with_setting("date_time_input_format", "best_effort")
            .with_setting("output_format_json_quote_64bit_integers", "0");
        Ok(Self { http })
    }

    pub(super) async fn execute(&self, sql: &str) -> Result<(), Failure> {
        let done = tokio::time::timeout(TIMEOUT, self.http.query_raw(sql).execute()).await;
        done.map_err(|_| timed_out())?.map_err(|e| classify(&e))
    }

    /// A statement's answer, a JSON object a line.
    pub(super) async fn rows(&self, sql: &str) -> Result<Vec<serde_json::Value>, Failure> {
        let read = async { self.http.query_raw(sql).fetch_bytes("JSONEachRow")?.collect().await };
        let bytes = tokio::time::timeout(TIMEOUT, read).await.map_err(|_| timed_out())?.map_err(|e| classify(&e))?;
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).map_err(|e| Failure::Error(broken(e.to_string())))).collect()
    }

    /// Inserts lines of JSON objects by a statement that has its `FORMAT` still to come, `INSERT INTO table`.
    pub(super) async fn insert(&self, head: &str, lines: Bytes) -> Result<(), Failure> {
        let sql = format!("{head} FORMAT JSONEachRow");
        let mut insert = self.http.insert_formatted_with(sql).with_timeouts(Some(TIMEOUT), Some(TIMEOUT));
        insert.send(lines).await.map_err(|e| classify(&e))?;
        insert.end().await.map_err(|e| classify(&e))
    }
}

/// As the crate's own client, with TLS.
fn https(authorities: Option<&[u8]>) -> Result<Http, String> {
    let builder = HttpsConnectorBuilder::new();
    let builder = match authorities {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let added =
                    certificate.map_err(|e| e.to_string()).and_then(|c| roots.add(c).map_err(|e| e.to_string()));
                added.map_err(|e| format!("STORES_CA_FILE: {e}"))?;
            }
            builder.with_tls_config(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
        }
        None => builder
            .with_native_roots()
            .map_err(|e| format!("{e}; name the authority of ClickHouse's certificate in STORES_CA_FILE"))?,
    };
    let mut plain = HttpConnector::new();
    plain.set_keepalive(Some(TCP_KEEPALIVE));
    plain.enforce_http(false);
    let connector = builder.https_only().enable_http1().wrap_connector(plain);
    Ok(Http::with_http_client(HyperClient::builder(TokioExecutor::new()).pool_idle_timeout(IDLE_MAX).build(connector)))
}

fn classify(error: &(dyn std::error::Error + 'static)) -> Failure {
    let reason = with_causes(error).replace('\n', " ");
    let said = reason.chars().take(500).collect();
    match code(&reason) {
        Some(code) if CONTENT.contains(&code) => Failure::Refused(said),
        Some(code) if SETUP.contains(&code) => Failure::Error(broken(with_remedy(said))),
        _ => Failure::Error(unreached("clickhouse", said)),
    }
}

/// The code in `… Code: 27. DB::Exception: …`.
fn code(reason: &str) -> Option<u32> {
    let (_, rest) = reason.split_once("Code: ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn timed_out() -> Failure {
    Failure::Error(unavailable(format!("no answer within {} s", TIMEOUT.as_secs())))
}

fn unavailable(reason: String) -> SinkError {
    SinkError::Unavailable { store: "clickhouse", reason }
}

pub(super) fn broken(reason: String) -> SinkError {
    SinkError::Broken { store: "clickhouse", reason }
}

/// An identifier in backquotes.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A text in quotes.
pub(super) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Failure {
        classify(&clickhouse::error::Error::BadResponse(text.into()))
    }

    #[test]
    fn failures_are_sorted_by_whose_fault_they_are() {
        assert!(matches!(failure("Code: 27. DB::Exception: Cannot parse input"), Failure::Refused(_)));
        assert!(matches!(failure("Code: 60. DB::Exception: no table"), Failure::Error(SinkError::Broken { .. })));
        let full = "Code: 252. DB::Exception: Too many parts";
        assert!(matches!(failure(full), Failure::Error(SinkError::Unavailable { .. })));
        assert!(matches!(failure("connection reset"), Failure::Error(SinkError::Unavailable { .. })));
    }
}
