//! Running a command, again if it lost a race.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sqlx::PgPool;

use super::gate::Gate;
use super::idempotency::Kept;
use super::snapshots::Snapshots;
use super::{Codec, CommandError, Key, Receipt, UnitOfWork, idempotency};

/// Tries of one command, the first included.
pub const ATTEMPTS_MAX: u32 = 6;
/// Waits grow from about this to about 16 times as much.
const WAIT_MS: u64 = 4;

/// What a request asks for. It may run several times: it loads afresh each time and keeps nothing.
pub trait Command: Send + Sync {
    /// What the client's answer is made of.
    type Answer: Send;

    /// The streams that it will lock, as far as they are known beforehand: commands on one of them queue before they take a
    /// connection.
    fn streams(&self) -> Vec<String>;

    /// Loads, decides, writes the state tables and records events.
    fn run(&self, unit: &mut UnitOfWork<'_>) -> impl Future<Output = Result<Self::Answer, CommandError>> + Send;
}

/// What a request brings beside its command.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Who asks, and as part of what: goes with every event.
    pub metadata: Json,
    /// Makes retries safe.
    pub key: Option<Key>,
    /// The sequence that the client knows of the command's aggregate; with another one the command doesn't happen.
    pub expected: Option<i64>,
}

/// What a client is told of a command that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// HTTP's status code.
    pub status: u16,
    /// A JSON object.
    pub body: Json,
    /// Of the aggregate that the command is about.
    pub sequence: i64,
}

/// A command that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// What the client is told.
    pub reply: Reply,
    /// What was committed.
    pub receipt: Receipt,
    /// How long its events took, from the statement that appends them to the end of the commit; `None` for the answer to a retry.
    #[serde(skip)]
    pub append: Option<Duration>,
}

/// How a store keeps what it keeps.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Events of a stream between two snapshots.
    pub snapshot_every: u32,
    /// How long an idempotency key is remembered.
    pub keys_kept: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { snapshot_every: 100, keys_kept: Duration::from_secs(7 * 24 * 3_600) }
    }
}

/// The write side.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    codec: Arc<Codec>,
    options: Options,
    snapshots: Snapshots,
    gate: Arc<Gate>,
}

impl Store {
    /// A store in a database that is migrated. Must be called within a tokio runtime, which writes its snapshots.
    #[must_use]
    pub fn new(pool: PgPool, codec: Codec, options: Options) -> Self {
        let snapshots = Snapshots::start(pool.clone());
        Self { pool, codec: Arc::new(codec), options, snapshots, gate: Arc::default() }
    }

    /// Its connections.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Forgets idempotency keys whose time is over; gives how many.
    ///
    /// # Errors
    /// Postgres'.
    pub async fn expire_keys(&self) -> Result<u64, sqlx::Error> {
        idempotency::expire(&self.pool, self.options.keys_kept).await
    }

    /// Runs a command in a transaction of its own, unless its key was answered before. `reply` says what the client is told.
    ///
    /// # Errors
    /// [`CommandError`]; nothing has happened then, except that the answer to a commit may have been lost
    /// ([`CommandError::Database`]).
    pub async fn execute<C: Command>(
        &self,
        command: &C,
        request: &Request,
        reply: impl Fn(&C::Answer) -> Reply + Send + Sync,
    ) -> Result<Done, CommandError> {
        let _claim = request.key.as_ref().map(|key| self.gate.claim(&key.id)).transpose()?;
        let turns = self.gate.enter(&command.streams()).await;
        for attempt in 1..=ATTEMPTS_MAX {
            match telemetry::within("transaction", &[], self.attempt(command, request, &reply)).await {
                Err(error) if lost_race(&error) => {
                    tracing::debug!(attempt, error = ?error, "lost a race");
                    if attempt < ATTEMPTS_MAX {
                        tokio::time::sleep(wait(attempt)).await;
                    }
                }
                Err(CommandError::Refused(rule)) => {
                    // Nothing is left to do on its streams.
                    drop(turns);
                    return match &request.key {
                        Some(key) => idempotency::keep_refusal(&self.pool, key, &rule).await?.answer(),
                        None => Err(rule.into()),
                    };
                }
                result => return result,
            }
        }
        Err(CommandError::LostRace)
    }

    async fn attempt<C: Command>(
        &self,
        command: &C,
        request: &Request,
        reply: &(impl Fn(&C::Answer) -> Reply + Send + Sync),
    ) -> Result<Done, CommandError> {
        let mut unit = self.begin().await?;
        match work(&mut unit, command, request, reply).await {
            Ok(Work::Done(done, began)) => {
                self.snapshots.take(telemetry::within("commit", &[], unit.commit()).await?);
                Ok(Done { append: Some(began.elapsed()), ..done })
            }
            Ok(Work::Before(kept)) => {
                unit.roll_back().await;
                kept.answer()
            }
            Err(error) => {
                unit.roll_back().await;
                Err(error)
            }
        }
    }
}

enum Work {
    /// With the moment at which its events began to be written.
    Done(Done, Instant),
    /// By an earlier request with the same key.
    Before(Kept),
}

async fn work<C: Command>(
    unit: &mut UnitOfWork<'_>,
    command: &C,
    request: &Request,
    reply: &(impl Fn(&C::Answer) -> Reply + Send + Sync),
) -> Result<Work, CommandError> {
    if let Some(key) = &request.key
        && let Some(kept) = idempotency::claim(unit.connection(), key).await?
    {
        return Ok(Work::Before(kept));
    }
    unit.expect(request.expected);
    let answer = command.run(unit).await?;
    let began = Instant::now();
    let done = telemetry::within("append", &[], unit.write(request, reply(&answer))).await?;
    Ok(Work::Done(done, began))
}

impl Store {
    /// Connections aren't tested when they are taken: after a restart of Postgres each fails once, before anything happened.
    async fn begin(&self) -> Result<UnitOfWork<'_>, sqlx::Error> {
        let every = i64::from(self.options.snapshot_every.max(1));
        let mut stale = 0;
        loop {
            match UnitOfWork::begin(&self.pool, &self.codec, every).await {
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

/// Another writer took the stream's position, the payment's id or the key, or Postgres broke up a deadlock or a serialization conflict.
fn lost_race(error: &CommandError) -> bool {
    let CommandError::Database(sqlx::Error::Database(error)) = error else { return false };
    match error.code().as_deref() {
        Some("40001" | "40P01") => true,
        Some("23505") => {
            matches!(error.constraint(), Some("events_stream_position" | "payments_pkey" | "idempotency_keys_pkey"))
        }
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
