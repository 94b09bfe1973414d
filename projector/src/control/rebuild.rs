//! Rebuilds: work that moves a read model's queries from one generation to another, one at a time for each read model.
//!
//! A rebuild is a row; whoever drives it (a command in the foreground, or a host) holds its **lease** and a **fence** that
//! grows with every holder. Each change asks for the fence in its own transaction, so a driver that was taken for dead can
//! change nothing any more, and one that died anywhere is replaced as soon as its lease is over.

use super::generation::{Generation, State};
use super::step::{Actor, insert, log, notify, step};
use super::{Control, ControlError};
use crate::apply::Partition;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, Postgres, Row, Transaction};
use std::collections::BTreeMap;

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
    /// What is live is lost or spoilt: nobody waits for it, nothing is compared with it, and there is no way back to it.
    #[serde(default)]
    pub repair: bool,
    /// Where the replay begins.
    #[serde(default)]
    pub from: Origin,
    /// What is watched after the swap; by itself it goes back where one of these is broken.
    #[serde(default)]
    pub health: Option<Health>,
}

impl Options {
    /// Of a way back, whatever it changes.
    #[must_use]
    pub fn back(verify: Verify) -> Self {
        Self {
            verify,
            promote: true,
            throttle: None,
            rollback_s: 3_600,
            announced: None,
            despite: true,
            back: true,
            repair: false,
            from: Origin::default(),
            health: None,
        }
    }
}

/// Where a generation's history is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// In Kafka, from the first offset on.
    #[default]
    Kafka,
    /// In the event store, then in Kafka from where that leaves off.
    EventStore,
}

/// The rules of health that a generation must keep for a while after it went live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// For how long it is watched, in seconds.
    pub watch_s: u32,
    /// Queries that may fail by its store's or our fault, of a hundred.
    pub failed_percent: u32,
    /// The slowest of a hundred queries may take so long, in ms.
    pub p99_ms: u32,
    /// How far it may lag behind its events, in ms.
    pub lag_ms: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self { watch_s: 600, failed_percent: 5, p99_ms: 5_000, lag_ms: 60_000 }
    }
}

/// How far the event store was read, of a generation that is built from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRead {
    /// Events that were folded, or were of no interest.
    pub done: i64,
    /// Events that the snapshot has.
    pub total: i64,
    /// Whether all of them were: the hosts go on with Kafka.
    pub finished: bool,
}

/// What a rebuild begins with.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// The read model.
    pub read_model: &'a str,
    /// Of the projection that is to be live.
    pub fingerprint: &'a str,
    /// Its file.
    pub config: &'a str,
    /// Its topics, with their number of partitions.
    pub topics: &'a BTreeMap<String, i32>,
    /// What is asked for.
    pub options: &'a Options,
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
    /// The rebuild whose barrier is this one's too, where several go live together.
    pub leader: Option<i64>,
    /// What was asked for.
    pub options: Options,
    /// Where the topics ended when the replay began.
    pub ends: Option<Ends>,
    /// How far the event store was read; none for a replay from Kafka.
    pub history: Option<HistoryRead>,
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

impl Rebuild {
    /// The rebuild that opens the barrier and decides.
    #[must_use]
    pub fn lead(&self) -> i64 {
        self.leader.unwrap_or(self.rebuild_id)
    }
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
            leader: row.try_get("leader")?,
            history: row.try_get::<Option<Json<HistoryRead>>, _>("history")?.map(|Json(history)| history),
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

const REBUILD: &str = "select rebuild_id, read_model, generation_id, replaces, leader, options, ends, history, finding,
    promote,
    case when held_until > now() then holder_name end as driver, asked_by, outcome from rebuild";

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

    /// Those that go live with a rebuild that leads them.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn rebuilds_led_by(&self, rebuild_id: i64) -> Result<Vec<Rebuild>, ControlError> {
        let sql = format!("{REBUILD} where leader = $1 and outcome is null order by rebuild_id");
        Ok(sqlx::query_as(AssertSqlSafe(sql)).bind(rebuild_id).fetch_all(self.pool()).await?)
    }

    /// Begins rebuilds that go live together, all or none: of each a planned generation, and the work to make it live.
    ///
    /// # Errors
    /// [`ControlError::Refused`], with who is at work, if another one of them is under way, or if nothing is live.
    pub async fn start_rebuilds(&self, all: &[New<'_>], actor: Actor<'_>) -> Result<Vec<Rebuild>, ControlError> {
        let mut all = all.to_vec();
        // In one order, so that two who start at once don't wait for each other.
        all.sort_by_key(|new| new.read_model);
        let mut tx = self.durable().await?;
        let (mut ids, mut leader) = (Vec::new(), None);
        for New { read_model, fingerprint, config, topics, options } in all {
            let live = may_start(&mut tx, read_model).await?;
            let generation = insert(&mut tx, State::Planned, read_model, fingerprint, config, topics).await?;
            log(&mut tx, generation.generation_id, State::Planned.name(), actor).await?;
            let id = begin(&mut tx, &live, generation.generation_id, leader, options, actor).await?;
            leader = leader.or(Some(id));
            ids.push(id);
        }
        tx.commit().await?;
        self.rebuilds_of(&ids).await
    }

    /// Begins the way to generations that were live before and are still fed: back, or forward again, all or none.
    ///
    /// # Errors
    /// [`ControlError::Refused`] if there is none, or another rebuild is under way.
    pub async fn start_ways_back(
        &self,
        read_models: &[String],
        options: &Options,
        actor: Actor<'_>,
    ) -> Result<Vec<Rebuild>, ControlError> {
        let mut names = read_models.to_vec();
        names.sort();
        let mut tx = self.durable().await?;
        let (mut ids, mut leader) = (Vec::new(), None);
        for name in &names {
            let live = may_start(&mut tx, name).await?;
            let target = former(&mut tx, name).await?;
            let id = begin(&mut tx, &live, target, leader, options, actor).await?;
            leader = leader.or(Some(id));
            ids.push(id);
        }
        tx.commit().await?;
        self.rebuilds_of(&ids).await
    }

    async fn rebuilds_of(&self, ids: &[i64]) -> Result<Vec<Rebuild>, ControlError> {
        let sql = format!("{REBUILD} where rebuild_id = any($1) order by rebuild_id");
        Ok(sqlx::query_as(AssertSqlSafe(sql)).bind(ids).fetch_all(self.pool()).await?)
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
             where (rebuild_id = $1 or leader = $1) and outcome is null",
        )
        .bind(rebuild.lead())
        .bind(despite)
        .execute(&mut *tx)
        .await?;
        let what = if despite { "promotion asked for, despite differences" } else { "promotion asked for" };
        log(&mut tx, rebuild.generation_id, what, actor).await?;
        notify(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Ends a rebuild before its generation is live, with all that go live with it: their generations are abandoned, or stay
    /// retired if they were that.
    ///
    /// # Errors
    /// [`ControlError::Refused`] once the decision has fallen.
    pub async fn abort_rebuild(&self, rebuild: &Rebuild, actor: Actor<'_>) -> Result<(), ControlError> {
        let mut tx = self.durable().await?;
        sqlx::query("select from rebuild where rebuild_id = $1 for update")
            .bind(rebuild.lead())
            .execute(&mut *tx)
            .await?;
        // Who decides locks the same row.
        let late: bool = sqlx::query_scalar(
            "select exists (select from barrier where rebuild_id = $1 and state = 'decided')
                 or (select outcome from rebuild where rebuild_id = $1) is not null",
        )
        .bind(rebuild.lead())
        .fetch_one(&mut *tx)
        .await?;
        if late {
            return Err(ControlError::Refused(format!(
                "{}: the decision has fallen, it is live; `projector rebuild rollback {0}` goes back",
                rebuild.read_model
            )));
        }
        let targets: Vec<i64> = sqlx::query_scalar(
            "update rebuild set outcome = 'aborted', ended_at = now(), held_until = null, fence = fence + 1
             where rebuild_id = $1 or leader = $1 returning generation_id",
        )
        .bind(rebuild.lead())
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query("update barrier set state = 'released' where rebuild_id = $1 and state <> 'released'")
            .bind(rebuild.lead())
            .execute(&mut *tx)
            .await?;
        let shadow = [State::Planned, State::Replaying, State::CatchingUp, State::Converged, State::Verified];
        for target in targets {
            step(&mut tx, target, &shadow, State::Abandoned, actor).await?;
        }
        notify(&mut tx).await?;
        Ok(tx.commit().await?)
    }
}

/// The live generation, locked against a second start.
async fn may_start(tx: &mut Transaction<'_, Postgres>, read_model: &str) -> Result<Generation, ControlError> {
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
    let other: Option<Rebuild> = sqlx::query_as(AssertSqlSafe(sql)).bind(read_model).fetch_optional(&mut **tx).await?;
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

/// The former generation that is still fed, locked against its end.
async fn former(tx: &mut Transaction<'_, Postgres>, read_model: &str) -> Result<i64, ControlError> {
    let target: Option<(i64, bool, Option<String>)> = sqlx::query_as(
        "select generation_id, paused, paused_why from generation where read_model = $1 and state = 'retired'
         order by updated_at desc limit 1 for update",
    )
    .bind(read_model)
    .fetch_optional(&mut **tx)
    .await?;
    match target {
        Some((id, false, _)) => Ok(id),
        Some((_, true, why)) => {
            let why = why.unwrap_or_else(|| "no reason given".to_owned());
            Err(ControlError::Refused(format!(
                "{read_model}: its former generation isn't fed any more ({why}); `projector rebuild resume {read_model}` feeds \
                 it again"
            )))
        }
        None => Err(ControlError::Refused(format!(
            "{read_model}: no former generation is fed any more; undo the change in its file and rebuild it"
        ))),
    }
}

async fn begin(
    tx: &mut Transaction<'_, Postgres>,
    live: &Generation,
    target: i64,
    leader: Option<i64>,
    options: &Options,
    actor: Actor<'_>,
) -> Result<i64, ControlError> {
    let id = sqlx::query_scalar(
        "insert into rebuild (read_model, generation_id, replaces, leader, options, asked_by) values ($1, $2, $3, $4, $5, $6)
         returning rebuild_id",
    )
    .bind(&live.read_model)
    .bind(target)
    .bind(live.generation_id)
    .bind(leader)
    .bind(Json(options))
    .bind(actor.who)
    .fetch_one(&mut **tx)
    .await?;
    log(tx, target, if options.back { "way back begins" } else { "rebuild begins" }, actor).await?;
    notify(tx).await?;
    Ok(id)
}
