//! Epochs: which source and timeline events come from. Transaction ids mean something within one epoch only, so a partition
//! stops before an event of an epoch that it doesn't know, until an operator has made sure that the source is a continuation
//! (after a fail-over, a restore) and accepts it.

use super::{Control, ControlError};
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;

/// An epoch that events were read from, or that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Epoch {
    /// The epoch.
    pub epoch: String,
    /// The read models whose published progress is in it.
    pub read_models: Vec<String>,
    /// Their partitions in it.
    pub partitions: i64,
    /// When it was accepted; `None` for one that partitions began with.
    pub accepted_at: Option<DateTime<Utc>>,
    /// By whom.
    pub accepted_by: Option<String>,
    /// Why.
    pub why: Option<String>,
}

impl Control {
    /// The epochs that operators have accepted.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn accepted_epochs(&self) -> Result<BTreeSet<Arc<str>>, ControlError> {
        let epochs: Vec<String> = sqlx::query_scalar("select epoch from accepted_epoch").fetch_all(self.pool()).await?;
        Ok(epochs.into_iter().map(Arc::from).collect())
    }

    /// Accepts an epoch, for all read models. Says whether that is new: who accepted it first stays on record.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn accept_epoch(&self, epoch: &str, by: &str, why: &str) -> Result<bool, ControlError> {
        let mut tx = self.durable().await?;
        let accepted = sqlx::query(
            "insert into accepted_epoch (epoch, accepted_by, why) values ($1, $2, $3) on conflict (epoch) do nothing",
        )
        .bind(epoch)
        .bind(by)
        .bind(why)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(accepted.rows_affected() > 0)
    }

    /// All epochs that are known: those that published progress is in, and those accepted.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn epochs(&self) -> Result<Vec<Epoch>, ControlError> {
        Ok(sqlx::query_as(
            "with seen as (
                 select p.progress ->> 'epoch' as epoch, array_agg(distinct g.read_model) as read_models, count(*) as partitions
                 from progress p join generation g using (generation_id)
                 where g.state <> 'dropped' and p.progress ->> 'epoch' is not null group by 1)
             select epoch, coalesce(read_models, '{}') as read_models, coalesce(partitions, 0) as partitions,
                 accepted_at, accepted_by, why
             from seen full join accepted_epoch using (epoch) order by epoch",
        )
        .fetch_all(self.pool())
        .await?)
    }
}
