//! What operators did that no other log keeps: to what, who, when and why.

use super::{Actor, Control, ControlError};
use chrono::{DateTime, Utc};

/// Something that an operator did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct Action {
    /// When.
    pub at: DateTime<Utc>,
    /// What.
    pub what: String,
    /// To what.
    pub subject: String,
    /// Who.
    pub who: String,
    /// Why.
    pub why: Option<String>,
}

impl Control {
    /// Notes what is done; on disk when this returns.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn log_action(&self, what: &str, subject: &str, actor: Actor<'_>) -> Result<(), ControlError> {
        let mut tx = self.durable().await?;
        sqlx::query("insert into action_log (what, subject, who, why) values ($1, $2, $3, $4)")
            .bind(what)
            .bind(subject)
            .bind(actor.who)
            .bind(actor.why)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// What was done lately, the newest first.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn actions(&self, limit: i64) -> Result<Vec<Action>, ControlError> {
        let sql = "select at, what, subject, who, why from action_log order by action_log_id desc limit $1";
        Ok(sqlx::query_as(sql).bind(limit).fetch_all(self.pool()).await?)
    }
}
