//! The barrier: both generations of a rebuild stand still at the very same place of every partition, so that they can be
//! compared and one can take the other's place without a reader seeing anything older than before. Rebuilds that go live
//! together share the barrier of the one that leads them, and the decision.
//!
//! ```text
//! gathering ─→ set ─→ decided ─→ released
//!     └─────────┴─(time over)───────↑
//! ```
//! 1. **gathering**: each owner stops where it is and says how far that is. The place F is where the topics end then: no owner, the
//!    present one or one that died, has written anything beyond.
//! 2. **set**: each owner goes on to exactly F, saves, and says that it stands there.
//! 3. **decided**: the commit point, one transaction: the one generation retires, the other is live, in a new version of the
//!    catalog. It asks that every partition of both stands at F **under its present owner**: an owner that took a partition over
//!    meanwhile has a greater fence than the one that said so. Before it all go back when the time is over, after it all go forward.
//! 4. **released**: all go on.
//!
//! Time is over by a change of the row, never by a look at a clock: so a decision and a release can't both happen.

use super::drive::Hold;
use super::generation::State;
use super::rebuild::{Ends, from_rows, to_rows};
use super::step::{Actor, notify, step, turn_page};
use super::{Control, ControlError};
use crate::apply::Partition;
use sqlx::postgres::{PgListener, PgRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row};
use std::collections::HashMap;

/// What owners are to do at a barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Stop, and say where.
    Gathering,
    /// Go to exactly there, and say so.
    Set(Ends),
    /// Stay there: the decision has fallen.
    Decided(Ends),
}

/// A barrier that isn't released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// Its key.
    pub barrier_id: i64,
    /// The rebuild.
    pub rebuild_id: i64,
    /// The generations that stand still.
    pub generations: Vec<i64>,
    /// What to do.
    pub phase: Phase,
    /// The catalog's version that the decision made.
    pub version: Option<i64>,
}

impl FromRow<'_, PgRow> for Barrier {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let ends: Option<Json<Vec<(String, i32, i64)>>> = row.try_get("ends")?;
        let ends = ends.map(|Json(rows)| from_rows(rows));
        let phase = match (row.try_get::<&str, _>("state")?, ends) {
            ("set", Some(ends)) => Phase::Set(ends),
            ("decided", Some(ends)) => Phase::Decided(ends),
            _ => Phase::Gathering,
        };
        Ok(Self {
            barrier_id: row.try_get("barrier_id")?,
            rebuild_id: row.try_get("rebuild_id")?,
            generations: row.try_get("generations")?,
            phase,
            version: row.try_get("version")?,
        })
    }
}

/// What an owner says of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The partition.
    pub partition: Partition,
    /// The owner's fence.
    pub fence: i64,
    /// The next offset.
    pub position: i64,
    /// Whether it stands at the place that was set.
    pub arrived: bool,
}

const BARRIER: &str = "select barrier_id, rebuild_id, generations, state, ends, version from barrier";

/// The channel on which it is notified that something was said at a barrier.
const ARRIVALS_CHANNEL: &str = "projector_arrivals";

impl Control {
    /// All barriers that hold now, after a number that no later barrier's key is below; those whose time is over are released
    /// first.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn barriers(&self) -> Result<(i64, Vec<Barrier>), ControlError> {
        let open = format!("{BARRIER} where state <> 'released'");
        let overdue: bool = sqlx::query_scalar(
            "select exists (select from barrier where state in ('gathering', 'set') and expires_at < now())",
        )
        .fetch_one(self.pool())
        .await?;
        if overdue {
            let mut tx = self.durable().await?;
            sqlx::query(
                "update barrier set state = 'released' where state in ('gathering', 'set') and expires_at < clock_timestamp()",
            )
            .execute(&mut *tx)
            .await?;
            notify(&mut tx).await?;
            tx.commit().await?;
        }
        // In this order: a barrier up to this number that isn't found below was released.
        let seen =
            sqlx::query_scalar("select coalesce(max(barrier_id), 0) from barrier").fetch_one(self.pool()).await?;
        Ok((seen, sqlx::query_as(sqlx::AssertSqlSafe(open)).fetch_all(self.pool()).await?))
    }

    /// The barrier of a rebuild, if one holds.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn barrier_of(&self, rebuild_id: i64) -> Result<Option<Barrier>, ControlError> {
        Ok(self.barriers().await?.1.into_iter().find(|barrier| barrier.rebuild_id == rebuild_id))
    }

    /// Opens a barrier for at most `limit_s`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn open_barrier(&self, hold: Hold, limit_s: f64) -> Result<(), ControlError> {
        let mut tx = self.held(hold).await?;
        sqlx::query(
            "insert into barrier (rebuild_id, generations, state, expires_at)
             select $1, array_agg(stands), 'gathering', clock_timestamp() + make_interval(secs => $2)
             from rebuild r cross join lateral unnest(
                 case when (r.options ->> 'repair')::boolean then array[generation_id] else array[replaces, generation_id] end) stands
             where rebuild_id = $1 or leader = $1
             on conflict do nothing",
        )
        .bind(hold.rebuild_id)
        .bind(limit_s)
        .execute(&mut *tx)
        .await?;
        notify(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Sets the place, which must be reached within `limit_s` from now.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn set_barrier(
        &self,
        hold: Hold,
        barrier_id: i64,
        ends: &Ends,
        limit_s: f64,
    ) -> Result<(), ControlError> {
        let mut tx = self.held(hold).await?;
        sqlx::query(
            "update barrier set state = 'set', ends = $2, expires_at = clock_timestamp() + make_interval(secs => $3)
             where barrier_id = $1 and state = 'gathering'",
        )
        .bind(barrier_id)
        .bind(to_rows(ends))
        .bind(limit_s)
        .execute(&mut *tx)
        .await?;
        notify(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Gives a barrier more time. False when its time was over already.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn extend_barrier(&self, hold: Hold, barrier_id: i64, limit_s: f64) -> Result<bool, ControlError> {
        let mut tx = self.held(hold).await?;
        let extended = sqlx::query(
            "update barrier set expires_at = clock_timestamp() + make_interval(secs => $2)
             where barrier_id = $1 and state = 'set'",
        )
        .bind(barrier_id)
        .bind(limit_s)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(extended.rows_affected() > 0)
    }

    /// Hears what is said at barriers from now on.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn hear_arrivals(&self) -> Result<PgListener, ControlError> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        listener.listen(ARRIVALS_CHANNEL).await?;
        Ok(listener)
    }

    /// Says how far partitions are, or that they stand at the place that was set. Only who drives the rebuild is woken: hosts and query
    /// services have nothing to look for, and are many.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn arrive(&self, barrier_id: i64, generation_id: i64, arrivals: &[Arrival]) -> Result<(), ControlError> {
        let mut tx = self.pool().begin().await?;
        sqlx::query(
            "insert into barrier_arrival (barrier_id, generation_id, topic, partition, fence, position, arrived)
             select $1, $2, * from unnest($3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::bool[])
             on conflict (barrier_id, generation_id, topic, partition) do update
                 set fence = excluded.fence, position = excluded.position, arrived = excluded.arrived",
        )
        .bind(barrier_id)
        .bind(generation_id)
        .bind(arrivals.iter().map(|a| a.partition.topic.to_string()).collect::<Vec<_>>())
        .bind(arrivals.iter().map(|a| a.partition.number).collect::<Vec<_>>())
        .bind(arrivals.iter().map(|a| a.fence).collect::<Vec<_>>())
        .bind(arrivals.iter().map(|a| a.position).collect::<Vec<_>>())
        .bind(arrivals.iter().map(|a| a.arrived).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
        sqlx::query("select pg_notify($1, '')").bind(ARRIVALS_CHANNEL).execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    /// What the present owners said at a barrier, by generation. What one said who was replaced since doesn't count: whoever
    /// followed it may not have heard of the barrier yet.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn arrivals(&self, barrier_id: i64) -> Result<HashMap<i64, Vec<Arrival>>, ControlError> {
        type Line = (i64, String, i32, i64, i64, bool);
        let rows: Vec<Line> = sqlx::query_as(
            "select generation_id, topic, partition, fence, position, arrived
             from barrier_arrival join partition_owner using (generation_id, topic, partition, fence) where barrier_id = $1",
        )
        .bind(barrier_id)
        .fetch_all(self.pool())
        .await?;
        let mut all: HashMap<i64, Vec<Arrival>> = HashMap::new();
        for (generation_id, topic, number, fence, position, arrived) in rows {
            let partition = Partition { topic: topic.into(), number };
            all.entry(generation_id).or_default().push(Arrival { partition, fence, position, arrived });
        }
        Ok(all)
    }

    /// The decision. False, and nothing changed, if the barrier's time was over, or not all partitions of all that it holds stand
    /// at the place under their present owners.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn decide(&self, hold: Hold, barrier_id: i64, actor: Actor<'_>) -> Result<bool, ControlError> {
        let mut tx = self.held(hold).await?;
        let open: Option<Vec<i64>> = sqlx::query_scalar(
            "select generations from barrier
             where barrier_id = $1 and rebuild_id = $2 and state = 'set' and expires_at > clock_timestamp() for update",
        )
        .bind(barrier_id)
        .bind(hold.rebuild_id)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(stand) = open else { return Ok(false) };
        // No partition changes hands until this is committed: a claim waits for it.
        sqlx::query("select from partition_owner where generation_id = any($1) order by generation_id, topic, partition for share")
            .bind(&stand)
            .execute(&mut *tx)
            .await?;
        let missing: i64 = sqlx::query_scalar(
            "select count(*) from generation g, jsonb_each_text(g.topics) as t (topic, count),
                 generate_series(0, t.count::int - 1) as p (partition)
             where g.generation_id = any($2) and not exists (
                 select from barrier_arrival a join partition_owner o using (generation_id, topic, partition)
                 where a.barrier_id = $1 and a.generation_id = g.generation_id and a.topic = t.topic
                     and a.partition = p.partition and a.arrived and a.fence = o.fence)",
        )
        .bind(barrier_id)
        .bind(&stand)
        .fetch_one(&mut *tx)
        .await?;
        if missing > 0 {
            return Ok(false);
        }
        let pairs: Vec<(i64, i64, f64, bool)> = sqlx::query_as(
            "select generation_id, replaces, (options ->> 'rollback_s')::float8, coalesce((options ->> 'repair')::boolean, false)
             from rebuild where rebuild_id = $1 or leader = $1 order by rebuild_id",
        )
        .bind(hold.rebuild_id)
        .fetch_all(&mut *tx)
        .await?;
        for (target, replaced, rollback_s, repair) in pairs {
            // What was spoilt is no way back.
            let former = if repair { State::Dropped } else { State::Retired };
            if !step(&mut tx, replaced, &[State::Live], former, actor).await?
                || !step(&mut tx, target, &[State::Verified, State::Retired], State::Live, actor).await?
            {
                return Ok(false);
            }
            let fed = "update generation set live_since = case when generation_id = $2 then now() end,
                 fed_until = case when generation_id = $1 then now() + make_interval(secs => $3) end
                 where generation_id in ($1, $2)";
            sqlx::query(fed).bind(replaced).bind(target).bind(rollback_s).execute(&mut *tx).await?;
        }
        let version = turn_page(&mut tx).await?;
        sqlx::query("update barrier set state = 'decided', version = $2 where barrier_id = $1")
            .bind(barrier_id)
            .bind(version)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Lets all go on.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn release_barrier(&self, hold: Hold, barrier_id: i64) -> Result<(), ControlError> {
        let mut tx = self.held(hold).await?;
        sqlx::query("update barrier set state = 'released' where barrier_id = $1")
            .bind(barrier_id)
            .execute(&mut *tx)
            .await?;
        notify(&mut tx).await?;
        Ok(tx.commit().await?)
    }
}
