//! Rebuilds: work that moves a read model's queries from one generation to another, one at a time for each read model.
//!
//! A rebuild is a row; whoever drives it (a command in the foreground, or a host) holds its **lease** and a **fence** that
//! grows with every holder. Each change asks for the fence in its own transaction, so a driver that was taken for dead can
//! change nothing any more, and one that died anywhere is replaced as soon as its lease is over.

use super::generation::{Actor, Generation, State, insert, log, notify, step};
use super::{Control, ControlError};
use crate::apply::Partition;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, Postgres, Row, Transaction};
use std::collections::BTreeMap;
use uuid::Uuid;

/// How long a driver that is silent keeps a rebuild.
const LEASE_S: i32 = 2;

/// Where each partition ends, or must be.
pub type Ends = BTreeMap<Partition, i64>;

/// How documents are compared at the barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// All of them.
    All,
    /// So many of the live generation's, chosen by chance; and the number of all.
    Sample(u32),
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// How documents are compared.
    pub verify: Verify,
    /// Whether it goes live by itself, or waits for somebody to say so.
    pub promote: bool,
    /// Events a second that the replay may take on each host, at most.
    pub throttle: Option<u32>,
    /// How long the replaced generation is fed, for a way back.
    pub rollback_s: u32,
    /// The fields that may differ; all, if none are named here.
    pub announced: Option<Vec<String>>,
    /// Differences were looked at and are wanted.
    pub despite: bool,
    /// Queries go back to a generation that was live before.
    pub back: bool,
}

/// A rebuild that is under way, or was.
#[derive(Clone, Debug)]
pub struct Rebuild {
    /// Its key.
    pub rebuild_id: i64,
    /// The read model.
    pub read_model: String,
    /// The generation that is to be live.
    pub generation_id: i64,
    /// The one that is.
    pub replaces: i64,
    /// What was asked for.
    pub options: Options,
    /// Where the topics ended when the replay began.
    pub ends: Option<Ends>,
    /// What was found at the barrier.
    pub finding: Option<serde_json::Value>,
    /// Somebody said that it may go live.
    pub promote: bool,
    /// Who drives it, if anybody does now.
    pub driver: Option<String>,
    /// Who asked for it.
    pub asked_by: String,
    /// `done` or `aborted`; none while it is under way.
    pub outcome: Option<String>,
}

impl FromRow<'_, PgRow> for Rebuild {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let Json(options) = row.try_get("options")?;
        let ends: Option<Json<Vec<(String, i32, i64)>>> = row.try_get("ends")?;
        Ok(Self {
            rebuild_id: row.try_get("rebuild_id")?,
            read_model: row.try_get("read_model")?,
            generation_id: row.try_get("generation_id")?,
            replaces: row.try_get("replaces")?,
            options,
            ends: ends.map(|Json(rows)| from_rows(rows)),
            finding: row.try_get("finding")?,
            promote: row.try_get("promote")?,
            driver: row.try_get("driver")?,
            asked_by: row.try_get("asked_by")?,
            outcome: row.try_get("outcome")?,
        })
    }
}

pub(super) fn to_rows(ends: &Ends) -> Json<Vec<(String, i32, i64)>> {
    Json(ends.iter().map(|(p, end)| (p.topic.to_string(), p.number, *end)).collect())
}

pub(super) fn from_rows(rows: Vec<(String, i32, i64)>) -> Ends {
    rows.into_iter().map(|(topic, number, end)| (Partition { topic: topic.into(), number }, end)).collect()
}

const REBUILD: &str = "select rebuild_id, read_model, generation_id, replaces, options, ends, finding, promote,
    case when held_until > now() then holder_name end as driver, asked_by, outcome from rebuild";

/// The right to change a rebuild: its driver's fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The rebuild.
    pub rebuild_id: i64,
    /// The fence.
    pub fence: i64,
}

impl Control {
    /// All rebuilds under way, by read model.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn rebuilds(&self) -> Result<Vec<Rebuild>, ControlError> {
        let sql = format!("{REBUILD} where outcome is null order by read_model");
        Ok(sqlx::query_as(AssertSqlSafe(sql)).fetch_all(self.pool()).await?)
    }

    /// One rebuild.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn rebuild(&self, rebuild_id: i64) -> Result<Rebuild, ControlError> {
        let sql = format!("{REBUILD} where rebuild_id = $1");
        Ok(sqlx::query_as(AssertSqlSafe(sql)).bind(rebuild_id).fetch_one(self.pool()).await?)
    }

    /// The rebuild of a read model that is under way.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn rebuild_of(&self, read_model: &str) -> Result<Option<Rebuild>, ControlError> {
        let sql = format!("{REBUILD} where read_model = $1 and outcome is null");
        Ok(sqlx::query_as(AssertSqlSafe(sql)).bind(read_model).fetch_optional(self.pool()).await?)
    }

    /// Begins a rebuild: a planned generation, and the work to make it live.
    ///
    /// # Errors
    /// [`ControlError::Refused`], with who is at work, if another one is under way, or if nothing is live.
    pub async fn start_rebuild(
        &self,
        read_model: &str,
        fingerprint: &str,
        config: &str,
        topics: &BTreeMap<String, i32>,
        options: &Options,
        actor: Actor<'_>,
    ) -> Result<Rebuild, ControlError> {
        let mut tx = self.durable().await?;
        let live = self.may_start(&mut tx, read_model).await?;
        let generation = insert(&mut tx, State::Planned, read_model, fingerprint, config, topics).await?;
        log(&mut tx, generation.generation_id, State::Planned.name(), actor).await?;
        let id = begin(&mut tx, &live, generation.generation_id, options, actor).await?;
        tx.commit().await?;
        self.rebuild(id).await
    }

    /// Begins the way to a generation that was live before and is still fed: back, or forward again.
    ///
    /// # Errors
    /// [`ControlError::Refused`] if there is none, or another rebuild is under way.
    pub async fn start_way_back(
        &self,
        read_model: &str,
        options: &Options,
        actor: Actor<'_>,
    ) -> Result<Rebuild, ControlError> {
        let mut tx = self.durable().await?;
        let live = self.may_start(&mut tx, read_model).await?;
        let target: Option<(i64, bool, Option<String>)> = sqlx::query_as(
            "select generation_id, paused, paused_why from generation where read_model = $1 and state = 'retired'
             order by updated_at desc limit 1 for update",
        )
        .bind(read_model)
        .fetch_optional(&mut *tx)
        .await?;
        let target = match target {
            Some((id, false, _)) => id,
            Some((_, true, why)) => {
                let why = why.unwrap_or_else(|| "no reason given".to_owned());
                return Err(ControlError::Refused(format!(
                    "{read_model}: its former generation isn't fed any more ({why}); `projector rebuild resume {read_model}` \
                     feeds it again"
                )));
            }
            None => {
                return Err(ControlError::Refused(format!(
                    "{read_model}: no former generation is fed any more; undo the change in its file and rebuild it"
                )));
            }
        };
        let id = begin(&mut tx, &live, target, options, actor).await?;
        tx.commit().await?;
        self.rebuild(id).await
    }

    /// The live generation, locked against a second start.
    async fn may_start(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        read_model: &str,
    ) -> Result<Generation, ControlError> {
        let sql = format!(
            "select {} from generation where read_model = $1 and state = 'live' for update",
            super::generation::COLUMNS
        );
        let live: Option<Generation> =
            sqlx::query_as(AssertSqlSafe(sql)).bind(read_model).fetch_optional(&mut **tx).await?;
        let Some(live) = live else {
            let message = format!("no read model `{read_model}` is live; `projector apply` creates it");
            return Err(ControlError::Refused(message));
        };
        let sql = format!("{REBUILD} where read_model = $1 and outcome is null");
        let other: Option<Rebuild> =
            sqlx::query_as(AssertSqlSafe(sql)).bind(read_model).fetch_optional(&mut **tx).await?;
        match other {
            None => Ok(live),
            Some(other) => Err(ControlError::Refused(format!(
                "{read_model} is being rebuilt already: asked for by {}, {}; see `projector rebuild status`, or end it with \
                 `projector rebuild abort {read_model}`",
                other.asked_by,
                other.driver.map_or_else(|| "a host goes on with it".to_owned(), |who| format!("held by {who}")),
            ))),
        }
    }

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

    /// Notes what was found at the barrier.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn rebuild_finding(&self, hold: Hold, finding: &serde_json::Value) -> Result<(), ControlError> {
        let mut tx = self.held(hold).await?;
        sqlx::query("update rebuild set finding = $2 where rebuild_id = $1")
            .bind(hold.rebuild_id)
            .bind(finding)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// The rebuild is done.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn rebuild_done(&self, hold: Hold) -> Result<(), ControlError> {
        let mut tx = self.held(hold).await?;
        sqlx::query("update rebuild set outcome = 'done', ended_at = now(), held_until = null where rebuild_id = $1")
            .bind(hold.rebuild_id)
            .execute(&mut *tx)
            .await?;
        notify(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// An operator lets it go live. `despite`: whatever differs.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn ask_promotion(&self, rebuild: &Rebuild, despite: bool, actor: Actor<'_>) -> Result<(), ControlError> {
        let mut tx = self.durable().await?;
        sqlx::query(
            "update rebuild set promote = true, finding = null,
                 options = case when $2 then options || '{\"despite\": true}' else options end
             where rebuild_id = $1 and outcome is null",
        )
        .bind(rebuild.rebuild_id)
        .bind(despite)
        .execute(&mut *tx)
        .await?;
        let what = if despite { "promotion asked for, despite differences" } else { "promotion asked for" };
        log(&mut tx, rebuild.generation_id, what, actor).await?;
        notify(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Ends a rebuild before its generation is live: the generation is abandoned, or stays retired if it was that.
    ///
    /// # Errors
    /// [`ControlError::Refused`] once the decision has fallen.
    pub async fn abort_rebuild(&self, rebuild: &Rebuild, actor: Actor<'_>) -> Result<(), ControlError> {
        let mut tx = self.durable().await?;
        sqlx::query("select from rebuild where rebuild_id = $1 for update")
            .bind(rebuild.rebuild_id)
            .execute(&mut *tx)
            .await?;
        // Who decides locks the same row.
        let late: bool = sqlx::query_scalar(
            "select exists (select from barrier where rebuild_id = $1 and state = 'decided')
                 or (select outcome from rebuild where rebuild_id = $1) is not null",
        )
        .bind(rebuild.rebuild_id)
        .fetch_one(&mut *tx)
        .await?;
        if late {
            return Err(ControlError::Refused(format!(
                "{}: the decision has fallen, it is live; `projector rebuild rollback {0}` goes back",
                rebuild.read_model
            )));
        }
        sqlx::query(
            "update rebuild set outcome = 'aborted', ended_at = now(), held_until = null, fence = fence + 1 where rebuild_id = $1",
        )
        .bind(rebuild.rebuild_id)
        .execute(&mut *tx)
        .await?;
        sqlx::query("update barrier set state = 'released' where rebuild_id = $1 and state <> 'released'")
            .bind(rebuild.rebuild_id)
            .execute(&mut *tx)
            .await?;
        let shadow = [State::Planned, State::Replaying, State::CatchingUp, State::Converged, State::Verified];
        step(&mut tx, rebuild.generation_id, &shadow, State::Abandoned, actor).await?;
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

async fn begin(
    tx: &mut Transaction<'_, Postgres>,
    live: &Generation,
    target: i64,
    options: &Options,
    actor: Actor<'_>,
) -> Result<i64, ControlError> {
    let id = sqlx::query_scalar(
        "insert into rebuild (read_model, generation_id, replaces, options, asked_by) values ($1, $2, $3, $4, $5)
         returning rebuild_id",
    )
    .bind(&live.read_model)
    .bind(target)
    .bind(live.generation_id)
    .bind(Json(options))
    .bind(actor.who)
    .fetch_one(&mut **tx)
    .await?;
    log(tx, target, if options.back { "way back begins" } else { "rebuild begins" }, actor).await?;
    notify(tx).await?;
    Ok(id)
}
