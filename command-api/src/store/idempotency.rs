//! Making retries safe: a command that carries a key is answered once, and its retries get the same answer.
//!
//! The answer is written in the command's own transaction: after a crash either both are there or neither. While a
//! command is under way its transaction holds an advisory lock on the key; a retry that can't have it is told so rather
//! than kept waiting. A rule's refusal is an answer too, and kept; what failed for another reason (a lost race, a store that is
//! down) may be tried again with the same key.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sqlx::types::Json as Jsonb;
use sqlx::{PgConnection, PgPool, Row};
use uuid::Uuid;

use super::{CommandError, Done, lock_key};
use crate::domain::Violation;

/// Keys that one statement deletes: short locks, and a backlog doesn't hold up anything else.
const EXPIRED_MAX: i64 = 5_000;

/// What makes a command's retries safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The caller's choice.
    pub id: String,
    /// Of the whole request: the same key with another one is refused.
    pub fingerprint: Uuid,
}

/// What a key was answered with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kept {
    Done(Done),
    Refused { rule: String, detail: String },
}

impl Kept {
    pub(super) fn refused(rule: &Violation) -> Self {
        Self::Refused { rule: rule.name().to_owned(), detail: rule.to_string() }
    }

    pub(super) fn answer(self) -> Result<Done, CommandError> {
        match self {
            Self::Done(done) => Ok(done),
            Self::Refused { rule, detail } => Err(CommandError::RefusedBefore { rule, detail }),
        }
    }
}

/// Claims the key for this transaction, or gives what it was answered with.
///
/// Lock and row are asked for in one statement. Whoever commits in between is found by the unique index when the answer is
/// written, and the command runs again, to find the row.
pub(super) async fn claim(connection: &mut PgConnection, key: &Key) -> Result<Option<Kept>, CommandError> {
    let sql = "select pg_try_advisory_xact_lock($1) as claimed, k.fingerprint, k.answer
               from (select) as one left join idempotency_keys k on k.key = $2";
    let row = sqlx::query(sql).bind(lock_key(&key.id)).bind(&key.id).fetch_one(connection).await?;
    match row.try_get::<Option<Uuid>, _>("fingerprint")? {
        Some(fingerprint) => {
            same(key, fingerprint)?;
            let Jsonb(kept) = row.try_get::<Jsonb<Kept>, _>("answer")?;
            Ok(Some(kept))
        }
        None if row.try_get("claimed")? => Ok(None),
        None => Err(CommandError::InFlight),
    }
}

fn same(key: &Key, fingerprint: Uuid) -> Result<(), CommandError> {
    if fingerprint == key.fingerprint { Ok(()) } else { Err(CommandError::KeyReused) }
}

/// Part of the command's transaction.
pub(super) async fn keep(connection: &mut PgConnection, key: &Key, done: &Done) -> Result<(), sqlx::Error> {
    let sql = "insert into idempotency_keys (key, fingerprint, answer) values ($1, $2, $3)";
    let answer: Json = serde_json::to_value(Kept::Done(done.clone())).map_err(|e| sqlx::Error::Encode(e.into()))?;
    sqlx::query(sql).bind(&key.id).bind(key.fingerprint).bind(answer).execute(connection).await?;
    Ok(())
}

/// After the command's transaction was rolled back. A retry may have been faster: then its answer is the one that counts.
pub(super) async fn keep_refusal(pool: &PgPool, key: &Key, rule: &Violation) -> Result<Kept, CommandError> {
    let sql = "insert into idempotency_keys (key, fingerprint, answer) values ($1, $2, $3)
               on conflict (key) do update set key = excluded.key returning fingerprint, answer";
    let query = sqlx::query(sql).bind(&key.id).bind(key.fingerprint).bind(Jsonb(Kept::refused(rule)));
    let row = query.fetch_one(pool).await?;
    same(key, row.try_get("fingerprint")?)?;
    let Jsonb(kept) = row.try_get::<Jsonb<Kept>, _>("answer")?;
    Ok(kept)
}

/// Forgets keys older than `kept`; gives how many.
pub(super) async fn expire(pool: &PgPool, kept: Duration) -> Result<u64, sqlx::Error> {
    let sql = "delete from idempotency_keys where key in (
                   select key from idempotency_keys where created_at < now() - make_interval(secs => $1)
                   order by created_at limit $2)";
    let mut expired = 0;
    loop {
        let deleted = sqlx::query(sql).bind(kept.as_secs_f64()).bind(EXPIRED_MAX).execute(pool).await?.rows_affected();
        expired += deleted;
        if deleted < EXPIRED_MAX as u64 {
            return Ok(expired);
        }
    }
}
