//! Connection and names.

use super::super::access::{unreached, with_causes, with_remedy};
use super::super::{Place, SinkError, StoreUrls};
use crate::projection::RedisStore;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{ErrorKind, RedisError, ServerErrorKind, TlsCertificates};
use std::time::Duration;

/// Long enough for a batch of large documents; the crate's own limit of 0.5 s gives up on them after they were written.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// What the server says when it is the configuration that is wrong; waiting doesn't help.
const MISCONFIGURED: [&str; 4] = ["NOAUTH", "WRONGPASS", "NOPERM", "CROSSSLOT"];

/// Opens a connection that comes back by itself. Repeating and pausing is the host's business.
pub(super) fn connect(config: &RedisStore, urls: &StoreUrls) -> Result<ConnectionManager, SinkError> {
    let client = client(config, urls).map_err(broken)?;
    let settings = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECTION_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(200));
    ConnectionManager::new_lazy_with_config(client, settings).map_err(|e| classify(&e))
}

/// The server's address, the projection's database, and whom to trust.
pub(crate) fn client(config: &RedisStore, urls: &StoreUrls) -> Result<redis::Client, String> {
    let address = format!("{}/{}", urls.redis_url.trim_end_matches('/'), config.database);
    let client = match urls.authorities()? {
        Some(pem) if address.starts_with("rediss://") => {
            redis::Client::build_with_tls(address, TlsCertificates { client_tls: None, root_cert: Some(pem) })
        }
        _ => redis::Client::open(address),
    };
    client.map_err(|e| format!("REDIS_URL can't be used: {e}; expected redis(s)://[user:password@]host:port"))
}

/// The keys of a generation.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) generation: String,
    pub(super) prefix: String,
    pub(super) marker: String,
    pub(super) progress: String,
    children: String,
}

impl Names {
    pub(super) fn new(config: &RedisStore, place: &Place) -> Self {
        let generation = place.id();
        Self {
            prefix: config.prefix.clone(),
            marker: format!("projector:generation:{}", place.read_model),
            progress: format!("projector:progress:{generation}"),
            children: format!("projector:children:{generation}:"),
            generation,
        }
    }

    /// The key that holds a parent's children.
    pub(super) fn children(&self, parent: &str) -> String {
        format!("{}{parent}", self.children)
    }

    /// The prefix as a pattern for `SCAN`, its special characters taken literally.
    pub(super) fn pattern(&self) -> String {
        let mut pattern = String::with_capacity(self.prefix.len() + 1);
        for c in self.prefix.chars() {
            if matches!(c, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push('*');
        pattern
    }
}

pub(super) fn broken(reason: String) -> SinkError {
    SinkError::Broken { store: "redis", reason }
}

/// Full, read-only, loading, gone: all pass. Only a wrong set-up doesn't.
pub(super) fn classify(error: &RedisError) -> SinkError {
    let reason = with_causes(error);
    let wrong = matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig)
        || error.code().is_some_and(|code| MISCONFIGURED.contains(&code));
    if wrong { broken(with_remedy(reason)) } else { unreached("redis", reason) }
}

/// Whether the server refuses this key for what it holds.
pub(super) fn is_wrong_type(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ResponseError) | ErrorKind::Extension)
        && (error.code() == Some("WRONGTYPE") || error.to_string().contains("WRONGTYPE"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::Kind;

    #[test]
    fn a_prefix_is_matched_literally() {
        let config = RedisStore { prefix: "a*[b]?:".into(), database: 0 };
        let place = Place { read_model: "orders".into(), generation: 2, document: Kind::any() };
        let names = Names::new(&config, &place);
        assert_eq!(names.pattern(), "a\\*\\[b\\]\\?:*");
        assert_eq!(names.progress, "projector:progress:orders-g2");
    }
}
