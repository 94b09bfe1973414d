//! What each host says of the generations it feeds.

use super::{Control, ControlError};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

/// A host's account of one generation since the host started.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct HostStatus {
    /// The host process.
    pub host: Uuid,
    /// The generation.
    pub generation_id: i64,
    /// Events that changed a document or added a row.
    pub events_applied: i64,
    /// Events that were skipped because they had been handled before.
    pub duplicates: i64,
    /// Failed attempts: programs that stopped, documents refused, calls that failed.
    pub errors: i64,
    /// Messages in the topics that are not handled yet.
    pub behind: i64,
    /// The last error, if it still stands.
    pub last_error: Option<String>,
    /// Commit → visible in µs: an `hdrhistogram`, V2 with deflate.
    pub lag_histogram: Vec<u8>,
    /// As it is now.
    #[sqlx(json)]
    pub present: Present,
    /// When the host said so.
    pub updated_at: DateTime<Utc>,
}

/// What a host says of a generation as it is now. One of an earlier release says none of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Present {
    /// When the oldest event happened that was read here and that readers don't see yet.
    pub oldest_unseen: Option<DateTime<Utc>>,
    /// Since when messages have been waiting in Kafka while none of them was at work here.
    pub idle_since: Option<DateTime<Utc>>,
    /// Commit → visible of what became visible in the last second or two, the slowest, in ms.
    pub lag_ms: u64,
    /// Since when it is above the threshold.
    pub late_since: Option<DateTime<Utc>>,
    /// When the event happened that was applied last.
    pub last_applied: Option<DateTime<Utc>>,
    /// What it waits for.
    pub waiting: Option<Waiting>,
    /// The first of its partitions that stand still.
    pub stopped: Option<Stopped>,
    /// Messages handled a second, of late.
    pub handled_per_s: f64,
    /// Messages that came to its partitions a second, of late.
    pub published_per_s: f64,
    /// Of the messages of the last minute, the part that failed.
    pub error_rate: f64,
    /// Above it the read model is late, in ms.
    pub lag_ms_max: Option<u64>,
    /// Above it that is critical, in ms.
    pub lag_ms_critical: Option<u64>,
    /// The store that its documents are in.
    pub store: Option<String>,
    /// Its partitions.
    pub positions: Vec<Position>,
}

/// Something is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What: a store's name, `schema registry`, `control store`.
    pub on: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// What it said, if it said anything.
    pub error: Option<String>,
}

/// A partition stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Since when.
    pub since: DateTime<Utc>,
    /// Where and why.
    pub reason: String,
}

/// How far a partition is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The offset of the first message that isn't handled.
    pub next_offset: i64,
    /// Messages not handled yet.
    pub behind: i64,
}

impl Control {
    /// Replaces this host's account of a generation.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn report(&self, status: &HostStatus) -> Result<(), ControlError> {
        sqlx::query(
            "insert into host_status (host, generation_id, events_applied, duplicates, errors, behind, last_error, lag_histogram, present)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             on conflict (host, generation_id) do update set events_applied = excluded.events_applied,
                 duplicates = excluded.duplicates, errors = excluded.errors, behind = excluded.behind,
                 last_error = excluded.last_error, lag_histogram = excluded.lag_histogram, present = excluded.present,
                 updated_at = now()",
        )
        .bind(status.host)
        .bind(status.generation_id)
        .bind(status.events_applied)
        .bind(status.duplicates)
        .bind(status.errors)
        .bind(status.behind)
        .bind(&status.last_error)
        .bind(&status.lag_histogram)
        .bind(Json(&status.present))
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// What all hosts said, also those that have stopped: their events count.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn host_status(&self) -> Result<Vec<HostStatus>, ControlError> {
        Ok(sqlx::query_as("select * from host_status order by updated_at").fetch_all(self.pool()).await?)
    }
}
