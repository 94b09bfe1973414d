//! Marks, and what follows once one is known to be published.

use std::time::Duration;

use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::{Heartbeats, OutboxError, Watch, look};

/// Rows that one statement touches: short transactions, as each holds back the watermark of all read models.
const BATCH: i64 = 2_000;

/// A moment in the WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Transactions below had ended.
    pub tx_min: i64,
    /// Their rows lie before this, in bytes from the beginning of the WAL.
    pub lsn: i64,
    /// The row that shows it in Kafka, and its transaction.
    pub heartbeat: (Uuid, i64),
}

/// How many rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Published {
    pub stamped: u64,
    pub pruned: u64,
}

/// Takes a mark.
///
/// # Errors
/// Postgres'.
pub async fn mark(pool: &PgPool) -> Result<Mark, OutboxError> {
    let sql = "insert into outbox (aggregate_type, aggregate_id, sequence, event_type, payload)
               values ('heartbeat', 'heartbeat', 0, 'Heartbeat', '\\x00') returning outbox_id, txid, tx_min";
    let row = sqlx::query(sql).fetch_one(pool).await?;
    // Only now: the row's commit must lie before it. It does, and all commits before it: they were flushed with it.
    let sql = "select pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint";
    let lsn = sqlx::query_scalar(sql).fetch_one(pool).await?;
    Ok(Mark { tx_min: row.try_get("tx_min")?, lsn, heartbeat: (row.try_get("outbox_id")?, row.try_get("txid")?) })
}

/// Stamps and prunes if all that lies before the mark is published; `None` if that isn't known yet.
///
/// # Errors
/// [`OutboxError`].
pub async fn settle(
    pool: &PgPool,
    slot: &str,
    mark: &Mark,
    heartbeats: &mut impl Heartbeats,
    kept: Duration,
) -> Result<Option<Published>, OutboxError> {
    let watch = look(pool, slot).await?;
    if watch.confirmed_lsn < mark.lsn {
        return Ok(None);
    }
    let sql = "select outbox_id from outbox
               where published_at is null and aggregate_type = 'heartbeat' and epoch = $1 and txid >= $2 and txid <= $3";
    let from = watch.keep_below.unwrap_or(0);
    let sent: Vec<Uuid> =
        sqlx::query_scalar(sql).bind(&watch.epoch).bind(from).bind(mark.heartbeat.1).fetch_all(pool).await?;
    // A jump after the mark has made its heartbeat one of the rows that stay.
    if !sent.contains(&mark.heartbeat.0) || !heartbeats.read_back(&sent).await {
        return Ok(None);
    }
    let stamped = stamp(pool, &watch, mark).await?;
    let pruned = prune(pool, kept).await?;
    Ok(Some(Published { stamped, pruned }))
}

/// When the oldest heartbeat was written that is not stamped, in milliseconds since 1970; now if there is none.
///
/// # Errors
/// Postgres'.
pub async fn oldest_heartbeat_ms(pool: &PgPool) -> Result<i64, OutboxError> {
    let sql = "select (extract(epoch from coalesce(min(occurred_at), now())) * 1000)::bigint from outbox
               where published_at is null and aggregate_type = 'heartbeat'";
    Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
}

async fn stamp(pool: &PgPool, watch: &Watch, mark: &Mark) -> Result<u64, OutboxError> {
    let sql = "update outbox set published_at = clock_timestamp() where outbox_id = any(array(
                   select outbox_id from outbox
                   where published_at is null and epoch = $1 and txid >= $2 and txid < $3 limit $4))";
    let mut stamped = 0;
    loop {
        let query = sqlx::query(sql).bind(&watch.epoch).bind(watch.keep_below.unwrap_or(0));
        let rows = query.bind(mark.tx_min).bind(BATCH).execute(pool).await?.rows_affected();
        stamped += rows;
        if rows < BATCH as u64 {
            return Ok(stamped);
        }
    }
}

async fn prune(pool: &PgPool, kept: Duration) -> Result<u64, OutboxError> {
    let sql = "delete from outbox where outbox_id = any(array(
                   select outbox_id from outbox where published_at < clock_timestamp() - make_interval(secs => $1) limit $2))";
    let mut pruned = 0;
    loop {
        let rows = sqlx::query(sql).bind(kept.as_secs_f64()).bind(BATCH).execute(pool).await?.rows_affected();
        pruned += rows;
        if rows < BATCH as u64 {
            return Ok(pruned);
        }
    }
}
