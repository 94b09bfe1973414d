//! Documents that somebody wants to be made anew. The owner of the document's partition does it, so that nothing races it.

use super::step::{Actor, notify};
use super::{Control, ControlError};

/// A document that is to be made anew, or was.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Remake {
    /// Its key in the control store.
    pub remake_id: i64,
    /// The generation.
    pub generation_id: i64,
    /// The document's key.
    pub key: String,
    /// `done` or `failed`; none while it waits.
    pub outcome: Option<String>,
    /// What came of it, in words.
    pub answer: Option<String>,
}

impl Control {
    /// Asks for a document to be made anew.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn order_document(&self, generation_id: i64, key: &str, actor: Actor<'_>) -> Result<i64, ControlError> {
        let mut tx = self.durable().await?;
        let id = sqlx::query_scalar(
            "insert into remake (generation_id, key, asked_by, why) values ($1, $2, $3, $4) returning remake_id",
        )
        .bind(generation_id)
        .bind(key)
        .bind(actor.who)
        .bind(actor.why)
        .fetch_one(&mut *tx)
        .await?;
        notify(&mut tx).await?;
        tx.commit().await?;
        Ok(id)
    }

    /// One order.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn remake(&self, remake_id: i64) -> Result<Remake, ControlError> {
        Ok(sqlx::query_as("select remake_id, generation_id, key, outcome, answer from remake where remake_id = $1")
            .bind(remake_id)
            .fetch_one(self.pool())
            .await?)
    }

    /// The orders that wait.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn remakes(&self) -> Result<Vec<Remake>, ControlError> {
        Ok(sqlx::query_as(
            "select remake_id, generation_id, key, outcome, answer from remake where outcome is null
             order by remake_id limit 100",
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// Says what came of an order.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn settle_remake(&self, remake_id: i64, outcome: Result<&str, &str>) -> Result<(), ControlError> {
        let (outcome, answer) = match outcome {
            Ok(answer) => ("done", answer),
            Err(answer) => ("failed", answer),
        };
        sqlx::query(
            "update remake set outcome = $2, answer = $3, settled_at = now()
             where remake_id = $1 and outcome is null",
        )
        .bind(remake_id)
        .bind(outcome)
        .bind(answer)
        .execute(self.pool())
        .await?;
        Ok(())
    }
}
