//! The steps of a generation's life, each one transaction with its line in the log.

use super::generation::{COLUMNS, GENERATIONS_CHANNEL, Generation, State};
use super::{Control, ControlError};
use sqlx::{Postgres, Transaction};
use std::collections::BTreeMap;

/// Who does something, and why: a line in the log.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// Who.
    pub who: &'a str,
    /// Why, where they said so.
    pub why: Option<&'a str>,
}

impl Control {
    /// Registers a read model's first generation as live.
    ///
    /// # Errors
    /// [`ControlError`]; among them that somebody else registered it at the same moment.
    pub async fn create_live(
        &self,
        read_model: &str,
        fingerprint: &str,
        config: &str,
        topics: &BTreeMap<String, i32>,
        actor: Actor<'_>,
    ) -> Result<Generation, ControlError> {
        let mut tx = self.durable().await?;
        let generation = insert(&mut tx, State::Live, read_model, fingerprint, config, topics).await?;
        turn_page(&mut tx).await?;
        log(&mut tx, generation.generation_id, "created, live", actor).await?;
        tx.commit().await?;
        Ok(generation)
    }

    /// Replaces a generation's file by one of the same fingerprint: other queries, other prose.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn update_config(&self, generation_id: i64, config: &str, actor: Actor<'_>) -> Result<(), ControlError> {
        let mut tx = self.durable().await?;
        sqlx::query("update generation set config = $2, updated_at = now() where generation_id = $1")
            .bind(generation_id)
            .bind(config)
            .execute(&mut *tx)
            .await?;
        notify(&mut tx).await?;
        log(&mut tx, generation_id, "changed in place", actor).await?;
        Ok(tx.commit().await?)
    }

    /// Keeps a generation live until what is returned is dropped: a decision waits. None if it isn't live.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn stay_live(&self, generation_id: i64) -> Result<Option<Transaction<'static, Postgres>>, ControlError> {
        let mut tx = self.pool().begin().await?;
        let found = sqlx::query("select from generation where generation_id = $1 and state = 'live' for share")
            .bind(generation_id)
            .fetch_optional(&mut *tx)
            .await?;
        Ok(found.map(|_| tx))
    }

    /// Gives up a live read model: nothing is live under its name any more.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn give_up(&self, generation_id: i64, actor: Actor<'_>) -> Result<bool, ControlError> {
        let mut tx = self.durable().await?;
        let wanted: bool = sqlx::query_scalar(
            "select exists (select from rebuild where (generation_id = $1 or replaces = $1) and outcome is null)",
        )
        .bind(generation_id)
        .fetch_one(&mut *tx)
        .await?;
        let moved = !wanted && step(&mut tx, generation_id, &[State::Live], State::Dropped, actor).await?;
        if moved {
            turn_page(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(moved)
    }

    /// Pauses the feeding of a generation, or lets it go on.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn pause(&self, generation_id: i64, paused: bool, actor: Actor<'_>) -> Result<bool, ControlError> {
        let mut tx = self.durable().await?;
        let changed = sqlx::query(
            "update generation set paused = $2, paused_why = case when $2 then $3 end, updated_at = now()
             where generation_id = $1 and paused <> $2 and state <> 'live'",
        )
        .bind(generation_id)
        .bind(paused)
        .bind(actor.why)
        .execute(&mut *tx)
        .await?
        .rows_affected()
            > 0;
        if changed {
            log(&mut tx, generation_id, if paused { "paused" } else { "resumed" }, actor).await?;
            notify(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(changed)
    }

    /// Gives up what retired generations were kept for, once their time is over. Those that a rebuild is about to make live
    /// again stay.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn drop_overdue(&self) -> Result<(), ControlError> {
        let overdue: Vec<i64> = sqlx::query_scalar(
            "select generation_id from generation g where state = 'retired' and fed_until < now()
             and not exists (select from rebuild r where r.outcome is null and r.generation_id = g.generation_id)",
        )
        .fetch_all(self.pool())
        .await?;
        for id in overdue {
            let actor = Actor { who: "host", why: Some("the time for a rollback is over") };
            self.retire(id, actor).await?;
        }
        Ok(())
    }

    /// Gives up a retired generation, unless a rebuild is about to make it live again.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn retire(&self, generation_id: i64, actor: Actor<'_>) -> Result<bool, ControlError> {
        let mut tx = self.durable().await?;
        // Who starts a rebuild to it locks the same row.
        sqlx::query("select from generation where generation_id = $1 for update")
            .bind(generation_id)
            .execute(&mut *tx)
            .await?;
        let wanted: bool =
            sqlx::query_scalar("select exists (select from rebuild where generation_id = $1 and outcome is null)")
                .bind(generation_id)
                .fetch_one(&mut *tx)
                .await?;
        let moved = !wanted && step(&mut tx, generation_id, &[State::Retired], State::Dropped, actor).await?;
        tx.commit().await?;
        Ok(moved)
    }

    /// Notes that a dropped or abandoned generation's place is gone.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn removed(&self, generation_id: i64, who: &str) -> Result<(), ControlError> {
        let mut tx = self.durable().await?;
        let changed = sqlx::query(
            "update generation set removed_at = now() where generation_id = $1 and removed_at is null
             and state in ('dropped', 'abandoned')",
        )
        .bind(generation_id)
        .execute(&mut *tx)
        .await?
        .rows_affected()
            > 0;
        if changed {
            for sql in [
                "delete from progress where generation_id = $1",
                "delete from host_status where generation_id = $1",
                "delete from dead_letter where generation_id = $1",
            ] {
                sqlx::query(sql).bind(generation_id).execute(&mut *tx).await?;
            }
            log(&mut tx, generation_id, "place removed", Actor { who, why: None }).await?;
        }
        Ok(tx.commit().await?)
    }
}

pub(super) async fn insert(
    tx: &mut Transaction<'_, Postgres>,
    state: State,
    read_model: &str,
    fingerprint: &str,
    config: &str,
    topics: &BTreeMap<String, i32>,
) -> Result<Generation, ControlError> {
    let sql = format!(
        "insert into generation (read_model, generation, state, fingerprint, config, topics)
         values ($1, 1 + coalesce((select max(generation) from generation where read_model = $1), 0), $2, $3, $4, $5)
         returning {COLUMNS}"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(read_model)
        .bind(state.name())
        .bind(fingerprint)
        .bind(config)
        .bind(sqlx::types::Json(topics))
        .fetch_one(&mut **tx)
        .await?)
}

pub(super) async fn step(
    tx: &mut Transaction<'_, Postgres>,
    generation_id: i64,
    from: &[State],
    to: State,
    actor: Actor<'_>,
) -> Result<bool, ControlError> {
    let from: Vec<&str> = from.iter().map(|state| state.name()).collect();
    let moved = sqlx::query(
        "update generation set state = $3, updated_at = now(), paused = false, paused_why = null
         where generation_id = $1 and state = any($2)",
    )
    .bind(generation_id)
    .bind(from)
    .bind(to.name())
    .execute(&mut **tx)
    .await?
    .rows_affected()
        > 0;
    if moved {
        log(tx, generation_id, to.name(), actor).await?;
        notify(tx).await?;
    }
    Ok(moved)
}

/// A line in the log.
pub(super) async fn log(
    tx: &mut Transaction<'_, Postgres>,
    generation_id: i64,
    what: &str,
    actor: Actor<'_>,
) -> Result<(), ControlError> {
    sqlx::query(
        "insert into generation_log (read_model, generation, what, who, why)
         select read_model, generation, $2, $3, $4 from generation where generation_id = $1",
    )
    .bind(generation_id)
    .bind(what)
    .bind(actor.who)
    .bind(actor.why)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Another generation is live: a new version of the catalog, which it gives.
pub(super) async fn turn_page(tx: &mut Transaction<'_, Postgres>) -> Result<i64, ControlError> {
    let version = sqlx::query_scalar("update catalog set version = version + 1 returning version");
    let version = version.fetch_one(&mut **tx).await?;
    notify(tx).await?;
    Ok(version)
}

/// Wakes hosts, query services and jobs once the transaction is committed.
pub(super) async fn notify(tx: &mut Transaction<'_, Postgres>) -> Result<(), ControlError> {
    sqlx::query("select pg_notify($1, '')").bind(GENERATIONS_CHANNEL).execute(&mut **tx).await?;
    Ok(())
}
