//! A stream's state, at the end or at any time before.

use serde::Serialize;
use serde_json::Value as Json;
use sqlx::{PgConnection, Row};

use super::{AuditError, aggregate_type};
use crate::domain::{Account, Aggregate, Customer, Order, Product, Time};
use crate::store::streams;

/// Which moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    /// Now.
    End,
    /// Just after the event at this position.
    Position(i64),
    /// After everything that had happened by then.
    Time(Time),
}

/// A stream as it was.
#[derive(Clone, Debug, Serialize)]
pub struct StateAt {
    /// The stream.
    pub stream_id: String,
    /// The last event that is in it.
    pub position: i64,
    /// When that event happened.
    pub occurred_at: Time,
    /// The aggregate.
    pub state: Json,
}

/// Loads a stream as it was, from the newest snapshot before that moment.
///
/// # Errors
/// [`AuditError`].
pub async fn state(connection: &mut PgConnection, stream_id: &str, at: At) -> Result<StateAt, AuditError> {
    let (position, time) = match at {
        At::End => (None, None),
        At::Position(position) => (Some(position), None),
        At::Time(time) => (None, Some(time)),
    };
    // Both walk the stream's index from its end.
    let sql = "select l.last, e.stream_position, e.created_at
               from (select max(stream_position) as last from events where stream_id = $1) l
               left join lateral (
                   select stream_position, created_at from events
                   where stream_id = $1 and ($2::bigint is null or stream_position = $2)
                     and ($3::timestamptz is null or created_at <= $3)
                   order by stream_position desc limit 1) e on true";
    let row = sqlx::query(sql).bind(stream_id).bind(position).bind(time).fetch_one(&mut *connection).await?;
    let Some(last) = row.try_get::<Option<i64>, _>("last")? else {
        return Err(AuditError::NoStream(stream_id.to_owned()));
    };
    let Some(position) = row.try_get::<Option<i64>, _>("stream_position")? else {
        let asked = position.map(|n| n.to_string()).or(time.map(|t| t.to_rfc3339())).unwrap_or_default();
        return Err(AuditError::NotThen { stream_id: stream_id.to_owned(), asked, last });
    };
    let state = match aggregate_type(stream_id) {
        Order::TYPE => load::<Order>(connection, stream_id, position).await?,
        Customer::TYPE => load::<Customer>(connection, stream_id, position).await?,
        Product::TYPE => load::<Product>(connection, stream_id, position).await?,
        Account::TYPE => load::<Account>(connection, stream_id, position).await?,
        _ => return Err(AuditError::NoStream(stream_id.to_owned())),
    };
    Ok(StateAt { stream_id: stream_id.to_owned(), position, occurred_at: row.try_get("created_at")?, state })
}

async fn load<A: Aggregate>(connection: &mut PgConnection, stream_id: &str, position: i64) -> Result<Json, AuditError> {
    let state: Option<A> = streams::load(connection, stream_id, position).await?;
    Ok(serde_json::to_value(state).map_err(crate::store::CommandError::from)?)
}
