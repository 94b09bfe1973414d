//! One command's transaction.

use std::borrow::Cow;

use chrono::{SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::append::{NewEvent, append};
use super::streams::{self, Snapshot, stream_id};
use super::{Codec, CommandError, Done, Reply, Request, idempotency};
use crate::domain::{Aggregate, Time};

/// A transaction with the events that it will append.
#[derive(Debug)]
pub struct UnitOfWork<'a> {
    transaction: Transaction<'static, Postgres>,
    codec: &'a Codec,
    now: Option<Time>,
    events: Vec<NewEvent>,
    streams: Vec<Touched>,
    snapshot_every: i64,
    snapshots: Vec<Snapshot>,
    /// What the client knows, until it is compared with what there is.
    expected: Option<i64>,
}

/// A stream with its position: aggregate type, id, sequence.
type Touched = (Cow<'static, str>, String, i64);

/// What was committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which life of the database `txid` belongs to.
    pub epoch: String,
    /// The transaction.
    pub txid: i64,
    /// All streams that the command touched, with their positions after it: aggregate type, id, sequence.
    pub streams: Vec<Touched>,
}

impl<'a> UnitOfWork<'a> {
    pub(super) async fn begin(pool: &PgPool, codec: &'a Codec, snapshot_every: i64) -> Result<Self, sqlx::Error> {
        // In a task of its own, which ends even if nobody waits any more (the client is gone, its time is over): sqlx gives a
        // connection back with the transaction open if its BEGIN is dropped half way.
        let pool = pool.clone();
        let begun = tokio::spawn(async move { pool.begin().await }).await;
        let transaction = begun.map_err(|_| sqlx::Error::WorkerCrashed)??;
        Ok(Self {
            transaction,
            codec,
            now: None,
            events: Vec::new(),
            streams: Vec::new(),
            snapshot_every,
            snapshots: Vec::new(),
            expected: None,
        })
    }

    pub(super) fn expect(&mut self, sequence: Option<i64>) {
        self.expected = sequence;
    }

    /// Compares what the client knows of the command's aggregate, if it said so, with what there is. To be called on the
    /// aggregate that the command is about, as soon as it is loaded.
    ///
    /// # Errors
    /// [`CommandError::Stale`].
    pub fn check_expected<A: Aggregate>(&mut self, state: &A) -> Result<(), CommandError> {
        match self.expected.take() {
            Some(expected) if expected != state.version() => {
                Err(CommandError::Stale { expected, actual: Some(state.version()) })
            }
            _ => Ok(()),
        }
    }

    /// Loads aggregates that are nothing but their events, and keeps other writers from them. To be called once a
    /// command, with all that it needs: this is what keeps crossing commands from waiting for each other.
    ///
    /// # Errors
    /// Postgres', or events that can't be read.
    pub async fn load<A: Aggregate>(&mut self, ids: &[&str]) -> Result<Vec<Option<A>>, CommandError> {
        let names: Vec<String> = ids.iter().map(|id| stream_id(A::TYPE, id)).collect();
        streams::lock(&mut self.transaction, &names).await?;
        let mut loaded = Vec::with_capacity(names.len());
        for name in &names {
            loaded.push(streams::load(&mut self.transaction, name, i64::MAX).await?);
        }
        Ok(loaded)
    }

    /// Where to load from and write to.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// The command's one timestamp, taken when it is first asked for: after the locks, so that an aggregate's events
    /// don't go back in time behind one another.
    pub fn now(&mut self) -> Time {
        *self.now.get_or_insert_with(|| Utc::now().trunc_subsecs(6))
    }

    /// Takes note of an aggregate's first event, and gives its state after them.
    ///
    /// # Errors
    /// An event that its schema doesn't allow.
    pub fn begin_stream<A: Aggregate>(&mut self, event: &A::Event) -> Result<A, CommandError> {
        let state = A::evolve(None, event, self.now());
        let state = state.ok_or_else(|| Codec::misplaced(A::TYPE))?;
        self.note(&state, event)?;
        Ok(state)
    }

    /// Takes note of events behind `state`, and gives the state after them. The state tables are the caller's to write.
    ///
    /// # Errors
    /// An event that its schema doesn't allow.
    pub fn record<A: Aggregate>(&mut self, mut state: A, events: &[A::Event]) -> Result<A, CommandError> {
        let at = self.now();
        for event in events {
            state = A::evolve(Some(state), event, at).ok_or_else(|| Codec::misplaced(A::TYPE))?;
            self.note(&state, event)?;
        }
        self.touch(&state);
        Ok(state)
    }

    fn note<A: Aggregate>(&mut self, after: &A, event: &A::Event) -> Result<(), CommandError> {
        self.events.push(NewEvent {
            event_id: Uuid::now_v7(),
            aggregate_type: A::TYPE,
            aggregate_id: after.id(),
            position: after.version(),
            encoded: self.codec.encode(event)?,
        });
        if after.version() % self.snapshot_every == 0 {
            self.snapshots.push(Snapshot::of(after)?);
        }
        self.touch(after);
        Ok(())
    }

    fn touch<A: Aggregate>(&mut self, state: &A) {
        let id = state.id();
        match self.streams.iter_mut().find(|(kind, known, _)| *kind == A::TYPE && *known == id) {
            Some((_, _, position)) => *position = state.version(),
            None => self.streams.push((Cow::Borrowed(A::TYPE), id, state.version())),
        }
    }

    /// Writes the events, and the answer if the request has a key.
    pub(super) async fn write(&mut self, request: &Request, reply: Reply) -> Result<Done, CommandError> {
        if let Some(expected) = self.expected {
            return Err(CommandError::Stale { expected, actual: None });
        }
        let at = self.now();
        let stamp = append(&mut self.transaction, std::mem::take(&mut self.events), &request.metadata, at).await?;
        let receipt = Receipt { epoch: stamp.epoch, txid: stamp.txid, streams: std::mem::take(&mut self.streams) };
        let done = Done { reply, receipt, append: None };
        if let Some(key) = &request.key {
            idempotency::keep(&mut self.transaction, key, &done).await?;
        }
        Ok(done)
    }

    /// Makes it happen; gives the snapshots that became due.
    pub(super) async fn commit(self) -> Result<Vec<Snapshot>, sqlx::Error> {
        self.transaction.commit().await?;
        Ok(self.snapshots)
    }

    /// Lets go of everything at once, the locks included: a transaction that is only dropped does so some time later.
    pub(super) async fn roll_back(self) {
        if let Err(error) = self.transaction.rollback().await {
            tracing::debug!(%error, "rolling back");
        }
    }
}
