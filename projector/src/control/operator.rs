//! Dead letters, as operators see them: look, and ask the owner to retry or to pass over.
//!
//! Asking is a state on the letter and a `NOTIFY`; nothing is applied here. Only the first letter of an aggregate can be asked
//! about, since those behind it are due by themselves once it is gone. What was asked must be what is logged when the owner
//! settles the letter, so an ask doesn't replace another that the owner may be at work on.

use super::dead_letter::{clean, partition};
use super::{Control, ControlError, DeadLetterState};
use crate::apply::Partition;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

/// The channel on which a generation's id is notified when something was asked of its owners.
pub const DEAD_LETTERS_CHANNEL: &str = "projector_dead_letters";

/// How long a retry that was asked for can't be turned into a skip.
const RETRY_UNDER_WAY: TimeDelta = TimeDelta::seconds(30);

/// A dead letter without its message.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetterLine {
    /// Its id within the generation.
    pub dead_letter_id: Uuid,
    /// The generation that couldn't apply it.
    pub generation_id: i64,
    /// The generation's read model.
    pub read_model: String,
    /// The generation's number in its read model.
    pub generation: i32,
    /// Where the message was.
    pub partition: Partition,
    /// Where in the partition.
    pub offset: i64,
    /// The message's key as text.
    pub aggregate_id: String,
    /// The event's place in its aggregate, where that could be read.
    pub sequence: Option<i64>,
    /// The event's type, where that could be read.
    pub event_type: Option<String>,
    /// Why it couldn't be applied; `None` for one that only waits.
    pub reason: Option<String>,
    /// How often it was tried.
    pub tries: i32,
    /// What is to happen to it.
    pub state: DeadLetterState,
    /// Who asked for that last.
    pub asked_by: Option<String>,
    /// Why they did.
    pub asked_why: Option<String>,
    /// When they did.
    pub asked_at: Option<DateTime<Utc>>,
    /// When it was parked first.
    pub parked_at: DateTime<Utc>,
    /// When any of this changed last.
    pub updated_at: DateTime<Utc>,
    /// The first letter of its aggregate: itself, or the one that it waits for.
    pub first: Uuid,
    /// How many letters of its aggregate are behind it.
    pub waiting: i64,
}

/// Which letters an operator means.
#[derive(Clone, Copy, Debug)]
pub enum Selection<'a> {
    /// These; of this read model, which must be named where several have parked the same event.
    Letters(&'a [Uuid], Option<&'a str>),
    /// The first letter of each aggregate of the read model.
    All(&'a str),
}

/// What has become of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The owner hasn't answered what was asked.
    Asked,
    /// It is parked, for this reason and after so many tries.
    Parked(Option<String>, i32),
    /// It was applied.
    Applied,
    /// It was passed over.
    Skipped,
    /// Nothing is known of it: its generation was dropped.
    Gone,
}

/// All letters of generations that exist, each with its place among those of its aggregate.
const LINES: &str = "with line as (
    select d.generation_id, dead_letter_id, read_model, generation, topic, partition, message_offset, aggregate_id, sequence,
        event_type, reason, tries, d.state, asked_by, asked_why, asked_at, parked_at, d.updated_at,
        first_value(dead_letter_id) over place as first,
        count(*) over (partition by d.generation_id, topic, partition, aggregate_id) - row_number() over place as waiting
    from dead_letter d join generation g on g.generation_id = d.generation_id and g.state <> 'dropped'
    window place as (partition by d.generation_id, topic, partition, aggregate_id
                    order by sequence nulls first, message_offset, dead_letter_id))";

impl Control {
    /// The first dead letter of each blocked aggregate, of one read model or all, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn dead_letters(
        &self,
        read_model: Option<&str>,
        limit: i64,
    ) -> Result<Vec<DeadLetterLine>, ControlError> {
        let sql = format!(
            "{LINES} select * from line where first = dead_letter_id and ($1::text is null or read_model = $1)
             order by parked_at, dead_letter_id limit $2"
        );
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(read_model).bind(limit);
        Ok(query.fetch_all(self.pool()).await?)
    }

    /// The letters of these ids, one for each generation that parked it, of one read model or all.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn dead_letter_lines(
        &self,
        ids: &[Uuid],
        read_model: Option<&str>,
    ) -> Result<Vec<DeadLetterLine>, ControlError> {
        lines(self.pool(), ids, read_model).await
    }

    /// Asks the owners to retry letters or to pass over them, for `why` and on behalf of `by`; wakes them. Gives the letters
    /// that were asked about; of [`Selection::All`], those that can't be asked about now are left out.
    ///
    /// # Errors
    /// [`ControlError::Refused`] if one of the letters named isn't there, isn't its aggregate's first, or is at work: then none
    /// is asked about.
    pub async fn ask(
        &self,
        what: DeadLetterState,
        selection: Selection<'_>,
        by: &str,
        why: Option<&str>,
    ) -> Result<Vec<DeadLetterLine>, ControlError> {
        let mut tx = self.durable().await?;
        let chosen: Vec<DeadLetterLine> = match selection {
            Selection::Letters(ids, read_model) => {
                // Locked before they are judged, so that what is judged still holds when they change.
                sqlx::query(
                    "select from dead_letter where dead_letter_id = any($1) order by generation_id, dead_letter_id for update",
                )
                .bind(ids)
                .execute(&mut *tx)
                .await?;
                let found = lines(&mut *tx, ids, read_model).await?;
                unambiguous(ids, read_model, &found)?;
                if let Some(refusal) = found.iter().find_map(|line| line.refusal(what)) {
                    return Err(ControlError::Refused(refusal));
                }
                found
            }
            Selection::All(read_model) => {
                let sql = format!("{LINES} select * from line where first = dead_letter_id and read_model = $1");
                let firsts: Vec<DeadLetterLine> =
                    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(read_model).fetch_all(&mut *tx).await?;
                firsts.into_iter().filter(|line| line.refusal(what).is_none()).collect()
            }
        };
        sqlx::query(
            "with asked as (
                 update dead_letter d set state = $1, asked_by = $2, asked_why = $3, asked_at = now(), updated_at = now()
                 from unnest($4::bigint[], $5::uuid[]) as chosen (generation_id, dead_letter_id)
                 where d.generation_id = chosen.generation_id and d.dead_letter_id = chosen.dead_letter_id and d.state <> 'skip'
                 returning d.generation_id)
             select pg_notify($6, generation_id::text) from (select distinct generation_id from asked) as each",
        )
        .bind(what.name())
        .bind(clean(by))
        .bind(why.map(clean))
        .bind(chosen.iter().map(|l| l.generation_id).collect::<Vec<_>>())
        .bind(chosen.iter().map(|l| l.dead_letter_id).collect::<Vec<_>>())
        .bind(DEAD_LETTERS_CHANNEL)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(chosen)
    }

    /// What has become of a letter.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn dead_letter_fate(&self, generation_id: i64, dead_letter_id: Uuid) -> Result<Fate, ControlError> {
        // One statement: between two, the letter could go from the one table to the other unseen.
        let row: Option<(String, Option<String>, i32)> = sqlx::query_as(
            "select state, reason, tries from (
                 select 0 as rank, state, reason, tries, 0 as number from dead_letter
                     where generation_id = $1 and dead_letter_id = $2
                 union all
                 select 1, outcome, reason, tries, dead_letter_log_id from dead_letter_log
                     where generation_id = $1 and dead_letter_id = $2) as fate
             order by rank, number desc limit 1",
        )
        .bind(generation_id)
        .bind(dead_letter_id)
        .fetch_optional(self.pool())
        .await?;
        let Some((state, reason, tries)) = row else { return Ok(Fate::Gone) };
        Ok(match state.as_str() {
            "applied" => Fate::Applied,
            "skipped" => Fate::Skipped,
            state if DeadLetterState::parse(state)? == DeadLetterState::Parked => Fate::Parked(reason, tries),
            _ => Fate::Asked,
        })
    }
}

impl DeadLetterLine {
    /// Why this can't be asked of it now.
    fn refusal(&self, what: DeadLetterState) -> Option<String> {
        let id = self.dead_letter_id;
        if self.first != id {
            return Some(format!(
                "dead letter {id} waits behind {first}, the first of aggregate {aggregate}: only that can be retried or skipped, \
                 the others follow in order once it is gone; see `projector dlq show {first}`",
                first = self.first,
                aggregate = self.aggregate_id
            ));
        }
        let by = self.asked_by.as_deref().unwrap_or("somebody");
        let is_fresh = self.asked_at.is_some_and(|at| Utc::now() - at < RETRY_UNDER_WAY);
        match (self.state, what) {
            (_, DeadLetterState::Parked) => Some(format!("dead letter {id}: only a retry or a skip can be asked for")),
            (DeadLetterState::Skip, _) => Some(format!(
                "dead letter {id}: {by} has asked for it to be skipped already; the owner does it as soon as it runs"
            )),
            (DeadLetterState::Retry, DeadLetterState::Skip) if is_fresh => Some(format!(
                "dead letter {id}: {by} has just asked for a retry; wait for its outcome ({} s at most), then skip",
                RETRY_UNDER_WAY.num_seconds()
            )),
            (DeadLetterState::Parked, DeadLetterState::Skip) if self.reason.is_none() => Some(format!(
                "dead letter {id} has not failed: it has been waiting and is about to be tried; skip it if that fails"
            )),
            _ => None,
        }
    }
}

async fn lines(
    executor: impl sqlx::PgExecutor<'_>,
    ids: &[Uuid],
    read_model: Option<&str>,
) -> Result<Vec<DeadLetterLine>, ControlError> {
    let sql = format!(
        "{LINES} select * from line where dead_letter_id = any($1) and ($2::text is null or read_model = $2)
         order by parked_at, dead_letter_id, generation_id"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(ids).bind(read_model).fetch_all(executor).await?)
}

/// Refuses ids that name no letter, or letters of several read models.
fn unambiguous(ids: &[Uuid], read_model: Option<&str>, found: &[DeadLetterLine]) -> Result<(), ControlError> {
    for id in ids {
        let mut of: Vec<_> = found.iter().filter(|l| l.dead_letter_id == *id).map(|l| l.read_model.as_str()).collect();
        of.dedup();
        if of.is_empty() {
            let place = read_model.map(|name| format!(" of {name}")).unwrap_or_default();
            return Err(ControlError::Refused(format!(
                "there is no dead letter {id}{place}; see `projector dlq list`"
            )));
        }
        if of.len() > 1 {
            let message = format!("dead letter {id} is one of {}: say which by --read-model", of.join(" and of "));
            return Err(ControlError::Refused(message));
        }
    }
    Ok(())
}

impl FromRow<'_, PgRow> for DeadLetterLine {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            dead_letter_id: row.try_get("dead_letter_id")?,
            generation_id: row.try_get("generation_id")?,
            read_model: row.try_get("read_model")?,
            generation: row.try_get("generation")?,
            partition: partition(row)?,
            offset: row.try_get("message_offset")?,
            aggregate_id: row.try_get("aggregate_id")?,
            sequence: row.try_get("sequence")?,
            event_type: row.try_get("event_type")?,
            reason: row.try_get("reason")?,
            tries: row.try_get("tries")?,
            state: DeadLetterState::parse(row.try_get("state")?).map_err(|e| sqlx::Error::Decode(e.into()))?,
            asked_by: row.try_get("asked_by")?,
            asked_why: row.try_get("asked_why")?,
            asked_at: row.try_get("asked_at")?,
            parked_at: row.try_get("parked_at")?,
            updated_at: row.try_get("updated_at")?,
            first: row.try_get("first")?,
            waiting: row.try_get("waiting")?,
        })
    }
}
