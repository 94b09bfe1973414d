//! What the monitor keeps: the heartbeat that came back from Kafka, who raises alerts, and which there are.

use super::{Control, ControlError};
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::HashMap;
use uuid::Uuid;

/// How long a host raises alerts without saying again that it does.
const LEASE_S: f64 = 5.0;
/// How long a resolved alert is kept, to look at.
const RESOLVED_KEPT_H: i32 = 24;

/// A heartbeat of the outbox that came back from Kafka: what was committed before it has been published.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Heartbeat {
    /// The life of the write database that it is of.
    pub epoch: String,
    /// The transaction that wrote it.
    pub txid: i64,
    /// When it was written.
    pub occurred_at: DateTime<Utc>,
    /// When it was read from Kafka.
    pub read_at: DateTime<Utc>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Somebody should look.
    Warning,
    /// Somebody must look now.
    Critical,
}

impl Severity {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Something that is wrong, or was until lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// Which rule raised it, such as `store-down`.
    pub name: String,
    /// The read model; none where it is about none alone.
    pub read_model: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// Since when.
    pub since: DateTime<Utc>,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub remedy: String,
    /// When it was over; none while it isn't.
    pub resolved_at: Option<DateTime<Utc>>,
}

/// Dead letters of a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParkedCount {
    /// All of them.
    pub letters: i64,
    /// Of these, those that failed; the others wait behind them.
    pub failed: i64,
    /// When the first of them was parked.
    pub since: Option<DateTime<Utc>>,
    /// When the last one that failed was parked.
    pub newest: Option<DateTime<Utc>>,
}

impl Control {
    /// The control store's clock: what it has stamped is compared with this.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn now(&self) -> Result<DateTime<Utc>, ControlError> {
        Ok(sqlx::query_scalar("select clock_timestamp()").fetch_one(self.pool()).await?)
    }

    /// Notes the newest heartbeat that was read.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn beat(&self, epoch: &str, txid: i64, occurred_at: DateTime<Utc>) -> Result<(), ControlError> {
        sqlx::query(
            "insert into heartbeat (epoch, txid, occurred_at) values ($1, $2, $3)
             on conflict (one) do update set epoch = excluded.epoch, txid = excluded.txid, occurred_at = excluded.occurred_at,
                 read_at = now()",
        )
        .bind(epoch)
        .bind(txid)
        .bind(occurred_at)
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// The newest heartbeat that was read, if any ever was.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn heartbeat(&self) -> Result<Option<Heartbeat>, ControlError> {
        let sql = "select epoch, txid, occurred_at, read_at from heartbeat";
        Ok(sqlx::query_as(sql).fetch_optional(self.pool()).await?)
    }

    /// Takes or keeps the monitor's lease; whether it is ours now.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn hold_monitor(&self, holder: Uuid, name: &str) -> Result<bool, ControlError> {
        let held: Option<bool> = sqlx::query_scalar(
            "insert into monitor_lease (holder, holder_name, held_until)
             values ($1, $2, clock_timestamp() + make_interval(secs => $3))
             on conflict (one) do update set holder = excluded.holder, holder_name = excluded.holder_name,
                 held_until = excluded.held_until
                 where monitor_lease.holder = excluded.holder or monitor_lease.held_until < clock_timestamp()
             returning true",
        )
        .bind(holder)
        .bind(name)
        .bind(LEASE_S)
        .fetch_optional(self.pool())
        .await?;
        Ok(held.is_some())
    }

    /// Whether somebody holds the lease, and so reads heartbeats back.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn is_monitored(&self) -> Result<bool, ControlError> {
        let sql = "select exists (select from monitor_lease where held_until > clock_timestamp())";
        Ok(sqlx::query_scalar(sql).fetch_one(self.pool()).await?)
    }

    /// Gives the lease back, so that the next host needn't wait for its end.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn leave_monitor(&self, holder: Uuid) -> Result<(), ControlError> {
        sqlx::query("delete from monitor_lease where holder = $1").bind(holder).execute(self.pool()).await?;
        Ok(())
    }

    /// The dead letters of each generation that has any.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn parked_counts(&self) -> Result<HashMap<i64, ParkedCount>, ControlError> {
        type Row = (i64, i64, i64, Option<DateTime<Utc>>, Option<DateTime<Utc>>);
        let rows: Vec<Row> = sqlx::query_as(
            "select generation_id, count(*), count(reason), min(parked_at), max(parked_at) filter (where reason is not null)
             from dead_letter group by generation_id",
        )
        .fetch_all(self.pool())
        .await?;
        let count = |(id, letters, failed, since, newest)| (id, ParkedCount { letters, failed, since, newest });
        Ok(rows.into_iter().map(count).collect())
    }

    /// Notes what an alert is now.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn note_alert(&self, alert: &Alert) -> Result<(), ControlError> {
        sqlx::query(
            "with old as (delete from alert where resolved_at < now() - make_interval(hours => $8) and (name, read_model) <> ($1, $2))
             insert into alert (name, read_model, severity, since, text, remedy, resolved_at) values ($1, $2, $3, $4, $5, $6, $7)
             on conflict (name, read_model) do update set severity = excluded.severity, since = excluded.since,
                 text = excluded.text, remedy = excluded.remedy, resolved_at = excluded.resolved_at",
        )
        .bind(&alert.name)
        .bind(alert.read_model.as_deref().unwrap_or_default())
        .bind(alert.severity.name())
        .bind(alert.since)
        .bind(&alert.text)
        .bind(&alert.remedy)
        .bind(alert.resolved_at)
        .bind(RESOLVED_KEPT_H)
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// The alerts that stand, and those that were resolved within a day: the newest first.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn alerts(&self) -> Result<Vec<Alert>, ControlError> {
        type Row = (String, String, String, DateTime<Utc>, String, String, Option<DateTime<Utc>>);
        let rows: Vec<Row> = sqlx::query_as(
            "select name, read_model, severity, since, text, remedy, resolved_at from alert
             where resolved_at is null or resolved_at > now() - make_interval(hours => $1)
             order by resolved_at is not null, since desc, name, read_model",
        )
        .bind(RESOLVED_KEPT_H)
        .fetch_all(self.pool())
        .await?;
        let alert = |(name, read_model, severity, since, text, remedy, resolved_at): Row| Alert {
            name,
            read_model: Some(read_model).filter(|name| !name.is_empty()),
            severity: if severity == Severity::Critical.name() { Severity::Critical } else { Severity::Warning },
            since,
            text,
            remedy,
            resolved_at,
        };
        Ok(rows.into_iter().map(alert).collect())
    }
}
