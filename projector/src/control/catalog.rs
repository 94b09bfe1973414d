//! The catalog: which generations are live, as one version; and which version each query service answers from.
//!
//! A query service says its version before it reads the catalog for the first time and each time it follows. So a swap knows
//! whom to wait for: those that said another version within the last second. One that was silent for longer must ask before
//! it answers.

use super::generation::{COLUMNS, Generation};
use super::{Control, ControlError};
use uuid::Uuid;

/// How long a query service answers from what it knows without asking.
pub const SERVE_LEASE_MS: u64 = 1_000;

impl Control {
    /// The catalog's version with its live generations, by name.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn catalog(&self) -> Result<(i64, Vec<Generation>), ControlError> {
        let mut tx = self.pool().begin().await?;
        sqlx::query("set transaction isolation level repeatable read, read only").execute(&mut *tx).await?;
        let version = sqlx::query_scalar("select version from catalog").fetch_one(&mut *tx).await?;
        let sql = format!("select {COLUMNS} from generation where state = 'live' order by read_model");
        let live = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok((version, live))
    }

    /// Says which version a query service answers from; gives the newest one.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn serves(&self, serve: Uuid, version: i64) -> Result<i64, ControlError> {
        Ok(sqlx::query_scalar(
            "with said as (
                 insert into serve_lease (serve, version, seen_at) values ($1, $2, clock_timestamp())
                 on conflict (serve) do update set version = excluded.version, seen_at = excluded.seen_at)
             select version from catalog",
        )
        .bind(serve)
        .bind(version)
        .fetch_one(self.pool())
        .await?)
    }

    /// A query service has stopped.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn serves_no_more(&self, serve: Uuid) -> Result<(), ControlError> {
        sqlx::query("delete from serve_lease where serve = $1").bind(serve).execute(self.pool()).await?;
        Ok(())
    }

    /// How many query services may still answer from an older version.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn serving_older_than(&self, version: i64) -> Result<i64, ControlError> {
        // A little longer than the lease: its holder counts from before it asked.
        Ok(sqlx::query_scalar(
            "select count(*) from serve_lease
             where version < $1 and seen_at > clock_timestamp() - make_interval(secs => $2)",
        )
        .bind(version)
        .bind(f64::from(u32::try_from(SERVE_LEASE_MS).unwrap_or(u32::MAX)) / 1_000.0)
        .fetch_one(self.pool())
        .await?)
    }
}
