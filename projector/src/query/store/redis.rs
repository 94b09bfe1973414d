//! Documents in Redis: one `HGETALL`.

use super::{CONNECT_TIMEOUT, ReadError};
use crate::apply::Stored;
use crate::expr::Kind;
use crate::projection::RedisStore;
use crate::sink::StoreUrls;
use crate::sink::redis::{client, convert::from_hash};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use std::collections::HashMap;
use std::time::Duration;

const READ_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(crate) struct RedisReader {
    connection: ConnectionManager,
    prefix: String,
    document: Kind,
}

impl RedisReader {
    pub(super) fn open(config: &RedisStore, document: &Kind, urls: &StoreUrls) -> Result<Self, ReadError> {
        let client = client(config, urls).map_err(ReadError::Unavailable)?;
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(READ_TIMEOUT))
            .set_number_of_retries(3)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(500));
        let connection =
            ConnectionManager::new_lazy_with_config(client, settings).map_err(|e| ReadError::unavailable(&e))?;
        Ok(Self { connection, prefix: config.prefix.clone(), document: document.clone() })
    }

    /// The document under a key. A read is safe to send again: once, for a connection that the server had closed.
    pub(crate) async fn read(&self, key: &str) -> Result<Option<Stored>, ReadError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(format!("{}{key}", self.prefix));
        let mut connection = self.connection.clone();
        let mut answer: Result<HashMap<String, String>, _> = command.query_async(&mut connection).await;
        if answer.as_ref().is_err_and(|e| e.is_io_error() || e.is_connection_dropped()) {
            answer = command.query_async(&mut connection).await;
        }
        from_hash(answer.map_err(|e| ReadError::unavailable(&e))?, &self.document).map_err(ReadError::Unavailable)
    }
}
