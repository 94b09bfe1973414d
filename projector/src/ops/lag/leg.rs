//! The leg before Kafka: what waits in the outbox, and what may keep it there.

use super::{age, seconds};
use crate::control::Heartbeat;
use chrono::{DateTime, Utc};
use serde::Serialize;

/// Above it the oldest row that isn't published makes the leg critical.
const CRITICAL_S: f64 = 60.0;
/// What counts as late while no host reads heartbeats back, and only rows' stamps tell: these come a while later.
const UNHEARD_LATE_S: f64 = 60.0;

/// How the leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Rows reach Kafka within seconds.
    Ok,
    /// The write database wasn't named.
    NotConfigured,
    /// No host reads heartbeats back, so nobody knows.
    Unknown,
    /// The write database doesn't answer.
    Unreachable,
    /// Rows wait.
    Late,
    /// They wait for long, or what has to bring them is lost.
    Critical,
}

impl Standing {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotConfigured => "not configured",
            Self::Unknown => "unknown",
            Self::Unreachable => "unreachable",
            Self::Late => "late",
            Self::Critical => "critical",
        }
    }
}

/// From the commit to Kafka.
#[derive(Clone, Debug, Serialize)]
pub struct Leg {
    /// How it is.
    pub state: Standing,
    /// Since when, where that is known.
    pub since: Option<DateTime<Utc>>,
    /// Why, for people; empty when all is well.
    pub text: String,
    /// The outbox; none where it can't be asked.
    pub outbox: Option<Outbox>,
    /// The connector's replication slot; none where it can't be asked.
    pub slot: Option<Slot>,
    /// The oldest transaction that writes, if any does: it holds back the pruning of the outbox, and vacuum.
    pub writer: Option<Writer>,
    /// Kafka Connect; none where it isn't named.
    pub connect: Option<Connect>,
    /// The newest heartbeat that came back, if any ever did.
    pub heartbeat: Option<Heard>,
}

/// Rows that aren't known to be published.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outbox {
    /// Events among them; those of the last second always are.
    pub unpublished: i64,
    /// Whether counting stopped there.
    pub at_least: bool,
    /// When the oldest of them was written, heartbeats included.
    pub oldest_at: Option<DateTime<Utc>>,
    /// Its age.
    pub oldest_seconds: f64,
}

/// The replication slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Whether it is there, in this database.
    pub exists: bool,
    /// Whether somebody reads it.
    pub active: bool,
    /// As Postgres says it: `reserved`, `extended`, `unreserved`, `lost`.
    pub wal_status: Option<String>,
    /// WAL that is kept for it.
    pub retained_bytes: Option<i64>,
    /// How much more may be written before it is lost; none where that isn't bounded.
    pub safe_bytes: Option<i64>,
}

/// A transaction that writes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Writer {
    /// The backend's process; none for a prepared transaction.
    pub pid: Option<i32>,
    /// What it calls itself, or the prepared transaction's name.
    pub application_name: String,
    /// When it began.
    pub since: DateTime<Utc>,
    /// How long ago.
    pub seconds: f64,
}

/// What Kafka Connect says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connect {
    /// `RUNNING` where the connector and all its tasks are; `UNREACHABLE`, `MISSING`, or the state of the first that isn't.
    pub state: String,
    /// The connectors that send the outbox to our topics, with their state and their tasks'.
    pub connectors: Vec<(String, String, Vec<String>)>,
    /// What went wrong in asking.
    pub error: Option<String>,
}

/// A heartbeat that came back from Kafka.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Heard {
    /// When it was written.
    pub written_at: DateTime<Utc>,
    /// When it was read.
    pub read_at: DateTime<Utc>,
    /// How long ago it was written.
    pub seconds: f64,
}

impl Heard {
    pub(super) fn of(beat: &Heartbeat, now: DateTime<Utc>) -> Self {
        Self { written_at: beat.occurred_at, read_at: beat.read_at, seconds: seconds(beat.occurred_at, now) }
    }
}

impl Leg {
    pub(super) fn bare(state: Standing, text: String) -> Self {
        Self { state, since: None, text, outbox: None, slot: None, writer: None, connect: None, heartbeat: None }
    }

    /// Whether somebody has to look.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.state >= Standing::Late
    }

    /// Whether the slot is there and somebody reads it; `None` where that isn't known.
    #[must_use]
    pub fn is_read(&self) -> Option<bool> {
        self.slot.as_ref().map(|slot| slot.exists && slot.active)
    }

    /// Puts what was found into a word. `late_s`: how old a row may become; `monitored`: whether a host reads heartbeats back.
    pub(super) fn judge(mut self, late_s: f64, monitored: bool) -> Self {
        let (oldest, since) = self.outbox.as_ref().map_or((0.0, None), |o| (o.oldest_seconds, o.oldest_at));
        let heard = monitored && self.heartbeat.is_some();
        let lost = self.slot.as_ref().and_then(Slot::lost);
        let late = oldest > if heard { late_s } else { UNHEARD_LATE_S };
        self.state = match (&lost, late) {
            (Some(_), _) => Standing::Critical,
            (None, true) if oldest > CRITICAL_S => Standing::Critical,
            (None, true) => Standing::Late,
            (None, false) if !heard => Standing::Unknown,
            (None, false) => Standing::Ok,
        };
        self.since = since.filter(|_| late);
        let mut parts = Vec::from_iter(lost);
        if let (true, Some(outbox)) = (late, &self.outbox) {
            let more = if outbox.at_least { "more than " } else { "" };
            parts.push(match outbox.unpublished {
                0 => format!("a heartbeat written {} ago is not in Kafka", age(oldest)),
                n => format!("{more}{n} events of the outbox not published, the oldest {} old", age(oldest)),
            });
        }
        if self.state == Standing::Unknown {
            parts.push(match self.heartbeat {
                None => "no heartbeat of the outbox ever came back from Kafka".to_owned(),
                Some(_) => "no host reads the outbox's heartbeats back".to_owned(),
            });
        }
        let slot = self.slot.as_ref().filter(|slot| slot.exists && !slot.active);
        parts.extend(slot.map(|slot| format!("nobody reads slot {}", slot.name)));
        parts.extend(self.connect.as_ref().and_then(Connect::trouble));
        self.text = parts.join("; ");
        self
    }
}

impl Slot {
    /// What speaks against it for good.
    fn lost(&self) -> Option<String> {
        let name = &self.name;
        if !self.exists {
            return Some(format!("there is no replication slot {name}"));
        }
        (self.wal_status.as_deref() == Some("lost")).then(|| format!("slot {name} has lost WAL that it needed"))
    }
}

impl Connect {
    /// What is wrong with it, if anything is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match (self.state.as_str(), &self.error) {
            ("RUNNING", _) => None,
            ("UNREACHABLE", Some(error)) => Some(format!("Kafka Connect doesn't answer: {error}")),
            ("MISSING", _) => Some("no connector of Kafka Connect sends the outbox to our topics".to_owned()),
            (state, _) => Some(format!("the connector is {state}")),
        }
    }
}

#[cfg(test)]
#[path = "leg_tests.rs"]
mod tests;
