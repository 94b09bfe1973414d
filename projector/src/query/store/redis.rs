//! Documents in Redis: one `HGETALL`, with the marker that tells whose database it is.

use super::{CONNECT_TIMEOUT, ReadError};
use crate::apply::Stored;
use crate::control::Generation;
use crate::expr::Kind;
use crate::projection::RedisStore;
use crate::sink::StoreUrls;
use crate::sink::redis::{
    client,
    convert::{Fields, from_hash},
    neighbour,
};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const READ_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(crate) struct RedisReader {
    /// Of the two databases of the read model: a swap exchanges them under open connections.
    connections: [ConnectionManager; 2],
    /// Where our generation was seen last.
    at: Arc<AtomicUsize>,
    marker: String,
    generation: String,
    prefix: String,
    fields: Arc<Fields>,
}

type Hash = HashMap<String, String>;

impl RedisReader {
    pub(super) fn open(
        config: &RedisStore,
        generation: &Generation,
        document: &Kind,
        urls: &StoreUrls,
    ) -> Result<Self, ReadError> {
        let other = RedisStore { database: neighbour(config.database), ..config.clone() };
        Ok(Self {
            connections: [connect(config, urls)?, connect(&other, urls)?],
            at: Arc::default(),
            marker: format!("projector:generation:{}", generation.read_model),
            generation: generation.id(),
            prefix: config.prefix.clone(),
            fields: Arc::new(Fields::new(document)),
        })
    }

    /// The document under a key.
    pub(crate) async fn read(&self, key: &str) -> Result<Option<Stored>, ReadError> {
        let here = self.at.load(Ordering::Relaxed);
        let (mut owner, mut hash) = self.look(here, key).await?;
        if owner.as_ref() != Some(&self.generation) {
            let other = 1 - here;
            match self.look(other, key).await {
                Ok((found, elsewhere)) if found.as_ref() == Some(&self.generation) => {
                    self.at.store(other, Ordering::Relaxed);
                    (owner, hash) = (found, elsewhere);
                }
                // A server may have one database only.
                Ok(_) | Err(_) => {}
            }
        }
        if let Some(owner) = owner.filter(|owner| *owner != self.generation) {
            return Err(ReadError::Unavailable(format!("the database is {owner}'s, not {}'s", self.generation)));
        }
        from_hash(hash, &self.fields).map_err(ReadError::Unavailable)
    }

    /// The marker and the hash of one moment. A read is safe to send again: once, for a connection that the server had closed.
    async fn look(&self, at: usize, key: &str) -> Result<(Option<String>, Hash), ReadError> {
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("GET").arg(&self.marker).cmd("HGETALL").arg(format!("{}{key}", self.prefix));
        let mut connection = self.connections[at].clone();
        let mut answer = pipeline.query_async(&mut connection).await;
        if answer.as_ref().is_err_and(|e: &redis::RedisError| e.is_io_error() || e.is_connection_dropped()) {
            answer = pipeline.query_async(&mut connection).await;
        }
        answer.map_err(|e| ReadError::unavailable(&e))
    }
}

fn connect(config: &RedisStore, urls: &StoreUrls) -> Result<ConnectionManager, ReadError> {
    let client = client(config, urls).map_err(ReadError::Unavailable)?;
    let settings = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(READ_TIMEOUT))
        .set_number_of_retries(3)
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(500));
    ConnectionManager::new_lazy_with_config(client, settings).map_err(|e| ReadError::unavailable(&e))
}
