//! How a generation does after it went live: what query services and hosts say of it, beside the rules that it must keep.

use super::rebuild::{Health, Options};
use super::{Control, ControlError};
use sqlx::types::Json;
use uuid::Uuid;

/// What a query service says of a generation: of the last seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// The generation.
    pub generation_id: i64,
    /// Queries that were answered, or failed.
    pub answered: i64,
    /// Of these, those that failed by the store's or our fault.
    pub failed: i64,
    /// How long all but the slowest of a hundred took at most, in ms.
    pub p99_ms: i64,
}

/// A generation that went live lately, and is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The read model.
    pub read_model: String,
    /// The generation.
    pub generation_id: i64,
    /// Its rules.
    pub health: Health,
    /// Queries of the last seconds, of all services.
    pub answered: i64,
    /// Of these, those that failed.
    pub failed: i64,
    /// The slowest service's p99, in ms.
    pub p99_ms: i64,
}

impl Control {
    /// Replaces what a query service says of its generations.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn report_served(&self, serve: Uuid, served: &[Served]) -> Result<(), ControlError> {
        let column = |of: fn(&Served) -> i64| served.iter().map(of).collect::<Vec<_>>();
        sqlx::query(
            "insert into serve_report (serve, generation_id, answered, failed, p99_ms)
             select $1, * from unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
             on conflict (serve, generation_id) do update set answered = excluded.answered, failed = excluded.failed,
                 p99_ms = excluded.p99_ms, updated_at = now()",
        )
        .bind(serve)
        .bind(column(|s| s.generation_id))
        .bind(column(|s| s.answered))
        .bind(column(|s| s.failed))
        .bind(column(|s| s.p99_ms))
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Generations that went live by a rebuild within its time to be watched, and can go back: their former one is fed.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn watched(&self) -> Result<Vec<Watch>, ControlError> {
        type Row = (String, i64, Json<Options>, i64, i64, i64);
        let rows: Vec<Row> = sqlx::query_as(
            "select g.read_model, g.generation_id, r.options, coalesce(s.answered, 0)::bigint, coalesce(s.failed, 0)::bigint,
                 coalesce(s.p99_ms, 0)::bigint
             from generation g
             join lateral (select options from rebuild where generation_id = g.generation_id and outcome = 'done'
                 order by rebuild_id desc limit 1) r on true
             left join lateral (select sum(answered) as answered, sum(failed) as failed, max(p99_ms) as p99_ms from serve_report
                 where generation_id = g.generation_id and updated_at > now() - interval '5 seconds') s on true
             where g.state = 'live' and r.options -> 'health' <> 'null'
                 and g.live_since > now() - make_interval(secs => (r.options -> 'health' ->> 'watch_s')::float8)
                 and exists (select from generation f where f.read_model = g.read_model and f.state = 'retired' and not f.paused)
                 and not exists (select from rebuild o where o.read_model = g.read_model and o.outcome is null)",
        )
        .fetch_all(self.pool())
        .await?;
        let watch = |(read_model, generation_id, Json(options), answered, failed, p99_ms): Row| {
            options.health.map(|health| Watch { read_model, generation_id, health, answered, failed, p99_ms })
        };
        Ok(rows.into_iter().filter_map(watch).collect())
    }
}
