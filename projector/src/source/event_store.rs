//! The event store, read in an order that a lost topic can be refilled in.
//!
//! Debezium sends rows in the order of their commits, which no column remembers: `global_position` and clocks follow the
//! writing. A refill needs no order of commits, though, only one that keeps what readers rely on:
//!
//! 1. (invariant I0, [`crate::apply::Progress`]) no row comes behind a row whose `tx_min` is above its `txid`,
//! 2. an aggregate's sequences rise.
//!
//! Here rows come by **floor**, then sequence, where a row's floor is the largest `tx_min` among its aggregate's rows up to
//! itself. (`tx_min` alone would do for 1, as `tx_min ≤ txid` in each row, but not always for 2: a statement that
//! waited for a lock keeps the snapshot it began with. `txid` in between breaks 2 outright: of two transactions with one
//! `tx_min`, the one that began later may have written the earlier event.)
//!
//! Proof of 2: along an aggregate the floor never falls, and where it stays the sequence decides.
//! Proof of 1: let e come before f, so floor(e) ≤ floor(f). `tx_min(e)` ≤ floor(e) ≤ floor(f) = `tx_min(g)` for some g of
//! f's aggregate with a sequence not above f's. When g was written f's transaction hadn't ended: it is g's own, or it wrote
//! on top of g. A transaction that hadn't ended had an id not below the oldest running one, or got its id later. So
//! `tx_min(g)` ≤ `txid(f)`.
//! What Debezium sends afterwards fits behind: rows that the snapshot saw are duplicates and told as such, since all of them
//! were handled; a row h that it didn't see was written by a transaction that hadn't ended when any of the rows seen was
//! written, so its `txid` isn't below any of their `tx_min`.
//!
//! Transaction ids compare within one epoch only; epochs come in the order of their first `global_position`.
//!
//! All is read in one snapshot, through a cursor over narrow rows: Postgres sorts these once (on disk, if they are many), the
//! payloads are fetched 500 at a time.

use crate::apply::Occurrence;
use crate::event::Raw;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, FromRow, PgConnection};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Which rows.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Of this type of aggregate.
    pub aggregate_type: String,
    /// From this `global_position` on.
    pub from_position: i64,
    /// Of these aggregates only; of all, if none is named.
    pub aggregate_ids: Vec<String>,
}

/// Why the event store couldn't be read.
#[derive(Debug, thiserror::Error)]
pub enum EventStoreError {
    /// Postgres can't be reached, or refuses.
    #[error("event store: {0}; expected a table `events` as docs/republish.md describes it")]
    Database(#[from] sqlx::Error),
    /// A row that no transaction can have written.
    #[error(
        "event store: row {position} ({aggregate_id}, sequence {sequence}) has txid {txid} behind a row with tx_min {watermark}: \
         that transaction would have ended before the other began, and its event be taken for a duplicate; txid and tx_min \
         must be those of the writing transaction"
    )]
    Impossible {
        /// Its `global_position`.
        position: i64,
        /// Its aggregate.
        aggregate_id: String,
        /// Its place in there.
        sequence: i64,
        /// Its transaction.
        txid: i64,
        /// The largest `tx_min` of it and the rows before it.
        watermark: i64,
    },
    /// A transaction keeps a snapshot from being exact.
    #[error(
        "event store: transaction {txid} has been open for longer than {patience:?}, and its events may be in Kafka already; end it \
         (select * from pg_stat_activity where backend_xid is not null order by xact_start), this goes on by itself"
    )]
    Open {
        /// The oldest one.
        txid: i64,
        /// How long it was waited for.
        patience: Duration,
    },
}

/// What there is to send.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Survey {
    /// Rows.
    pub events: u64,
    /// When the oldest happened.
    pub oldest: Option<DateTime<Utc>>,
    /// When the newest happened.
    pub newest: Option<DateTime<Utc>>,
    /// The epochs, in order.
    pub epochs: Vec<String>,
}

/// A row's identity and place.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Key {
    /// `global_position`.
    pub position: i64,
    /// Its aggregate.
    pub aggregate_id: String,
    /// Its place in there, from 1.
    pub sequence: i64,
    /// Which life of the database the transaction ids belong to.
    pub epoch: String,
    /// The transaction that wrote it.
    pub txid: i64,
    /// The oldest transaction running when it was written.
    pub tx_min: i64,
    created_at: DateTime<Utc>,
}

/// A row as a message. All but key and payload is text: the form that Connect's `StringConverter` gives headers.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct StoredEvent {
    /// The key: the aggregate's id.
    pub aggregate_id: String,
    /// The bytes as they were encoded.
    pub payload: Vec<u8>,
    id: String,
    event_type: String,
    schema_version: String,
    aggregate_type: String,
    sequence: String,
    epoch: String,
    txid: String,
    tx_min: String,
    occurred_at: String,
    metadata: String,
}

impl StoredEvent {
    /// Which life of the database wrote it.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// What names it within its epoch and topic; none if its row is out of order.
    #[must_use]
    pub fn occurrence(&self) -> Option<Occurrence> {
        let (txid, sequence) = (self.txid.parse().ok()?, self.sequence.parse().ok()?);
        Some((txid, self.aggregate_id.as_str().into(), sequence))
    }

    /// Key, headers and payload as a consumer has them.
    #[must_use]
    pub fn raw(&self) -> Raw {
        Raw::new(Some(self.aggregate_id.as_bytes()), &self.headers(), Some(&self.payload))
    }

    /// The headers in the order of connectors/outbox.json, behind the router's own; without `tx_snapshot`, which would claim the very
    /// order of commits.
    #[must_use]
    pub fn headers(&self) -> [(&'static str, &str); 10] {
        [
            ("id", &self.id),
            ("event_type", &self.event_type),
            ("schema_version", &self.schema_version),
            ("aggregate_type", &self.aggregate_type),
            ("sequence", &self.sequence),
            ("epoch", &self.epoch),
            ("txid", &self.txid),
            ("tx_min", &self.tx_min),
            ("occurred_at", &self.occurred_at),
            ("metadata", &self.metadata),
        ]
    }
}

/// The rows of a selection as one snapshot sees them, in the order above.
pub struct History {
    connection: PgConnection,
}

const OPEN: &str = "
declare history scroll cursor for
with chosen as (
    select global_position as position, aggregate_id, stream_position as sequence, epoch, txid, tx_min, created_at
    from events
    where aggregate_type = $1 and global_position >= $2 and (cardinality($3::text[]) = 0 or aggregate_id = any($3))
), lives as (
    select epoch, min(position) as begin from chosen group by epoch
), placed as (
    select chosen.*, lives.begin, max(tx_min) over (partition by aggregate_id, epoch order by sequence) as floor
    from chosen join lives using (epoch)
)
select position, aggregate_id, sequence, epoch, txid, tx_min, created_at from placed
order by begin, floor, sequence, position";

/// Debezium gives a time all six digits of its microseconds, and jsonb the text that Postgres gives it.
const LOAD: &str = r#"
select aggregate_id, payload, event_id::text as id, event_type, schema_version::text as schema_version, aggregate_type,
       stream_position::text as sequence, epoch, txid::text as txid, tx_min::text as tx_min,
       to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as occurred_at, metadata::text as metadata
from unnest($1::bigint[]) with ordinality as wanted(position, nth)
join events on events.global_position = wanted.position
order by nth"#;

async fn connect(url: &str) -> Result<PgConnection, EventStoreError> {
    // Sorting may be slow, and is no news.
    let options = PgConnectOptions::from_str(url)?.application_name("projector").disable_statement_logging();
    Ok(options.connect().await?)
}

/// Reading takes as long as who takes the events takes.
const BEGIN: &str = "begin isolation level repeatable read read only;
    set local statement_timeout = 0;
    set local idle_in_transaction_session_timeout = 0";

/// How soon it is looked again whether transactions have ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl History {
    /// Takes a snapshot and sorts what it sees of the selection.
    ///
    /// # Errors
    /// [`EventStoreError::Database`].
    pub async fn open(url: &str, selection: &Selection) -> Result<Self, EventStoreError> {
        let mut history = Self { connection: connect(url).await? };
        sqlx::raw_sql(BEGIN).execute(&mut history.connection).await?;
        history.sort(selection).await?;
        Ok(history)
    }

    /// [`History::open`], in a snapshot that sees every transaction that has committed by now, also one whose commit others have
    /// heard of (by the log that Debezium reads) before Postgres lets snapshots see it.
    ///
    /// A transaction has its id before it writes, so one that has committed has a smaller id than one that is made now. All of
    /// those have ended when the oldest one running has at least that id. (The end of another snapshot wouldn't do for that:
    /// it is one above the last transaction known to have *ended*, so the one in question may be at or above it.)
    ///
    /// # Errors
    /// [`EventStoreError`]; among them that a transaction stays open for longer than `patience`.
    pub async fn open_behind(url: &str, selection: &Selection, patience: Duration) -> Result<Self, EventStoreError> {
        let mut history = Self { connection: connect(url).await? };
        let now: i64 =
            sqlx::query_scalar("select pg_current_xact_id()::text::bigint").fetch_one(&mut history.connection).await?;
        let until = Instant::now() + patience;
        loop {
            sqlx::raw_sql(BEGIN).execute(&mut history.connection).await?;
            let oldest: i64 = sqlx::query_scalar("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
                .fetch_one(&mut history.connection)
                .await?;
            if oldest >= now {
                break;
            }
            sqlx::raw_sql("rollback").execute(&mut history.connection).await?;
            if Instant::now() > until {
                return Err(EventStoreError::Open { txid: oldest, patience });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        history.sort(selection).await?;
        Ok(history)
    }

    async fn sort(&mut self, selection: &Selection) -> Result<(), EventStoreError> {
        sqlx::query(OPEN)
            .bind(&selection.aggregate_type)
            .bind(selection.from_position)
            .bind(&selection.aggregate_ids)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Counts what there is from the beginning, makes sure that it can be told apart, and returns to the beginning.
    ///
    /// # Errors
    /// [`EventStoreError`]; among them a row that can't be as it is.
    pub async fn survey(&mut self) -> Result<Survey, EventStoreError> {
        let mut survey = Survey::default();
        let mut watermark = 0;
        loop {
            let keys = self.keys().await?;
            if keys.is_empty() {
                break;
            }
            for key in keys {
                if survey.epochs.last() != Some(&key.epoch) {
                    survey.epochs.push(key.epoch.clone());
                    watermark = 0;
                }
                watermark = watermark.max(key.tx_min);
                if key.txid < watermark {
                    let Key { position, aggregate_id, sequence, txid, .. } = key;
                    return Err(EventStoreError::Impossible { position, aggregate_id, sequence, txid, watermark });
                }
                survey.events += 1;
                survey.oldest = survey.oldest.into_iter().chain([key.created_at]).min();
                survey.newest = survey.newest.into_iter().chain([key.created_at]).max();
            }
        }
        self.rewind().await?;
        Ok(survey)
    }

    /// Returns to the beginning.
    ///
    /// # Errors
    /// [`EventStoreError::Database`].
    pub async fn rewind(&mut self) -> Result<(), EventStoreError> {
        sqlx::query("move absolute 0 in history").execute(&mut self.connection).await?;
        Ok(())
    }

    /// The next rows in order; none at the end.
    ///
    /// # Errors
    /// [`EventStoreError::Database`].
    pub async fn keys(&mut self) -> Result<Vec<Key>, EventStoreError> {
        let fetch = "fetch forward 500 from history";
        Ok(sqlx::query_as(fetch).persistent(false).fetch_all(&mut self.connection).await?)
    }

    /// The next events in order; none at the end.
    ///
    /// # Errors
    /// [`EventStoreError::Database`].
    pub async fn events(&mut self) -> Result<Vec<StoredEvent>, EventStoreError> {
        let positions: Vec<i64> = self.keys().await?.into_iter().map(|key| key.position).collect();
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        Ok(sqlx::query_as(LOAD).bind(positions).fetch_all(&mut self.connection).await?)
    }
}

#[cfg(test)]
#[path = "event_store_tests.rs"]
mod tests;
