//! The event store and the outbox: everything a command changes, in one transaction.
//!
//! A command runs in a [`UnitOfWork`]: it loads aggregates (locking their rows), decides, and records events; at commit
//! all events of all streams go to `events` and `outbox` in one round trip, with the state tables already written. Two
//! things keep writers of one aggregate apart: locks, taken in one order (the customer's row, then the order's, then
//! products by rising id; accounts have no rows, see [`streams`]), and `UNIQUE (stream_id, stream_position)`, which lets one of two writers at a position fail.
//! A lost race is run again on fresh state, a few times. A command that carries a key is answered once: [`idempotency`].
//!
//! # Why each row has `epoch`, `txid`, `tx_min` and `tx_snapshot`
//!
//! Readers downstream must know what they have seen, and neither ids nor times tell: `global_position` and clocks follow
//! the order of writing, the log follows the order of commits. So each row carries `txid`, its transaction's id, and
//! `tx_min`, the oldest transaction that still ran when the row was written. Whatever is below `tx_min` had ended before
//! the row was written, so in a log in commit order its rows come first: once a reader has handled an event with
//! `tx_min` = X, it has seen every row of that partition with `txid` < X. The highest `tx_min` is therefore a watermark.
//! It tells a duplicate from something new in bounded memory, and a client's token ("have you seen my transaction?") is
//! answered by comparing numbers. Both are set by Postgres in the statement that writes the row: an earlier snapshot
//! would name a transaction that has ended since, and hold the watermark back. Transaction ids repeat after a fail-over
//! or a restore, so `epoch` names the life of the database that they belong to.
//!
//! A transaction that stays open for an hour, in any database of the cluster, holds `tx_min` back, and a reader would remember
//! an hour's events. When the oldest is more than a hundred transactions behind, a row of the outbox has the whole snapshot as well,
//! `tx_snapshot`: it names those that still run, and of all others the same holds as of what is below `tx_min`.
//!
//! Invariant: the payload is encoded once; `events.payload`, `outbox.payload` and the message in Kafka are the same bytes.

mod append;
mod codec;
mod gate;
pub mod idempotency;
pub mod read;
mod retry;
mod snapshots;
pub mod streams;
mod unit;

pub use codec::{Codec, EncodeError};
pub use idempotency::Key;
pub use read::{ReadError, Recorded};
pub use retry::{ATTEMPTS_MAX, Command, Done, Options, Reply, Request, Store};
pub use unit::{Receipt, UnitOfWork};

use uuid::Uuid;

use crate::domain::Violation;

/// Why a command didn't happen. Nothing of it did.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A rule forbids it.
    #[error(transparent)]
    Refused(#[from] Violation),
    /// The aggregate that the path names doesn't exist.
    #[error("{aggregate} {id} does not exist")]
    NotFound {
        /// Its type.
        aggregate: &'static str,
        /// Its id.
        id: Uuid,
    },
    /// A rule forbade it when it was first sent with its key.
    #[error("{detail}")]
    RefusedBefore {
        /// The rule's name.
        rule: String,
        /// Its text of then.
        detail: String,
    },
    /// A command with the same key is under way.
    #[error("a command with this key is under way; ask again for its answer")]
    InFlight,
    /// The key belongs to another request.
    #[error("this key was sent before with another request")]
    KeyReused,
    /// The client knows another state than there is.
    #[error("the sequence is {}, not {expected}", .actual.map_or_else(|| "not known yet".to_owned(), |n| n.to_string()))]
    Stale {
        /// What the client knows.
        expected: i64,
        /// What is; `None` where a command begins something.
        actual: Option<i64>,
    },
    /// Others were faster, each time.
    #[error("others changed the same data at the same time, {ATTEMPTS_MAX} times in a row")]
    LostRace,
    /// Postgres.
    #[error("the write database failed")]
    Database(#[from] sqlx::Error),
    /// An event that its schema doesn't allow: our own fault.
    #[error("an event could not be encoded")]
    Encode(#[from] EncodeError),
    /// An event that the domain doesn't know.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A row that doesn't have the form it was written in.
    #[error("a stored row can't be read")]
    Row(#[from] serde_json::Error),
}

/// The advisory lock of a name. Two names that share one only wait for each other.
fn lock_key(name: &str) -> i64 {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).as_u64_pair().0.cast_signed()
}
