//! What was, when, and by whom: any stream's state at a time or position, and its history step by step.
//!
//! Everything here folds stored events with the domain's own code, so what it shows is what commands decided on.

mod condition;
mod replay;
mod show;
mod state;

pub use condition::{Condition, ConditionError};
pub use replay::{Replay, Step, Stop, replay};
pub use show::{describe, difference};
pub use state::{At, StateAt, state};

use crate::store::CommandError;

/// Why a stream can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Nothing has this name.
    #[error("there is no stream {0}: expected <aggregate type>-<aggregate id>, such as order-0198…")]
    NoStream(String),
    /// It hadn't begun, or hasn't come so far.
    #[error("stream {stream_id} has positions 1 to {last}; {asked} is none of them")]
    NotThen {
        /// The stream.
        stream_id: String,
        /// The position or time that was asked for.
        asked: String,
        /// Its newest event.
        last: i64,
    },
    /// Postgres, or an event that can't be read.
    #[error(transparent)]
    Store(#[from] CommandError),
    /// The condition of a replay.
    #[error(transparent)]
    Condition(#[from] ConditionError),
}

impl From<sqlx::Error> for AuditError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// `account-acc-1` is of type `account`.
fn aggregate_type(stream_id: &str) -> &str {
    stream_id.split_once('-').map_or(stream_id, |(before, _)| before)
}
