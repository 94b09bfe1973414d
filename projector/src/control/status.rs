//! What each host says of the generations it feeds.

use super::{Control, ControlError};
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
    /// When the host said so.
    pub updated_at: chrono::DateTime<chrono::Utc>,
}

impl Control {
    /// Replaces this host's account of a generation.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn report(&self, status: &HostStatus) -> Result<(), ControlError> {
        sqlx::query(
            "insert into host_status (host, generation_id, events_applied, duplicates, errors, behind, last_error, lag_histogram)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (host, generation_id) do update set events_applied = excluded.events_applied,
                 duplicates = excluded.duplicates, errors = excluded.errors, behind = excluded.behind,
                 last_error = excluded.last_error, lag_histogram = excluded.lag_histogram, updated_at = now()",
        )
        .bind(status.host)
        .bind(status.generation_id)
        .bind(status.events_applied)
        .bind(status.duplicates)
        .bind(status.errors)
        .bind(status.behind)
        .bind(&status.last_error)
        .bind(&status.lag_histogram)
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
