//! Running a command, again if it lost a race.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use sqlx::PgPool;

use super::{Codec, CommandError, Receipt, UnitOfWork};

/// Tries of one command, the first included.
pub const ATTEMPTS_MAX: u32 = 6;
/// Waits grow from about this to about 16 times as much.
const WAIT_MS: u64 = 4;

/// What a request asks for. It may run several times: it loads afresh each time and keeps nothing.
pub trait Command: Send + Sync {
    /// What it gives beside the receipt.
    type Answer: Send;

    /// Loads, decides, writes the state tables and records events.
    fn run(&self, unit: &mut UnitOfWork<'_>) -> impl Future<Output = Result<Self::Answer, CommandError>> + Send;
}

/// A command that happened.
#[derive(Clone, Debug)]
pub struct Done<T> {
    /// What the command gave.
    pub answer: T,
    /// What was committed.
    pub receipt: Receipt,
}

/// The write side.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    codec: Arc<Codec>,
}

impl Store {
    /// A store in a database that is migrated.
    #[must_use]
    pub fn new(pool: PgPool, codec: Codec) -> Self {
        Self { pool, codec: Arc::new(codec) }
    }

    /// Its connections.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Runs a command in a transaction of its own. `metadata` goes with every event.
    ///
    /// # Errors
    /// [`CommandError`]; nothing has happened then, except that the answer to a commit may have been lost
    /// ([`CommandError::Database`]).
    pub async fn execute<C: Command>(&self, command: &C, metadata: &Json) -> Result<Done<C::Answer>, CommandError> {
        for attempt in 1..=ATTEMPTS_MAX {
            match self.attempt(command, metadata).await {
                Err(error) if lost_race(&error) => {
                    tracing::debug!(attempt, error = ?error, "lost a race");
                    if attempt < ATTEMPTS_MAX {
                        tokio::time::sleep(wait(attempt)).await;
                    }
                }
                result => return result,
            }
        }
        Err(CommandError::LostRace)
    }

    async fn attempt<C: Command>(&self, command: &C, metadata: &Json) -> Result<Done<C::Answer>, CommandError> {
        let mut unit = self.begin().await?;
        // Dropped on an error, which rolls back.
        let answer = command.run(&mut unit).await?;
        let receipt = unit.commit(metadata).await?;
        Ok(Done { answer, receipt })
    }
}

impl Store {
    /// Connections aren't tested when they are taken: after a restart of Postgres each fails once, before anything happened.
    async fn begin(&self) -> Result<UnitOfWork<'_>, sqlx::Error> {
        let mut stale = 0;
        loop {
            match UnitOfWork::begin(&self.pool, &self.codec).await {
                Err(error) if broken(&error) && stale < self.pool.options().get_max_connections() => stale += 1,
                result => return result,
            }
        }
    }
}

/// The connection was closed while nobody used it, with or without the server's goodbye.
fn broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("57P01" | "57P02" | "57P05" | "25P03")),
        _ => false,
    }
}

/// Another writer took the stream's position or the payment's id, or Postgres broke up a deadlock or a serialization conflict.
fn lost_race(error: &CommandError) -> bool {
    let CommandError::Database(sqlx::Error::Database(error)) = error else { return false };
    match error.code().as_deref() {
        Some("40001" | "40P01") => true,
        Some("23505") => matches!(error.constraint(), Some("events_stream_position" | "payments_pkey")),
        _ => false,
    }
}

/// Doubles with each attempt; half of it is chance, so that rivals don't meet again.
fn wait(attempt: u32) -> Duration {
    let full_us = WAIT_MS * 1_000 * (1 << (attempt - 1).min(4));
    let (_, chance) = uuid::Uuid::new_v4().as_u64_pair();
    Duration::from_micros(full_us / 2 + chance % (full_us / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_bounds() {
        for attempt in 1..=ATTEMPTS_MAX {
            let full_ms = WAIT_MS * (1 << (attempt - 1).min(4));
            for _ in 0..100 {
                let waited = wait(attempt);
                let bounds = Duration::from_millis(full_ms / 2)..=Duration::from_millis(full_ms);
                assert!(bounds.contains(&waited), "{waited:?}");
            }
        }
    }
}
