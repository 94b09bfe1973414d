//! What a rebuild inherits: an event that the live generation has parked, or that was passed over for it, is no new failure.

use super::{Control, ControlError};
use uuid::Uuid;

/// A dead letter of a generation that the one it replaces doesn't have.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct NewFailure {
    /// Its id.
    pub dead_letter_id: Uuid,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub message_offset: i64,
    /// Its type, where that could be read.
    pub event_type: Option<String>,
    /// Why it failed.
    pub reason: String,
}

impl Control {
    /// The first events that a generation has parked for a fault of their own and the one it replaces hasn't, parked or passed
    /// over: one of those may have been parked here after the skips were last inherited.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn new_failures(&self, generation_id: i64, replaces: i64) -> Result<Vec<NewFailure>, ControlError> {
        Ok(sqlx::query_as(
            "select dead_letter_id, topic, partition, message_offset, event_type, reason from dead_letter l
             where generation_id = $1 and reason is not null and state <> 'skip'
                 and not exists (select from dead_letter o where o.generation_id = $2 and o.dead_letter_id = l.dead_letter_id)
                 and not exists (
                     select from dead_letter_log e join generation g on g.generation_id = e.generation_id
                     where e.dead_letter_id = l.dead_letter_id and e.outcome = 'skipped'
                         and g.read_model = (select read_model from generation where generation_id = $1)
                 )
             order by parked_at limit 5",
        )
        .bind(generation_id)
        .bind(replaces)
        .fetch_all(self.pool())
        .await?)
    }

    /// Passes over what was passed over in an earlier generation of the read model; the owner does it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn inherit_skips(&self, generation_id: i64) -> Result<(), ControlError> {
        sqlx::query(
            "update dead_letter l set state = 'skip', asked_by = e.asked_by, asked_at = now(),
                 asked_why = 'as in an earlier generation: ' || coalesce(e.asked_why, 'no reason given')
             from dead_letter_log e join generation g on g.generation_id = e.generation_id
             where l.generation_id = $1 and l.state = 'parked' and l.reason is not null
                 and e.dead_letter_id = l.dead_letter_id and e.outcome = 'skipped' and e.generation_id <> $1
                 and g.read_model = (select read_model from generation where generation_id = $1)",
        )
        .bind(generation_id)
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// What was found when another generation took this one's place, if that was compared.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn finding_at_swap(&self, replaced: i64) -> Result<Option<serde_json::Value>, ControlError> {
        let found: Option<Option<serde_json::Value>> = sqlx::query_scalar(
            "select finding from rebuild where replaces = $1 and outcome = 'done' order by rebuild_id desc limit 1",
        )
        .bind(replaced)
        .fetch_optional(self.pool())
        .await?;
        Ok(found.flatten())
    }

    /// Lines of the log of a read model's generations, the newest first.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn generation_log(&self, read_model: &str, limit: i64) -> Result<Vec<LogLine>, ControlError> {
        Ok(sqlx::query_as(
            "select at, generation, what, who, why from generation_log where read_model = $1
             order by generation_log_id desc limit $2",
        )
        .bind(read_model)
        .bind(limit)
        .fetch_all(self.pool())
        .await?)
    }
}

/// Who did what to a generation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct LogLine {
    /// When.
    pub at: chrono::DateTime<chrono::Utc>,
    /// The generation's number.
    pub generation: i32,
    /// What.
    pub what: String,
    /// Who.
    pub who: String,
    /// Why.
    pub why: Option<String>,
}
