//! Dead letters: messages that can't be folded, and with each, in order, the later ones of its aggregate. Parking is durable
//! before progress passes a message, and fenced: an owner who lost the partition can neither park nor settle.

use super::{Control, ControlError};
use crate::apply::Partition;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

/// The channel on which a generation's id is notified whenever an operator asked for something.
const CHANNEL: &str = "projector_dead_letters";

/// Where a dead letter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterState {
    /// It waits for an operator.
    Parked,
    /// An operator wants it to be tried again.
    Retry,
    /// An operator gave it up.
    Skip,
}

/// A message that can't be folded, or waits behind such a one.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The event's id; for a message that can't be read, one made of its place and payload.
    pub dead_letter_id: Uuid,
    /// The generation that can't fold it.
    pub generation_id: i64,
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: i64,
    /// Its aggregate: the message's key.
    pub aggregate_id: String,
    /// Its place in the aggregate, if it could be read.
    pub sequence: Option<i64>,
    /// What happened, if it could be read.
    pub event_type: Option<String>,
    /// The headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub payload: Option<Vec<u8>>,
    /// Why it can't be folded; none where it only waits behind an earlier one of its aggregate.
    pub reason: Option<String>,
    /// How often it was tried.
    pub tries: i32,
    /// The documents that have it already.
    pub done: Vec<String>,
    /// Where it stands.
    pub state: DeadLetterState,
    /// When it was parked.
    pub parked_at: DateTime<Utc>,
    /// When it was last tried, or asked for.
    pub updated_at: DateTime<Utc>,
}

/// An aggregate with dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedAggregate {
    /// Its partition.
    pub partition: Partition,
    /// Its id.
    pub aggregate_id: String,
    /// How many.
    pub letters: i64,
    /// The smallest sequence among them; none if one can't be read.
    pub first_sequence: Option<i64>,
    /// What an operator asked for its first letter.
    pub asked: Option<DeadLetterState>,
}

impl DeadLetterState {
    /// Its name, as the CLI and the database have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Retry => "retry",
            Self::Skip => "skip",
        }
    }

    fn read(name: &str) -> Self {
        match name {
            "retry" => Self::Retry,
            "skip" => Self::Skip,
            _ => Self::Parked,
        }
    }
}

impl Control {
    /// Makes the caller the owner of these partitions: gives for each a fence greater than any before.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn claim(&self, generation_id: i64, partitions: &[Partition]) -> Result<Vec<i64>, ControlError> {
        let mut fences = Vec::with_capacity(partitions.len());
        let mut transaction = self.durable().await?;
        for partition in partitions {
            let fence = sqlx::query_scalar(
                "insert into partition_owner (generation_id, topic, partition, fence) values ($1, $2, $3, 1)
                 on conflict (generation_id, topic, partition) do update set fence = partition_owner.fence + 1
                 returning fence",
            );
            let fence = fence.bind(generation_id).bind(&*partition.topic).bind(partition.number);
            fences.push(fence.fetch_one(&mut *transaction).await?);
        }
        transaction.commit().await?;
        Ok(fences)
    }

    /// The aggregates of these partitions that have dead letters.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn parked(
        &self,
        generation_id: i64,
        partitions: &[Partition],
    ) -> Result<Vec<ParkedAggregate>, ControlError> {
        let rows = sqlx::query(
            "select topic, partition, aggregate_id, count(*) as letters,
                    case when count(sequence) = count(*) then min(sequence) end as first_sequence,
                    (array_agg(state order by position))[1] as state
             from dead_letter
             where generation_id = $1 and (topic, partition) in (select * from unnest($2::text[], $3::int[]))
             group by topic, partition, aggregate_id order by topic, partition, min(position)",
        )
        .bind(generation_id)
        .bind(partitions.iter().map(|p| p.topic.to_string()).collect::<Vec<_>>())
        .bind(partitions.iter().map(|p| p.number).collect::<Vec<_>>())
        .fetch_all(self.pool())
        .await?;
        let read = |row: &PgRow| -> Result<_, sqlx::Error> {
            let state = DeadLetterState::read(row.try_get("state")?);
            Ok(ParkedAggregate {
                partition: partition(row)?,
                aggregate_id: row.try_get("aggregate_id")?,
                letters: row.try_get("letters")?,
                first_sequence: row.try_get("first_sequence")?,
                asked: (state != DeadLetterState::Parked).then_some(state),
            })
        };
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// Parks messages of one partition. One that is parked already keeps its place; a reason given for it replaces the one it has.
    ///
    /// # Errors
    /// [`ControlError::Fenced`] if the partition has another owner by now.
    pub async fn park(&self, fence: i64, letters: &[DeadLetter]) -> Result<(), ControlError> {
        let Some(first) = letters.first() else { return Ok(()) };
        let mut transaction = self.durable().await?;
        check_fence(&mut transaction, fence, first.generation_id, &first.partition).await?;
        for letter in letters {
            let (names, values): (Vec<_>, Vec<_>) = letter.headers.iter().cloned().unzip();
            sqlx::query(
                "insert into dead_letter (generation_id, dead_letter_id, topic, partition, \"offset\", aggregate_id, sequence,
                     event_type, header_names, header_values, key, payload, reason, tries, done, state)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
                 on conflict (generation_id, dead_letter_id) do update
                 set reason = excluded.reason, tries = excluded.tries, done = excluded.done, state = excluded.state, updated_at = now()
                 where excluded.reason is not null",
            )
            .bind(letter.generation_id)
            .bind(letter.dead_letter_id)
            .bind(&*letter.partition.topic)
            .bind(letter.partition.number)
            .bind(letter.offset)
            .bind(&letter.aggregate_id)
            .bind(letter.sequence)
            .bind(&letter.event_type)
            .bind(names)
            .bind(values)
            .bind(&letter.key)
            .bind(&letter.payload)
            .bind(&letter.reason)
            .bind(letter.tries)
            .bind(&letter.done)
            .bind(letter.state.name())
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The dead letters of one aggregate, in order, at most `limit`.
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
        let rows = sqlx::query(
            "select * from dead_letter where generation_id = $1 and topic = $2 and partition = $3 and aggregate_id = $4
             order by position limit $5",
        )
        .bind(generation_id)
        .bind(&*partition.topic)
        .bind(partition.number)
        .bind(aggregate_id)
        .bind(limit)
        .fetch_all(self.pool())
        .await?;
        Ok(rows.iter().map(letter).collect::<Result<_, _>>()?)
    }

    /// Removes letters that were applied or, where that was asked, passed over; the log keeps a line for each.
    ///
    /// # Errors
    /// [`ControlError::Fenced`] if the partition has another owner by now.
    pub async fn settle(
        &self,
        fence: i64,
        generation_id: i64,
        partition: &Partition,
        ids: &[Uuid],
    ) -> Result<(), ControlError> {
        let mut transaction = self.durable().await?;
        check_fence(&mut transaction, fence, generation_id, partition).await?;
        sqlx::query(
            "with settled as (delete from dead_letter where generation_id = $1 and dead_letter_id = any($2) returning *)
             insert into dead_letter_log (generation_id, dead_letter_id, aggregate_id, event_type, reason, outcome, by, why)
             select generation_id, dead_letter_id, aggregate_id, event_type, reason,
                    case state when 'skip' then 'skipped' else 'applied' end, asked_by, asked_why
             from settled",
        )
        .bind(generation_id)
        .bind(ids)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// Notes what an operator wants for a letter, for its owner to do. Only the first of its aggregate can be asked for; those
    /// behind it follow by themselves.
    ///
    /// # Errors
    /// [`ControlError::Refused`] if there is no such letter, or it isn't the first.
    pub async fn ask(
        &self,
        what: DeadLetterState,
        dead_letter_id: Uuid,
        by: &str,
        why: Option<&str>,
    ) -> Result<(), ControlError> {
        let mut transaction = self.durable().await?;
        let first: Option<(i64, Uuid)> = sqlx::query_as(
            "select l.generation_id, l.dead_letter_id from dead_letter l join dead_letter asked
                 using (generation_id, topic, partition, aggregate_id)
             where asked.dead_letter_id = $1 order by l.position limit 1",
        )
        .bind(dead_letter_id)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some((generation_id, first)) = first else {
            return Err(ControlError::Refused(format!(
                "there is no dead letter {dead_letter_id}; `projector dlq list` shows those that there are"
            )));
        };
        if first != dead_letter_id {
            return Err(ControlError::Refused(format!(
                "{dead_letter_id} waits behind {first} of the same aggregate; ask for that one, and this one follows by itself"
            )));
        }
        sqlx::query(
            "with asked as (
                 update dead_letter set state = $2, asked_by = $3, asked_why = $4, updated_at = now()
                 where generation_id = $1 and dead_letter_id = $5 returning generation_id)
             select pg_notify($6, generation_id::text) from asked",
        )
        .bind(generation_id)
        .bind(what.name())
        .bind(by)
        .bind(why)
        .bind(first)
        .bind(CHANNEL)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// Dead letters, oldest first, at most `limit`; of one read model, or of all.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn dead_letters(
        &self,
        read_model: Option<&str>,
        limit: i64,
    ) -> Result<Vec<(String, DeadLetter)>, ControlError> {
        let rows = sqlx::query(
            "select l.*, g.read_model || '-g' || g.generation as generation
             from dead_letter l join generation g using (generation_id)
             where $1::text is null or g.read_model = $1 order by l.position limit $2",
        )
        .bind(read_model)
        .bind(limit)
        .fetch_all(self.pool())
        .await?;
        let read = |row: &PgRow| -> Result<_, sqlx::Error> { Ok((row.try_get("generation")?, letter(row)?)) };
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// Begins a transaction that is on disk when it has committed; other writes here aren't worth that.
    async fn durable(&self) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, ControlError> {
        let mut transaction = self.pool().begin().await?;
        sqlx::query("set local synchronous_commit = on").execute(&mut *transaction).await?;
        Ok(transaction)
    }
}

async fn check_fence(
    connection: &mut PgConnection,
    fence: i64,
    generation_id: i64,
    partition: &Partition,
) -> Result<(), ControlError> {
    let owner: Option<i64> = sqlx::query_scalar(
        "select fence from partition_owner where generation_id = $1 and topic = $2 and partition = $3 for share",
    )
    .bind(generation_id)
    .bind(&*partition.topic)
    .bind(partition.number)
    .fetch_optional(connection)
    .await?;
    if owner == Some(fence) {
        return Ok(());
    }
    Err(ControlError::Fenced {
        topic: partition.topic.to_string(),
        partition: partition.number,
        fence,
        owner: owner.unwrap_or(0),
    })
}

fn partition(row: &PgRow) -> Result<Partition, sqlx::Error> {
    Ok(Partition { topic: row.try_get::<&str, _>("topic")?.into(), number: row.try_get("partition")? })
}

fn letter(row: &PgRow) -> Result<DeadLetter, sqlx::Error> {
    let names: Vec<String> = row.try_get("header_names")?;
    let values: Vec<Vec<u8>> = row.try_get("header_values")?;
    Ok(DeadLetter {
        dead_letter_id: row.try_get("dead_letter_id")?,
        generation_id: row.try_get("generation_id")?,
        partition: partition(row)?,
        offset: row.try_get("offset")?,
        aggregate_id: row.try_get("aggregate_id")?,
        sequence: row.try_get("sequence")?,
        event_type: row.try_get("event_type")?,
        headers: names.into_iter().zip(values).collect(),
        key: row.try_get("key")?,
        payload: row.try_get("payload")?,
        reason: row.try_get("reason")?,
        tries: row.try_get("tries")?,
        done: row.try_get("done")?,
        state: DeadLetterState::read(row.try_get("state")?),
        parked_at: row.try_get("parked_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
