//! Documents in Redis: one `HGETALL`.

use super::{CONNECT_TIMEOUT, ReadError, StoredDocument};
use crate::expr::{Kind, Object, Value, json};
use crate::projection::RedisStore;
use crate::sink::StoreUrls;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use std::collections::HashMap;
use std::time::Duration;

const READ_TIMEOUT: Duration = Duration::from_millis(500);
/// The field with the version.
const SEQ: &str = "_seq";
/// The field that a tombstone has.
const DELETED: &str = "_deleted";

#[derive(Clone)]
pub(crate) struct RedisReader {
    connection: ConnectionManager,
    prefix: String,
    document: Kind,
}

impl RedisReader {
    pub(super) fn open(config: &RedisStore, document: &Kind, urls: &StoreUrls) -> Result<Self, ReadError> {
        let address = format!("{}/{}", urls.redis_url.trim_end_matches('/'), config.database);
        let client = redis::Client::open(address).map_err(|e| ReadError::unavailable(&e))?;
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
    pub(crate) async fn read(&self, key: &str) -> Result<Option<StoredDocument>, ReadError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(format!("{}{key}", self.prefix));
        let mut connection = self.connection.clone();
        let mut answer: Result<HashMap<String, String>, _> = command.query_async(&mut connection).await;
        if answer.as_ref().is_err_and(|e| e.is_io_error() || e.is_connection_dropped()) {
            answer = command.query_async(&mut connection).await;
        }
        decode(answer.map_err(|e| ReadError::unavailable(&e))?, &self.document)
    }
}

/// A hash as a document: fields typed by what the projection's programs set; those that begin with `_` are the projector's.
fn decode(hash: HashMap<String, String>, document: &Kind) -> Result<Option<StoredDocument>, ReadError> {
    if hash.is_empty() {
        return Ok(None);
    }
    let version = hash.get(SEQ).and_then(|seq| seq.parse().ok());
    let version =
        version.ok_or_else(|| ReadError::Unavailable(format!("a hash without `{SEQ}`: not written by a projector")))?;
    if hash.contains_key(DELETED) {
        return Ok(Some(StoredDocument { version, fields: None }));
    }
    let visible = hash.into_iter().filter(|(name, _)| !name.starts_with('_'));
    let fields: Object = visible
        .map(|(name, text)| {
            let kind = field_kind(document, &name);
            (name.into(), typed(text, &kind))
        })
        .collect();
    Ok(Some(StoredDocument { version, fields: Some(fields) }))
}

fn field_kind(document: &Kind, name: &str) -> Kind {
    let fields = document.as_object();
    fields.and_then(|c| c.known().get(&name.into()).cloned()).unwrap_or_else(Kind::any)
}

/// Text as the type that the field has; text that isn't of it stays text.
fn typed(text: String, kind: &Kind) -> Value {
    if kind.contains_timestamp() || kind.is_bytes() {
        return json::from_json(text.into(), kind);
    }
    let other = kind.contains_integer()
        || kind.contains_float()
        || kind.contains_boolean()
        || kind.contains_object()
        || kind.contains_array();
    match serde_json::from_str(&text) {
        Ok(value) if other && !kind.contains_bytes() => json::from_json(value, kind),
        _ => Value::from(text),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::expr::Collection;

    fn kind() -> Kind {
        let list = Kind::array(Collection::empty().with_unknown(Kind::bytes()));
        Kind::object(
            Collection::empty()
                .with_known("n", Kind::integer())
                .with_known("zip", Kind::bytes())
                .with_known("at", Kind::timestamp())
                .with_known("open", Kind::boolean())
                .with_known("note", Kind::bytes().or_null())
                .with_known("tags", list),
        )
    }

    fn hash(fields: &[(&str, &str)]) -> HashMap<String, String> {
        fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn fields_have_the_type_that_the_projection_gives_them() {
        let at = "2026-05-23T10:00:00.123456Z";
        let fields = [
            ("_seq", "7"),
            ("n", "12"),
            ("zip", "01234"),
            ("at", at),
            ("open", "true"),
            ("tags", r#"["a","1"]"#),
            ("note", "5"),
        ];
        let stored = decode(hash(&fields), &kind()).unwrap().unwrap();
        assert_eq!(stored.version, 7);
        let expected =
            serde_json::json!({"n": 12, "zip": "01234", "at": at, "open": true, "tags": ["a", "1"], "note": "5"});
        assert_eq!(json::to_json(&Value::Object(stored.fields.unwrap())), expected);
    }

    #[test]
    fn what_is_not_there_what_was_deleted_and_what_is_not_ours_are_told_apart() {
        assert_eq!(decode(hash(&[]), &kind()).unwrap(), None);
        let deleted = decode(hash(&[("_seq", "9"), ("_deleted", "1")]), &kind()).unwrap().unwrap();
        assert_eq!((deleted.version, deleted.fields), (9, None));
        assert!(decode(hash(&[("n", "12")]), &kind()).is_err());
    }
}
