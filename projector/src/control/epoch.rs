//! Epochs of the write database that an operator has accepted, after a fail-over or a restore.

use super::{Control, ControlError};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Control {
    /// The epochs that may be entered.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn accepted_epochs(&self) -> Result<BTreeSet<Arc<str>>, ControlError> {
        let epochs: Vec<String> = sqlx::query_scalar("select epoch from accepted_epoch").fetch_all(self.pool()).await?;
        Ok(epochs.into_iter().map(Arc::from).collect())
    }

    /// Lets partitions that stand before an event of this epoch go on.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn accept_epoch(&self, epoch: &str, by: &str, why: &str) -> Result<(), ControlError> {
        sqlx::query("insert into accepted_epoch (epoch, by, why) values ($1, $2, $3) on conflict (epoch) do nothing")
            .bind(epoch)
            .bind(by)
            .bind(why)
            .execute(self.pool())
            .await?;
        Ok(())
    }
}
