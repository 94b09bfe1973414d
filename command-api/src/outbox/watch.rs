//! Whether the slot is still the one that it was.

use serde::Serialize;
use sqlx::{PgPool, Row};

/// Why nothing can be said of what is published.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// It isn't there, or has lost WAL that it needed.
    #[error("there is no usable replication slot {0} in this database")]
    NoSlot(String),
    /// Postgres.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// What is known of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Bytes from the beginning of the WAL.
    pub confirmed_lsn: i64,
    /// Rows of earlier transactions stay.
    pub keep_below: Option<i64>,
    /// Of the database.
    pub epoch: String,
}

/// Looks at the slot, and remembers. If it jumped since the last look, rows from before stay from now on.
///
/// # Errors
/// [`OutboxError`].
pub async fn look(pool: &PgPool, slot: &str) -> Result<Watch, OutboxError> {
    let mut transaction = pool.begin().await?;
    // Held to the end, so that two services don't take each other's look for a step back.
    let sql = "select epoch, confirmed_lsn, decoded, keep_below from outbox_watch where slot = $1 for update";
    let known = sqlx::query(sql).bind(slot).fetch_optional(&mut *transaction).await?;
    // `now` is the next transaction: whatever is there already has a lower one.
    let sql = "select outbox_epoch() as epoch, pg_wal_lsn_diff(s.confirmed_flush_lsn, '0/0')::bigint as confirmed_lsn,
                      coalesce(t.total_txns, 0) as decoded, pg_snapshot_xmax(pg_current_snapshot())::text::bigint as now
               from pg_replication_slots s left join pg_stat_replication_slots t using (slot_name)
               where slot_name = $1 and database = current_database() and wal_status is distinct from 'lost'
                 and confirmed_flush_lsn is not null";
    let found = sqlx::query(sql).bind(slot).fetch_optional(&mut *transaction).await?;
    let found = found.ok_or_else(|| OutboxError::NoSlot(slot.to_owned()))?;
    let (epoch, confirmed_lsn): (String, i64) = (found.try_get("epoch")?, found.try_get("confirmed_lsn")?);
    let (decoded, now): (i64, i64) = (found.try_get("decoded")?, found.try_get("now")?);

    let keep_below = match known {
        None => {
            tracing::info!(slot, txid = now, "the outbox is watched from here on; earlier rows stay");
            Some(now)
        }
        Some(known) => {
            let jumped = known.try_get::<String, _>("epoch")? != epoch
                || known.try_get::<i64, _>("confirmed_lsn")? > confirmed_lsn
                || known.try_get::<i64, _>("decoded")? > decoded;
            if jumped {
                tracing::warn!(
                    slot,
                    txid = now,
                    "the slot is not where it was: outbox rows from before stay, see `command-api outbox`"
                );
            }
            if jumped { Some(now) } else { known.try_get("keep_below")? }
        }
    };
    let sql = "insert into outbox_watch (slot, epoch, confirmed_lsn, decoded, keep_below) values ($1, $2, $3, $4, $5)
               on conflict (slot) do update set epoch = excluded.epoch, confirmed_lsn = excluded.confirmed_lsn,
                   decoded = excluded.decoded, keep_below = excluded.keep_below";
    let query = sqlx::query(sql).bind(slot).bind(&epoch).bind(confirmed_lsn).bind(decoded).bind(keep_below);
    query.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Watch { confirmed_lsn, keep_below, epoch })
}

/// The outbox in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// All rows.
    pub rows: i64,
    /// Of them, not known to be published.
    pub unstamped: i64,
    /// Of these, rows that stay until they are accepted: a jump of the slot may have passed over them.
    pub kept: i64,
}

/// Counts.
///
/// # Errors
/// Postgres'.
pub async fn status(pool: &PgPool, slot: &str) -> Result<Status, OutboxError> {
    let sql = "select count(*) as rows, count(*) filter (where o.published_at is null) as unstamped,
                      count(*) filter (where o.published_at is null and (o.txid < w.keep_below or o.epoch <> w.epoch)) as kept
               from outbox o left join outbox_watch w on w.slot = $1";
    let row = sqlx::query(sql).bind(slot).fetch_one(pool).await?;
    Ok(Status { rows: row.try_get("rows")?, unstamped: row.try_get("unstamped")?, kept: row.try_get("kept")? })
}

/// An operator knows that the rows that stay have reached Kafka, or need not: they are stamped. Gives how many.
///
/// # Errors
/// Postgres'.
pub async fn accept(pool: &PgPool, slot: &str) -> Result<u64, OutboxError> {
    let sql = "update outbox o set published_at = clock_timestamp() from outbox_watch w
               where w.slot = $1 and o.published_at is null and (o.txid < w.keep_below or o.epoch <> w.epoch)";
    Ok(sqlx::query(sql).bind(slot).execute(pool).await?.rows_affected())
}
