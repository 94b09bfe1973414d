//! The control store (Postgres): which generations exist, and how far each has come.
//!
//! Progress here is a copy. The truth is the progress saved in each read store after its batch; the hosts publish it here
//! every few milliseconds, with a `NOTIFY`, so that waiting queries wake up without polling and status needs one place only.
//!
//! Dead letters, owners, generations, rebuilds and accepted epochs are kept nowhere else: what changes them is flushed to disk before it is answered.

mod action;
mod barrier;
mod catalog;
mod dead_letter;
mod drive;
mod epoch;
mod fence;
mod generation;
mod health;
mod inherit;
mod monitor;
mod operator;
mod progress;
mod rebuild;
mod remake;
mod status;
mod step;

pub use action::Action;
pub use barrier::{Arrival, Barrier, Phase};
pub use catalog::SERVE_LEASE_MS;
pub use dead_letter::{DeadLetter, DeadLetterState, ParkedAggregate, aggregate_text};
pub use drive::Hold;
pub use epoch::Epoch;
pub use generation::{GENERATIONS_CHANNEL, Generation, Member, State};
pub use health::{Served, Watch};
pub use inherit::{LogLine, NewFailure};
pub use monitor::{Alert, Heartbeat, ParkedCount, Severity};
pub use operator::{DEAD_LETTERS_CHANNEL, DeadLetterLine, Fate, Selection};
pub use progress::{PROGRESS_CHANNEL, ProgressMap};
pub use rebuild::{Ends, Health, HistoryRead, New, Options, Origin, Rebuild, Verify};
pub use remake::Remake;
pub use status::{HostStatus, Position, Present, Stopped, Waiting};
pub use step::Actor;

use crate::apply::Partition;
use crate::sink::access::pool;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgPool, Postgres, Transaction};
use std::str::FromStr;
use std::time::Duration;

/// Why the control store couldn't do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The database is down, or refused the statement.
    #[error("control store: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables couldn't be created or are of a newer release.
    #[error("control store: {0}; use the database of this release or a newer projector")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row that this release can't read.
    #[error("control store: {what} can't be read: {reason}")]
    Unreadable {
        /// Which row.
        what: String,
        /// Why.
        reason: String,
    },
    /// Somebody else owns the partition by now: what the caller knows of it is out of date.
    #[error("{}/{} has a newer owner than fence {fence}; drop it and wait to be assigned again", partition.topic, partition.number)]
    Fenced {
        /// The partition.
        partition: Partition,
        /// The caller's fence.
        fence: i64,
    },
    /// What was asked for can't be done, and why.
    #[error("{0}")]
    Refused(String),
}

impl ControlError {
    /// Whether the database is away, or was in the middle of something: worth another try.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => {
                let code = error.code();
                ["08", "40", "53", "55", "57"].iter().any(|class| code.as_deref().is_some_and(|c| c.starts_with(class)))
            }
            Self::Database(error) => {
                matches!(
                    error,
                    sqlx::Error::Io(_)
                        | sqlx::Error::PoolTimedOut
                        | sqlx::Error::Protocol(_)
                        | sqlx::Error::WorkerCrashed
                )
            }
            _ => false,
        }
    }
}

/// A connection pool to the control store.
#[derive(Clone, Debug)]
pub struct Control {
    pool: PgPool,
}

impl Control {
    /// Connects and brings the tables up to date.
    ///
    /// # Errors
    /// When the database can't be reached within 10 s.
    pub async fn connect(url: &str) -> Result<Self, ControlError> {
        let options = PgConnectOptions::from_str(url)?
            .application_name("projector")
            // Progress is a copy and status is soon replaced: neither is worth a disk flush.
            .options([("synchronous_commit", "off")])
            // That a table is there already is no news at each start.
            .options([("client_min_messages", "warning")])
            .log_statements(tracing::log::LevelFilter::Trace);
        let pool = pool(8, Duration::from_secs(10)).connect_with(options).await?;
        sqlx::migrate!("src/control/migrations").run(&pool).await?;
        Ok(Self { pool })
    }

    /// A transaction whose commit waits for the disk, unlike the connection's others.
    async fn durable(&self) -> Result<Transaction<'static, Postgres>, ControlError> {
        let mut tx = self.pool.begin().await?;
        sqlx::query("set local synchronous_commit = on").execute(&mut *tx).await?;
        Ok(tx)
    }

    /// The pool, for listening.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}
