//! Loading aggregates that are nothing but their events: the newest snapshot and what came after it.
//!
//! A stream has no row that could be locked, so writers take an advisory lock on its name, until their transaction ends.
//! Several streams are locked by rising key in one statement: two transfers that cross wait, and don't deadlock. The
//! lock only spares races; `UNIQUE (stream_id, stream_position)` is what keeps two writers from one position.
//!
//! The locks come in a statement of their own, as a statement that waits sees everything else as it was before the wait.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::read::Foldable;
use super::{CommandError, lock_key};
use crate::domain::Aggregate;

/// How many events are read at once, where there is no snapshot: bounds memory.
const PAGE: i64 = 10_000;

/// `account` and `acc-1` make `account-acc-1`.
#[must_use]
pub fn stream_id(aggregate_type: &str, aggregate_id: &str) -> String {
    format!("{aggregate_type}-{aggregate_id}")
}

pub(super) async fn lock(connection: &mut PgConnection, streams: &[String]) -> Result<(), sqlx::Error> {
    // A set: sorted, and each once.
    let keys: BTreeSet<i64> = streams.iter().map(|stream| lock_key(stream)).collect();
    let keys: Vec<i64> = keys.into_iter().collect();
    let sql = "select pg_advisory_xact_lock(key) from unnest($1::bigint[]) as key";
    sqlx::query(sql).bind(keys).execute(connection).await?;
    Ok(())
}

/// A stream's newest snapshot at or before `position`, and the events behind it, in one round trip; `None` without events.
/// What a snapshot of another format says is left alone.
///
/// # Errors
/// Postgres', or events that can't be read.
pub async fn load<A: Aggregate>(
    connection: &mut PgConnection,
    stream_id: &str,
    position: i64,
) -> Result<Option<A>, CommandError> {
    // The snapshot comes as a row without an event type.
    let sql = "with snapshot as materialized (
                   select stream_position, data from snapshots
                   where stream_id = $1 and stream_position <= $2 and (data ->> 'format')::int = $3
                   order by stream_position desc limit 1)
               select stream_position, data -> 'state', null, null, null from snapshot
               union all
               (select stream_position, data, event_type, schema_version, created_at from events
                where stream_id = $1 and stream_position <= $2
                  and stream_position > coalesce((select stream_position from snapshot), 0)
                order by stream_position limit $4)";
    let query = sqlx::query(sql).bind(stream_id).bind(position).bind(A::SNAPSHOT_FORMAT).bind(PAGE);
    let mut rows = query.fetch_all(&mut *connection).await?;
    let mut state = fold::<A>(stream_id, None, &rows)?;
    // Without snapshots there may be more than a page.
    while let Some(known) = state.as_ref().map(Aggregate::version).filter(|_| rows.len() >= PAGE as usize) {
        let sql = "select stream_position, data, event_type, schema_version, created_at from events
                   where stream_id = $1 and stream_position > $2 and stream_position <= $3 order by stream_position limit $4";
        rows =
            sqlx::query(sql).bind(stream_id).bind(known).bind(position).bind(PAGE).fetch_all(&mut *connection).await?;
        state = fold(stream_id, state, &rows)?;
    }
    Ok(state)
}

/// Folds a page, which may begin with a snapshot.
fn fold<A: Aggregate>(stream_id: &str, mut state: Option<A>, rows: &[PgRow]) -> Result<Option<A>, CommandError> {
    for row in rows {
        // By number: looking names up is what much of the time would go into.
        let data: Json = row.try_get(1)?;
        state = Some(match row.try_get::<Option<&str>, _>(2)? {
            None => serde_json::from_value(data)?,
            Some(event_type) => {
                let (position, schema_version) = (row.try_get(0)?, row.try_get(3)?);
                let event = Foldable { position, event_type, schema_version, data, occurred_at: row.try_get(4)? };
                event.evolve(stream_id, state)?
            }
        });
    }
    Ok(state)
}

/// For snapshots: a state with its format.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) stream_id: String,
    pub(super) position: i64,
    pub(super) data: Json,
}

impl Snapshot {
    pub(super) fn of<A: Aggregate>(state: &A) -> Result<Self, serde_json::Error> {
        let data = serde_json::json!({"format": A::SNAPSHOT_FORMAT, "state": serde_json::to_value(state)?});
        Ok(Self { stream_id: stream_id(A::TYPE, &state.id()), position: state.version(), data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_everywhere() {
        // Another release, on another machine, must take the same locks.
        assert_eq!(lock_key(&stream_id("account", "acc-1")), 5_309_858_718_663_463_989);
        assert_ne!(lock_key("account-acc-1"), lock_key("account-acc-2"));
    }
}
