//! What the driver of a rebuild does to it: each change asks for its fence.

use super::generation::State;
use super::rebuild::{Ends, HistoryRead, to_rows};
use super::step::{Actor, notify, step};
use super::{Control, ControlError};
use sqlx::types::Json;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

/// How long a driver that is silent keeps a rebuild.
const LEASE_S: i32 = 2;

/// The right to change a rebuild: its driver's fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The rebuild.
    pub rebuild_id: i64,
    /// The fence.
    pub fence: i64,
}

impl Control {
    /// Takes a rebuild that nobody drives, or that we drive already.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn hold(&self, rebuild_id: i64, holder: Uuid, name: &str) -> Result<Option<Hold>, ControlError> {
        let fence: Option<i64> = sqlx::query_scalar(
            "update rebuild set holder = $2, holder_name = $3, held_until = now() + make_interval(secs => $4), fence = fence + 1
             where rebuild_id = $1 and outcome is null and (held_until is null or held_until < now() or holder = $2)
             returning fence",
        )
        .bind(rebuild_id)
        .bind(holder)
        .bind(name)
        .bind(f64::from(LEASE_S))
        .fetch_optional(self.pool())
        .await?;
        Ok(fence.map(|fence| Hold { rebuild_id, fence }))
    }

    /// Keeps it. False when it is somebody else's by now, or over.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn keep(&self, hold: Hold) -> Result<bool, ControlError> {
        let kept = sqlx::query(
            "update rebuild set held_until = now() + make_interval(secs => $3)
             where rebuild_id = $1 and fence = $2 and outcome is null",
        )
        .bind(hold.rebuild_id)
        .bind(hold.fence)
        .bind(f64::from(LEASE_S))
        .execute(self.pool())
        .await?;
        Ok(kept.rows_affected() > 0)
    }

    /// Lets go of it, so that the next one needn't wait for the lease to end.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn let_go(&self, hold: Hold) -> Result<(), ControlError> {
        sqlx::query("update rebuild set held_until = null where rebuild_id = $1 and fence = $2")
            .bind(hold.rebuild_id)
            .bind(hold.fence)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Moves the rebuild's generation a step on.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when somebody else drives it by now.
    pub async fn rebuild_step(
        &self,
        hold: Hold,
        from: &[State],
        to: State,
        actor: Actor<'_>,
    ) -> Result<bool, ControlError> {
        let mut tx = self.held(hold).await?;
        let id: i64 = sqlx::query_scalar("select generation_id from rebuild where rebuild_id = $1")
            .bind(hold.rebuild_id)
            .fetch_one(&mut *tx)
            .await?;
        let moved = step(&mut tx, id, from, to, actor).await?;
        tx.commit().await?;
        Ok(moved)
    }

    /// [`Control::rebuild_step`] of all that go live with it.
    ///
    /// # Errors
    /// As there.
    pub async fn set_step(&self, hold: Hold, from: &[State], to: State, actor: Actor<'_>) -> Result<(), ControlError> {
        let mut tx = self.held(hold).await?;
        let ids: Vec<i64> =
            sqlx::query_scalar("select generation_id from rebuild where rebuild_id = $1 or leader = $1 order by 1")
                .bind(hold.rebuild_id)
                .fetch_all(&mut *tx)
                .await?;
        for id in ids {
            step(&mut tx, id, from, to, actor).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Notes how far the event store was read.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn rebuild_history(&self, hold: Hold, history: HistoryRead) -> Result<(), ControlError> {
        let mut tx = self.held(hold).await?;
        sqlx::query("update rebuild set history = $2 where rebuild_id = $1")
            .bind(hold.rebuild_id)
            .bind(Json(history))
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Notes where the topics end now that the replay begins; once.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn rebuild_ends(&self, hold: Hold, ends: &Ends) -> Result<(), ControlError> {
        let mut tx = self.held(hold).await?;
        sqlx::query("update rebuild set ends = coalesce(ends, $2) where rebuild_id = $1")
            .bind(hold.rebuild_id)
            .bind(to_rows(ends))
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Notes what was found at the barrier about a rebuild: the one that is held, or one that it leads.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn rebuild_finding(
        &self,
        hold: Hold,
        rebuild_id: i64,
        finding: &serde_json::Value,
    ) -> Result<(), ControlError> {
        let mut tx = self.held(hold).await?;
        sqlx::query("update rebuild set finding = $3 where rebuild_id = $2 and (rebuild_id = $1 or leader = $1)")
            .bind(hold.rebuild_id)
            .bind(rebuild_id)
            .bind(finding)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// The rebuild is done, and all that it leads.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn rebuild_done(&self, hold: Hold) -> Result<(), ControlError> {
        let mut tx = self.held(hold).await?;
        sqlx::query(
            "update rebuild set outcome = 'done', ended_at = now(), held_until = null
             where (rebuild_id = $1 or leader = $1) and outcome is null",
        )
        .bind(hold.rebuild_id)
        .execute(&mut *tx)
        .await?;
        notify(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// A transaction of the rebuild's driver.
    pub(super) async fn held(&self, hold: Hold) -> Result<Transaction<'static, Postgres>, ControlError> {
        let mut tx = self.durable().await?;
        let row: Option<(i64, Option<String>, Option<String>)> =
            sqlx::query_as("select fence, holder_name, outcome from rebuild where rebuild_id = $1 for update")
                .bind(hold.rebuild_id)
                .fetch_optional(&mut *tx)
                .await?;
        match row {
            Some((fence, _, None)) if fence == hold.fence => Ok(tx),
            Some((_, _, Some(outcome))) => Err(ControlError::Refused(format!("the rebuild is over: {outcome}"))),
            Some((_, holder, None)) => Err(ControlError::Refused(format!(
                "the rebuild is driven by {} by now",
                holder.unwrap_or_else(|| "somebody else".to_owned())
            ))),
            None => Err(ControlError::Refused("there is no such rebuild any more".to_owned())),
        }
    }
}
