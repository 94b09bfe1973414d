//! Loading aggregates that are nothing but their events: the newest snapshot and what came after it.
//!
//! A stream has no row that could be locked, so writers take an advisory lock on its name, until their transaction ends.
//! Several streams are locked by rising key in one statement: two transfers that cross wait, and don't deadlock. The
//! lock only spares races; `UNIQUE (stream_id, stream_position)` is what keeps two writers from one position.
//!
//! The locks come in a statement of their own, as a statement that waits sees everything else as it was before the wait.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use sqlx::{PgConnection, Row};

use super::read::{Recorded, history};
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
               select stream_position, data -> 'state' as data, null as event_type, null as schema_version,
                      null as metadata, 0::bigint as global_position, $1 as stream_id, null as event_id, null as epoch,
                      0::bigint as txid, null as created_at
               from snapshot
               union all
               (select stream_position, data, event_type, schema_version, metadata, global_position, stream_id, event_id,
                       epoch, txid, created_at
                from events
                where stream_id = $1 and stream_position <= $2
                  and stream_position > coalesce((select stream_position from snapshot), 0)
                order by stream_position limit $4)";
    let query = sqlx::query(sql).bind(stream_id).bind(position).bind(A::SNAPSHOT_FORMAT).bind(PAGE);
    let rows = query.fetch_all(&mut *connection).await?;
    let mut state: Option<A> = None;
    for row in &rows {
        state = match row.try_get::<Option<String>, _>("event_type")? {
            None => Some(serde_json::from_value(row.try_get::<Json, _>("data")?)?),
            Some(_) => Some(Recorded::of(row)?.evolve(state)?),
        };
    }
    // Without snapshots there may be more than a page.
    let mut full = rows.len() >= PAGE as usize;
    while let Some(known) = state.as_ref().filter(|_| full).map(Aggregate::version) {
        let page = history(connection, stream_id, known, PAGE.min(position - known)).await?;
        full = page.len() == PAGE as usize;
        for event in page {
            state = Some(event.evolve(state)?);
        }
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
