//! Dead letters, as their owner sees them: messages that couldn't be applied, parked so that the others can go on.
//!
//! A letter is parked **before** progress passes its message, and every later event of its aggregate is parked behind it, in
//! order. So an aggregate's letters are a queue: only the first may be at fault ([`DeadLetter::reason`]), the others wait.
//! Retrying and skipping happen in the partition's owner alone; operators ask for it (`operator.rs`), the owner takes it up,
//! and either [parks](Control::park) the letter again with the new reason or [settles](Control::settle) it. What is behind a
//! settled letter is due by itself: an owner that stops half way leaves it to the next one.

use super::{Control, ControlError, fence};
use crate::apply::Partition;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

/// What is to happen to a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeadLetterState {
    /// Nothing until an operator asks, or the letter before it goes.
    Parked,
    /// An operator asked to try it again.
    Retry,
    /// An operator asked to pass over it, so that what is behind it can go on.
    Skip,
}

/// A message that is parked, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The event's id; where the message can't be read, one that the parker derives from the message.
    pub dead_letter_id: Uuid,
    /// The generation that couldn't apply it. Others may have.
    pub generation_id: i64,
    /// Where the message was.
    pub partition: Partition,
    /// Where in the partition.
    pub offset: i64,
    /// The message's key as text, by [`aggregate_text`].
    pub aggregate_id: String,
    /// The event's place in its aggregate, where that could be read.
    pub sequence: Option<i64>,
    /// The event's type, where that could be read.
    pub event_type: Option<String>,
    /// The message's headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The message's key.
    pub key: Option<Vec<u8>>,
    /// The message's value.
    pub payload: Option<Vec<u8>>,
    /// Why it couldn't be applied; `None` for one that was never tried, because it waits behind another of its aggregate.
    pub reason: Option<String>,
    /// How often it was tried.
    pub tries: i32,
    /// The keys of the documents that have it already.
    pub done: Vec<String>,
    /// What is to happen to it.
    pub state: DeadLetterState,
    /// When it was parked first.
    pub parked_at: DateTime<Utc>,
    /// When any of this changed last; the store's clock.
    pub updated_at: DateTime<Utc>,
}

/// An aggregate that is blocked by dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedAggregate {
    /// Its partition.
    pub partition: Partition,
    /// Its id, by [`aggregate_text`].
    pub aggregate_id: String,
    /// How many letters it has.
    pub letters: i64,
    /// The smallest sequence among them; none if one of them couldn't be read.
    pub first_sequence: Option<i64>,
    /// What is due for the first of them: what an operator asked, or a retry if it has no fault of its own, since the one it
    /// waited for is gone. `None`: wait.
    pub asked: Option<DeadLetterState>,
}

/// The text by which a message's aggregate is known here: the key, with what Postgres can't keep as text replaced.
#[must_use]
pub fn aggregate_text(key: Option<&[u8]>) -> String {
    clean(&String::from_utf8_lossy(key.unwrap_or_default()))
}

const COLUMNS: &str = "generation_id, dead_letter_id, topic, partition, message_offset, aggregate_id, sequence, event_type, \
    headers::text as headers, key, payload, reason, tries, done::text as done, state, parked_at, updated_at";

impl Control {
    /// Which aggregates of these partitions are blocked, in the order (topic, partition, offset) of their first letters.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn parked(
        &self,
        generation_id: i64,
        partitions: &[Partition],
    ) -> Result<Vec<ParkedAggregate>, ControlError> {
        type Row = (String, i32, String, i64, Option<i64>, String, bool);
        let (topics, numbers) = fence::columns(partitions);
        let rows: Vec<Row> = sqlx::query_as(
            "select topic, partition, aggregate_id, count(*),
                 case when count(sequence) = count(*) then min(sequence) end,
                 (array_agg(state order by sequence nulls first, message_offset, dead_letter_id))[1],
                 (array_agg(reason is null order by sequence nulls first, message_offset, dead_letter_id))[1]
             from dead_letter
             where generation_id = $1 and (topic, partition) in (select * from unnest($2::text[], $3::int[]))
             group by topic, partition, aggregate_id order by topic, partition, min(message_offset)",
        )
        .bind(generation_id)
        .bind(topics)
        .bind(numbers)
        .fetch_all(self.pool())
        .await?;
        let parked = |(topic, number, aggregate_id, letters, first_sequence, state, is_faultless): (
            String,
            _,
            _,
            _,
            _,
            String,
            _,
        )| {
            let asked = match DeadLetterState::parse(&state)? {
                DeadLetterState::Parked if is_faultless => Some(DeadLetterState::Retry),
                DeadLetterState::Parked => None,
                asked => Some(asked),
            };
            let partition = Partition { topic: topic.into(), number };
            Ok(ParkedAggregate { partition, aggregate_id, letters, first_sequence, asked })
        };
        rows.into_iter().map(parked).collect()
    }

    /// Parks letters of one partition; also those whose retry failed. One that is there keeps its place; where `reason` is
    /// given, that, `tries`, `done` and `state` replace what it had, but a skip that was asked for stays asked. All or none,
    /// on disk when this returns.
    ///
    /// # Errors
    /// [`ControlError::Fenced`] unless `fence` is the partition's newest.
    pub async fn park(&self, fence: i64, letters: &[DeadLetter]) -> Result<(), ControlError> {
        let Some(DeadLetter { generation_id, partition, .. }) = letters.first() else { return Ok(()) };
        if letters.iter().any(|l| l.generation_id != *generation_id || l.partition != *partition) {
            return Err(ControlError::Refused("letters of several partitions can't be parked under one fence".into()));
        }
        let mut tx = self.durable().await?;
        fence::check(&mut tx, fence, *generation_id, partition).await?;
        sqlx::query(
            "insert into dead_letter (generation_id, topic, partition, dead_letter_id, message_offset, aggregate_id, sequence,
                 event_type, headers, key, payload, reason, tries, done, state, parked_at)
             select distinct on (id) $1, $2, $3, id, message_offset, aggregate_id, sequence,
                 event_type, headers::json, key, payload, reason, tries, done::json, state, parked_at
             from unnest($4::uuid[], $5::bigint[], $6::text[], $7::bigint[], $8::text[], $9::text[], $10::bytea[], $11::bytea[],
                 $12::text[], $13::int[], $14::text[], $15::text[], $16::timestamptz[])
                 as letter (id, message_offset, aggregate_id, sequence, event_type, headers, key, payload,
                     reason, tries, done, state, parked_at)
             order by id, message_offset
             on conflict (generation_id, dead_letter_id) do update set
                 reason = excluded.reason, tries = excluded.tries, done = excluded.done, updated_at = now(),
                 state = case dead_letter.state when 'skip' then 'skip' else excluded.state end
             where excluded.reason is not null",
        )
        .bind(generation_id)
        .bind(&*partition.topic)
        .bind(partition.number)
        .bind(column(letters, |l| l.dead_letter_id))
        .bind(column(letters, |l| l.offset))
        .bind(column(letters, |l| clean(&l.aggregate_id)))
        .bind(column(letters, |l| l.sequence))
        .bind(column(letters, |l| l.event_type.as_deref().map(clean)))
        .bind(column(letters, |l| headers_text(&l.headers)))
        .bind(column(letters, |l| l.key.as_deref()))
        .bind(column(letters, |l| l.payload.as_deref()))
        .bind(column(letters, |l| l.reason.as_deref().map(clean)))
        .bind(column(letters, |l| l.tries))
        .bind(column(letters, |l| serde_json::Value::from(l.done.clone()).to_string()))
        .bind(column(letters, |l| l.state.name()))
        .bind(column(letters, |l| l.parked_at))
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// The letters of one aggregate, whole, in its order (offsets begin anew with a topic that was lost), at most `limit`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn letters(
        &self,
        generation_id: i64,
        partition: &Partition,
        aggregate_id: &str,
        limit: i64,
    ) -> Result<Vec<DeadLetter>, ControlError> {
        let sql = format!(
            "select {COLUMNS} from dead_letter
             where generation_id = $1 and topic = $2 and partition = $3 and aggregate_id = $4
             order by sequence nulls first, message_offset, dead_letter_id limit $5"
        );
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(generation_id)
            .bind(&*partition.topic)
            .bind(partition.number)
            .bind(clean(aggregate_id))
            .bind(limit)
            .fetch_all(self.pool())
            .await?)
    }

    /// One letter, whole.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn letter(&self, generation_id: i64, dead_letter_id: Uuid) -> Result<Option<DeadLetter>, ControlError> {
        let sql = format!("select {COLUMNS} from dead_letter where generation_id = $1 and dead_letter_id = $2");
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(generation_id).bind(dead_letter_id);
        Ok(query.fetch_optional(self.pool()).await?)
    }

    /// Removes letters that the owner has applied or, where an operator asked for that, passed over, and keeps a line for each
    /// in the log: what, when, asked by whom, why. Those that are gone already are let be. On disk when this returns.
    ///
    /// # Errors
    /// [`ControlError::Fenced`] unless `fence` is the partition's newest.
    pub async fn settle(
        &self,
        fence: i64,
        generation_id: i64,
        partition: &Partition,
        ids: &[Uuid],
    ) -> Result<(), ControlError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut tx = self.durable().await?;
        fence::check(&mut tx, fence, generation_id, partition).await?;
        sqlx::query(
            "with gone as (
                 delete from dead_letter
                 where generation_id = $1 and topic = $2 and partition = $3 and dead_letter_id = any($4) returning *)
             insert into dead_letter_log (generation_id, dead_letter_id, topic, partition, message_offset, aggregate_id, sequence,
                 event_type, reason, tries, outcome, asked_by, asked_why, parked_at)
             select generation_id, dead_letter_id, topic, partition, message_offset, aggregate_id, sequence,
                 event_type, reason, tries, case state when 'skip' then 'skipped' else 'applied' end, asked_by, asked_why, parked_at
             from gone order by message_offset",
        )
        .bind(generation_id)
        .bind(&*partition.topic)
        .bind(partition.number)
        .bind(ids)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }
}

impl DeadLetterState {
    /// Its name, in the store and for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Retry => "retry",
            Self::Skip => "skip",
        }
    }

    pub(super) fn parse(name: &str) -> Result<Self, ControlError> {
        [Self::Parked, Self::Retry, Self::Skip].into_iter().find(|state| state.name() == name).ok_or_else(|| {
            ControlError::Unreadable {
                what: "a dead letter's state".into(),
                reason: format!("`{name}` is not one that this release knows; use a newer projector"),
            }
        })
    }
}

impl FromRow<'_, PgRow> for DeadLetter {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let unreadable = |e: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(e);
        Ok(Self {
            dead_letter_id: row.try_get("dead_letter_id")?,
            generation_id: row.try_get("generation_id")?,
            partition: partition(row)?,
            offset: row.try_get("message_offset")?,
            aggregate_id: row.try_get("aggregate_id")?,
            sequence: row.try_get("sequence")?,
            event_type: row.try_get("event_type")?,
            headers: headers(row.try_get("headers")?).map_err(unreadable)?,
            key: row.try_get("key")?,
            payload: row.try_get("payload")?,
            reason: row.try_get("reason")?,
            tries: row.try_get("tries")?,
            done: serde_json::from_str(row.try_get("done")?).map_err(|e| unreadable(e.into()))?,
            state: DeadLetterState::parse(row.try_get("state")?).map_err(|e| unreadable(e.into()))?,
            parked_at: row.try_get("parked_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

pub(super) fn partition(row: &PgRow) -> Result<Partition, sqlx::Error> {
    Ok(Partition { topic: row.try_get::<String, _>("topic")?.into(), number: row.try_get("partition")? })
}

fn column<'a, T>(letters: &'a [DeadLetter], of: impl Fn(&'a DeadLetter) -> T) -> Vec<T> {
    letters.iter().map(of).collect()
}

/// Postgres' text has no NUL.
pub(super) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn headers_text(headers: &[(String, Vec<u8>)]) -> String {
    headers
        .iter()
        .map(|(name, value)| serde_json::json!([name, STANDARD.encode(value)]))
        .collect::<serde_json::Value>()
        .to_string()
}

type Headers = Vec<(String, Vec<u8>)>;

fn headers(text: &str) -> Result<Headers, Box<dyn std::error::Error + Send + Sync>> {
    let headers: Vec<(String, String)> = serde_json::from_str(text)?;
    headers.into_iter().map(|(name, value)| Ok((name, STANDARD.decode(value)?))).collect()
}
