//! Events as they were stored, and back to the domain's types: upcast on read, whatever asks for them.

use serde::Serialize;
use serde_json::{Value as Json, json};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::domain::{Aggregate, Time};

/// An event that the domain can't read: it was stored by a newer release, or by hand.
#[derive(Debug, thiserror::Error)]
#[error("event {stream_id} {position} ({event_type} version {schema_version}) can't be read: {reason}")]
pub struct ReadError {
    stream_id: String,
    position: i64,
    event_type: String,
    schema_version: i32,
    reason: String,
}

/// An event as it was stored, with who caused it, when, and as part of what.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)] // the columns of `events`
pub struct Recorded {
    pub global_position: i64,
    #[serde(skip)]
    pub stream_id: String,
    pub position: i64,
    pub event_id: Uuid,
    pub event_type: String,
    pub schema_version: i32,
    pub data: Json,
    pub metadata: Json,
    pub epoch: String,
    pub txid: i64,
    pub occurred_at: Time,
}

/// An event as folding needs it, and no more: loading an account reads many of them.
#[derive(Debug)]
pub(super) struct Foldable<'a> {
    pub(super) position: i64,
    pub(super) event_type: &'a str,
    pub(super) schema_version: i32,
    pub(super) data: Json,
    pub(super) occurred_at: Time,
}

impl Foldable<'_> {
    /// Folds this event behind `state`.
    pub(super) fn evolve<A: Aggregate>(self, stream_id: &str, state: Option<A>) -> Result<A, ReadError> {
        let Foldable { position, event_type, schema_version, data, occurred_at } = self;
        let fail = |reason: String| ReadError {
            stream_id: stream_id.to_owned(),
            position,
            event_type: event_type.to_owned(),
            schema_version,
            reason,
        };
        let event = event::<A>(event_type, schema_version, data).map_err(|error| fail(error.to_string()))?;
        let after = A::evolve(state, &event, occurred_at)
            .ok_or_else(|| fail("it doesn't begin a stream, or begins it twice".to_owned()))?;
        if after.version() != position {
            return Err(fail(format!("it is the {}. event", after.version())));
        }
        Ok(after)
    }
}

impl Recorded {
    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            global_position: row.try_get("global_position")?,
            stream_id: row.try_get("stream_id")?,
            position: row.try_get("stream_position")?,
            event_id: row.try_get("event_id")?,
            event_type: row.try_get("event_type")?,
            schema_version: row.try_get("schema_version")?,
            data: row.try_get("data")?,
            metadata: row.try_get("metadata")?,
            epoch: row.try_get("epoch")?,
            txid: row.try_get("txid")?,
            occurred_at: row.try_get("created_at")?,
        })
    }

    /// Folds this event behind `state`.
    ///
    /// # Errors
    /// [`ReadError`]: unknown to the domain, or not possible here.
    pub fn evolve<A: Aggregate>(&self, state: Option<A>) -> Result<A, ReadError> {
        let foldable = Foldable {
            position: self.position,
            event_type: &self.event_type,
            schema_version: self.schema_version,
            data: self.data.clone(),
            occurred_at: self.occurred_at,
        };
        foldable.evolve(&self.stream_id, state)
    }
}

/// An event of the domain from its stored form.
fn event<A: Aggregate>(event_type: &str, version: i32, data: Json) -> Result<A::Event, serde_json::Error> {
    let (version, data) = A::upcast(event_type, version, data);
    let name = if version == 1 { event_type.to_owned() } else { format!("{event_type}.v{version}") };
    serde_json::from_value(json!({ "event": name, "data": data }))
}

/// At most `limit` events of a stream behind position `after`, in order.
///
/// # Errors
/// Postgres'.
pub async fn history(
    connection: &mut PgConnection,
    stream_id: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<Recorded>, sqlx::Error> {
    let sql =
        "select global_position, stream_id, stream_position, event_id, event_type, schema_version, data, metadata,
                      epoch, txid, created_at
               from events where stream_id = $1 and stream_position > $2 order by stream_position limit $3";
    let rows = sqlx::query(sql).bind(stream_id).bind(after).bind(limit).fetch_all(connection).await?;
    rows.iter().map(Recorded::of).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::domain::{Account, Customer};

    fn recorded(event_type: &str, schema_version: i32, data: Json) -> Recorded {
        Recorded {
            global_position: 9,
            stream_id: "customer-x".to_owned(),
            position: 1,
            event_id: Uuid::nil(),
            event_type: event_type.to_owned(),
            schema_version,
            data,
            metadata: json!({}),
            epoch: String::new(),
            txid: 3,
            occurred_at: Time::UNIX_EPOCH,
        }
    }

    #[test]
    fn version_1_is_read_as_what_version_2_says() {
        let old = json!({"customer_id": Uuid::nil(), "name": "Ada  B. King", "email": "a@b", "credit_limit_cents": 5});
        let new = json!({"customer_id": Uuid::nil(), "first_name": "Ada", "last_name": "B. King", "email": "a@b", "credit_limit_cents": 5});
        let old: Customer = recorded("CustomerRegistered", 1, old).evolve(None).unwrap();
        assert_eq!(old, recorded("CustomerRegistered", 2, new).evolve(None).unwrap());
        assert_eq!(old.name, "Ada B. King");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (event_type, version, position, data) in [
            ("AccountMelted", 1, 1, json!({})),
            ("AccountLocked", 1, 1, json!({"account_id": "a", "command_id": "c", "locked_at": Time::UNIX_EPOCH})),
            ("AccountOpened", 7, 1, json!({})),
        ] {
            let error =
                Recorded { position, ..recorded(event_type, version, data) }.evolve::<Account>(None).unwrap_err();
            assert!(error.to_string().contains(event_type), "{error}");
        }
    }
}
