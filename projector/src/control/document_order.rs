//! Documents that somebody wants to be made anew. The owner of the document's partition does it, so that nothing races it.

use super::step::{Actor, notify};
use super::{Control, ControlError};

/// A document that is to be made anew, or was.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct DocumentOrder {
    /// Its key in the control store.
    pub document_order_id: i64,
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
            "insert into document_order (generation_id, key, asked_by, why) values ($1, $2, $3, $4) returning document_order_id",
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
    pub async fn document_order(&self, document_order_id: i64) -> Result<DocumentOrder, ControlError> {
        Ok(sqlx::query_as(
            "select document_order_id, generation_id, key, outcome, answer from document_order where document_order_id = $1",
        )
        .bind(document_order_id)
        .fetch_one(self.pool())
        .await?)
    }

    /// The orders that wait.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn document_orders(&self) -> Result<Vec<DocumentOrder>, ControlError> {
        Ok(sqlx::query_as(
            "select document_order_id, generation_id, key, outcome, answer from document_order where outcome is null
             order by document_order_id limit 100",
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// Says what came of an order.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn settle_document_order(
        &self,
        document_order_id: i64,
        outcome: Result<&str, &str>,
    ) -> Result<(), ControlError> {
        let (outcome, answer) = match outcome {
            Ok(answer) => ("done", answer),
            Err(answer) => ("failed", answer),
        };
        sqlx::query(
            "update document_order set outcome = $2, answer = $3, settled_at = now()
             where document_order_id = $1 and outcome is null",
        )
        .bind(document_order_id)
        .bind(outcome)
        .bind(answer)
        .execute(self.pool())
        .await?;
        Ok(())
    }
}
