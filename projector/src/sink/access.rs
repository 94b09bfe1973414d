//! Where a store is reached, and how each side proves who it is.
//!
//! User and password stand in the store's URL, percent-encoded as in any URL; here they are taken out of it, so that no error
//! and no log that names the URL can tell them. The authorities that the stores' certificates are signed by come from one PEM
//! file for all stores.

use super::{SinkError, StoreUrls};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use sqlx::Connection as _;
use sqlx::postgres::PgPoolOptions;
use std::fmt;
use std::time::Duration;

/// How long a connection to Postgres may rest and be taken for alive.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// What a client needs of a store that speaks HTTP.
#[derive(Clone)]
pub(crate) struct Access {
    /// Without user and password, and without a slash at its end.
    pub(crate) url: Url,
    /// Whom the store shall take us for.
    pub(crate) credentials: Option<Credentials>,
    /// Certificate authorities in PEM.
    pub(crate) authorities: Option<Vec<u8>>,
}

/// A user and its password.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl Access {
    fn new(variable: &str, url: &str, authorities: Option<Vec<u8>>) -> Result<Self, String> {
        let wrong =
            |why: String| format!("{variable} can't be used: {why}; expected http(s)://[user:password@]host:port");
        let mut url = Url::parse(url).map_err(|e| wrong(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong(format!("`{}` is no HTTP address", url.scheme())));
        }
        let plain =
            |text: &str| percent_decode_str(text).decode_utf8().map(Into::into).map_err(|e| wrong(e.to_string()));
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => {
                Some(Credentials { user: plain(user)?, password: plain(password.unwrap_or_default())? })
            }
        };
        // Neither fails on an address with a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { url, credentials, authorities })
    }

    /// The URL as text that paths can be put behind.
    pub(crate) fn base(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// A request that says who asks.
    pub(crate) fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.credentials {
            Some(Credentials { user, password }) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }
}

impl StoreUrls {
    /// The certificate authorities, if any are named.
    ///
    /// # Errors
    /// A file that can't be read, or has no certificate in it.
    pub(crate) fn authorities(&self) -> Result<Option<Vec<u8>>, String> {
        let Some(path) = &self.ca_file else { return Ok(None) };
        let wrong = |why: String| format!("STORES_CA_FILE: {}: {why}", path.display());
        let pem = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| wrong(e.to_string()))?;
        if certificates.is_empty() {
            return Err(wrong("holds no certificate; expected the authorities' certificates in PEM".to_owned()));
        }
        Ok(Some(pem))
    }

    pub(crate) fn elasticsearch(&self) -> Result<Access, String> {
        Access::new("ELASTICSEARCH_URL", &self.elasticsearch_url, self.authorities()?)
    }

    pub(crate) fn clickhouse(&self) -> Result<Access, String> {
        Access::new("CLICKHOUSE_URL", &self.clickhouse_url, self.authorities()?)
    }
}

/// Connections to a Postgres, up to so many. Whether a server still answers costs a round trip: it is asked only by a connection that has
/// rested, so that one that was started anew is noticed before a statement fails, and busy ones don't ask before each.
pub(crate) fn pool(connections_max: u32, acquire_timeout: Duration) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(acquire_timeout)
        .test_before_acquire(false)
        // Instead of one that doesn't answer another one is opened, and if that fails, that is told.
        .before_acquire(|connection, rested| {
            Box::pin(async move { Ok(rested.idle_for < TRUSTED_FOR || connection.ping().await.is_ok()) })
        })
}

/// What to do about a failure, where one side's proof failed; waiting doesn't mend it.
pub(crate) fn remedy(reason: &str) -> Option<&'static str> {
    // rustls says so, whatever client is around it.
    if reason.contains("invalid peer certificate") {
        return Some(
            "STORES_CA_FILE must name the PEM file of the authority that signed the store's certificate, and the host in \
             the store's URL must be one that the certificate is for",
        );
    }
    // Redis and its client, Elasticsearch, ClickHouse. Words that stand in no address.
    let credentials = [
        "NOAUTH",
        "Authentication required",
        "WRONGPASS",
        "AuthenticationFailed",
        "security_exception",
        "AUTHENTICATION_FAILED",
        "REQUIRED_PASSWORD",
    ];
    credentials.iter().any(|word| reason.contains(word)).then_some(CREDENTIALS_REMEDY)
}

/// What to do where user and password were refused.
pub(crate) const CREDENTIALS_REMEDY: &str =
    "give a user and a password that the store knows in its URL (scheme://user:password@host), percent-encoded";

/// A failure in words, with what to do about it where that is known.
pub(crate) fn with_remedy(reason: String) -> String {
    match remedy(&reason) {
        Some(remedy) => format!("{reason}; {remedy}"),
        None => reason,
    }
}

/// An error with its causes, which some don't name themselves.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |e| e.source()).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A call that failed: the store is away, unless somebody's proof was refused.
pub(super) fn unreached(store: &'static str, reason: String) -> SinkError {
    match remedy(&reason) {
        Some(remedy) => SinkError::Broken { store, reason: format!("{reason}; {remedy}") },
        None => SinkError::Unavailable { store, reason },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_the_url_and_decoded() {
        let access = Access::new("X", "https://us%40er:p%3Aw%2F@search.example:9200/", None).unwrap();
        let Credentials { user, password } = access.credentials.clone().unwrap();
        assert_eq!((user.as_str(), password.as_str()), ("us@er", "p:w/"));
        assert_eq!(access.base(), "https://search.example:9200");
        assert!(!format!("{access:?}").contains("p:w"), "{access:?}");
        assert!(Access::new("X", "http://localhost:9200/prefix", None).unwrap().credentials.is_none());
    }

    #[test]
    fn an_address_that_cant_be_used_is_told_without_its_password() {
        for url in ["ftp://user:secret@host", "user:secret@host:9200", "https://user:secret@"] {
            let error = Access::new("ELASTICSEARCH_URL", url, None).unwrap_err();
            assert!(error.contains("ELASTICSEARCH_URL") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let path = std::env::temp_dir().join(format!("no-certificates-{}", std::process::id()));
        std::fs::write(&path, "nothing").unwrap();
        let urls = StoreUrls { ca_file: Some(path.clone()), ..StoreUrls::default() };
        let error = urls.authorities().unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains("no-certificates") && error.contains("PEM"), "{error}");
        let gone = urls.authorities().unwrap_err();
        assert!(gone.contains("STORES_CA_FILE"), "{gone}");
    }

    #[test]
    fn a_refused_proof_is_told_from_a_store_that_is_away() {
        assert!(remedy("client error (Connect): invalid peer certificate: UnknownIssuer").is_some());
        assert!(remedy("WRONGPASS invalid username-password pair or user is disabled.").is_some());
        assert_eq!(remedy("error sending request for url (http://10.0.0.1:28000/): connection refused"), None);
    }

    #[test]
    fn passwords_are_not_printed() {
        let urls = StoreUrls { redis_url: "redis://user:secret@host".into(), ..StoreUrls::default() };
        assert!(!format!("{urls:?}").contains("secret"));
    }
}
