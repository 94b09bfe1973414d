//! One command's transaction.

use chrono::{SubsecRound, Utc};
use serde_json::Value as Json;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::append::{NewEvent, append};
use super::{Codec, CommandError};
use crate::domain::{Aggregate, Time};

/// A transaction with the events that it will append.
#[derive(Debug)]
pub struct UnitOfWork<'a> {
    transaction: Transaction<'static, Postgres>,
    codec: &'a Codec,
    now: Option<Time>,
    events: Vec<NewEvent>,
    streams: Vec<(&'static str, String, i64)>,
}

/// What was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which life of the database `txid` belongs to.
    pub epoch: String,
    /// The transaction.
    pub txid: i64,
    /// All streams that the command touched, with their positions after it: aggregate type, id, sequence.
    pub streams: Vec<(&'static str, String, i64)>,
}

impl<'a> UnitOfWork<'a> {
    pub(super) async fn begin(pool: &PgPool, codec: &'a Codec) -> Result<Self, sqlx::Error> {
        let transaction = pool.begin().await?;
        Ok(Self { transaction, codec, now: None, events: Vec::new(), streams: Vec::new() })
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
        self.touch(after);
        Ok(())
    }

    fn touch<A: Aggregate>(&mut self, state: &A) {
        let id = state.id();
        match self.streams.iter_mut().find(|(kind, known, _)| *kind == A::TYPE && *known == id) {
            Some((_, _, position)) => *position = state.version(),
            None => self.streams.push((A::TYPE, id, state.version())),
        }
    }

    pub(super) async fn commit(mut self, metadata: &Json) -> Result<Receipt, CommandError> {
        let at = self.now();
        let stamp = append(&mut self.transaction, std::mem::take(&mut self.events), metadata, at).await?;
        self.transaction.commit().await?;
        Ok(Receipt { epoch: stamp.epoch, txid: stamp.txid, streams: self.streams })
    }
}
