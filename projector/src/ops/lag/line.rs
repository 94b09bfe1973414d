//! One generation: what its hosts say, put into one word, with since when and why.

use super::{age, seconds};
use crate::control::{HostStatus, Member, ParkedCount, Position, State, Stopped, Waiting};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use uuid::Uuid;

/// Hosts report each second; one that was silent for longer says nothing of now.
const FRESH: TimeDelta = TimeDelta::seconds(5);
/// What counts where no host has said its projection's thresholds.
const LAG_MS_MAX: u64 = 1_000;
const LAG_MS_CRITICAL: u64 = 60_000;

/// How a generation is. The first of these that applies, from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// All that came is visible in time.
    Ok,
    /// Nothing waits for it, but no heartbeat came back either: perhaps nothing comes any more.
    Unknown,
    /// Some aggregates wait behind dead letters; the others go on.
    Parked,
    /// Readers see events later than its threshold.
    Late,
    /// Much later.
    Critical,
    /// Some of its partitions have no host.
    NoHost,
    /// A partition stands still before an event.
    Stopped,
    /// Its store, or something else that it needs, is away.
    Waiting,
    /// Somebody, or a failure, has paused it.
    Paused,
}

impl Standing {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Parked => "parked",
            Self::Late => "late",
            Self::Critical => "critical",
            Self::NoHost => "no host",
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
        }
    }
}

/// A partition and who has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placed {
    /// The host.
    pub host: Uuid,
    /// How far it is.
    #[serde(flatten)]
    pub position: Position,
}

/// How late one generation is.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The read model.
    pub read_model: String,
    /// The generation's number.
    pub generation: i32,
    /// Its key in the control store.
    pub generation_id: i64,
    /// Where it is in its life; queries read the live one.
    pub generation_state: State,
    /// The store that its documents are in, once a host has said so.
    pub store: Option<String>,
    /// How it is.
    pub state: Standing,
    /// Since when, where that is known.
    pub since: Option<DateTime<Utc>>,
    /// Why, for people; empty when all is well.
    pub text: String,
    /// Messages in Kafka that aren't handled; none while no host says so.
    pub behind_events: Option<i64>,
    /// The age of the oldest event that readers don't see yet, 0 if there is none; none while no host says so.
    pub behind_seconds: Option<f64>,
    /// Commit → visible of what became visible lately, the slowest, in ms.
    pub lag_ms: u64,
    /// Above it it is late.
    pub lag_ms_max: u64,
    /// Above it that is critical.
    pub lag_ms_critical: u64,
    /// Messages handled a second, of late.
    pub handled_per_s: f64,
    /// Messages published to its topics a second, of late.
    pub published_per_s: f64,
    /// Of the messages of the last minute, the part that failed.
    pub error_rate: f64,
    /// Dead letters that failed.
    pub parked: i64,
    /// Dead letters that wait behind those.
    pub parked_behind: i64,
    /// When the last one that failed was parked.
    pub parked_newest: Option<DateTime<Utc>>,
    /// What it waits for, and since when.
    pub waiting: Option<Waiting>,
    /// Hosts that have partitions of it.
    pub hosts: usize,
    /// Partitions without a host.
    pub partitions_unowned: usize,
    /// When the event happened that was applied last.
    pub last_applied: Option<DateTime<Utc>>,
    /// The last error, if it still stands.
    pub last_error: Option<String>,
    /// How far each partition is. Not in the report's JSON: `projector status` shows it.
    #[serde(skip)]
    pub positions: Vec<Placed>,
}

/// Whether it is fed, or would be if it weren't paused.
pub(super) fn is_shown(member: &Member) -> bool {
    !matches!(member.state, State::Planned | State::Dropped | State::Abandoned)
}

fn place(placed: &Placed) -> (&str, i32) {
    (&placed.position.topic, placed.position.partition)
}

impl Line {
    /// Whether somebody has to look: it is live, and readers see less than they were promised.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.generation_state == State::Live && self.state >= Standing::Late
    }

    /// The age that is compared with the thresholds, in seconds.
    #[must_use]
    pub fn lag_seconds(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "milliseconds within years")]
        let lately = self.lag_ms as f64 / 1_000.0;
        self.behind_seconds.unwrap_or_default().max(lately)
    }

    /// `hears`: whether a heartbeat came back from Kafka lately; none if none ever did.
    pub(super) fn of(
        member: &Member,
        reports: &[&HostStatus],
        parked: ParkedCount,
        hears: Option<bool>,
        now: DateTime<Utc>,
    ) -> Self {
        let fresh: Vec<_> = reports.iter().filter(|r| now - r.updated_at < FRESH).collect();
        let presents = || fresh.iter().map(|r| &r.present);
        let last = reports.last().map(|r| &r.present);
        let mut positions: Vec<_> = fresh
            .iter()
            .flat_map(|r| r.present.positions.iter().map(|p| Placed { host: r.host, position: p.clone() }))
            .collect();
        positions.sort_by(|a, b| place(a).cmp(&place(b)));
        let total: i32 = member.generation.topics.values().sum();
        let owned = positions.chunk_by(|a, b| place(a) == place(b)).count();
        let partitions_unowned = usize::try_from(total).unwrap_or_default().saturating_sub(owned);
        let behind_events = (!fresh.is_empty()).then(|| fresh.iter().map(|r| r.behind).sum());
        // Where nothing is at work, what waits in Kafka has waited at least since that was so.
        let oldest = presents().filter_map(|p| p.oldest_unseen.into_iter().chain(p.idle_since).min()).min();
        let behind_seconds = (!fresh.is_empty()).then(|| oldest.map_or(0.0, |at| seconds(at, now)));
        let mut line = Self {
            read_model: member.generation.read_model.clone(),
            generation: member.generation.generation,
            generation_id: member.generation.generation_id,
            generation_state: member.state,
            store: last.and_then(|p| p.store.clone()),
            state: Standing::Ok,
            since: None,
            text: String::new(),
            behind_events,
            behind_seconds,
            lag_ms: presents().map(|p| p.lag_ms).max().unwrap_or_default(),
            lag_ms_max: last.and_then(|p| p.lag_ms_max).unwrap_or(LAG_MS_MAX),
            lag_ms_critical: last.and_then(|p| p.lag_ms_critical).unwrap_or(LAG_MS_CRITICAL),
            handled_per_s: presents().map(|p| p.handled_per_s).sum(),
            published_per_s: presents().map(|p| p.published_per_s).sum(),
            error_rate: presents().map(|p| p.error_rate).fold(0.0, f64::max),
            parked: parked.failed,
            parked_behind: parked.letters - parked.failed,
            parked_newest: parked.newest,
            waiting: presents().filter_map(|p| p.waiting.clone()).min_by_key(|w| w.since),
            hosts: presents().filter(|p| !p.positions.is_empty()).count(),
            partitions_unowned,
            last_applied: reports.iter().filter_map(|r| r.present.last_applied).max(),
            last_error: fresh.last().and_then(|r| r.last_error.clone()),
            positions,
        };
        let stopped = fresh.iter().filter_map(|r| r.present.stopped.clone()).min_by_key(|s| s.since);
        let late_since = fresh.iter().filter_map(|r| r.present.late_since).min();
        let silent_since = reports.iter().map(|r| r.updated_at).max();
        (line.state, line.since, line.text) =
            line.judge(member, stopped, late_since, silent_since.filter(|_| fresh.is_empty()), &parked, hears, now);
        line
    }

    #[allow(clippy::too_many_arguments, reason = "what was seen, each once")]
    fn judge(
        &self,
        member: &Member,
        stopped: Option<Stopped>,
        late_since: Option<DateTime<Utc>>,
        silent_since: Option<DateTime<Utc>>,
        parked: &ParkedCount,
        hears: Option<bool>,
        now: DateTime<Utc>,
    ) -> (Standing, Option<DateTime<Utc>>, String) {
        if member.paused {
            let why = member.paused_why.clone().unwrap_or_else(|| "no reason was given".to_owned());
            return (Standing::Paused, None, why);
        }
        if let Some(Waiting { on, since, error }) = &self.waiting {
            let error = error.as_deref().unwrap_or("no answer");
            return (Standing::Waiting, Some(*since), format!("{on} is down: {error}"));
        }
        if let Some(Stopped { since, reason }) = stopped {
            return (Standing::Stopped, Some(since), reason);
        }
        if self.partitions_unowned > 0 {
            let text = match silent_since {
                None if self.behind_events.is_none() => "no host has ever fed it".to_owned(),
                None => format!("{} of its partitions have no host", self.partitions_unowned),
                Some(at) => format!("no host has reported for {}", age(seconds(at, now))),
            };
            return (Standing::NoHost, silent_since, text);
        }
        let (lag, live) = (self.lag_seconds(), member.state == State::Live);
        #[allow(clippy::cast_precision_loss, reason = "milliseconds within years")]
        let above = |ms: u64| live && lag > ms as f64 / 1_000.0;
        if above(self.lag_ms_max) {
            let state = if above(self.lag_ms_critical) { Standing::Critical } else { Standing::Late };
            let text = format!(
                "{} behind, {} events; handles {:.0}/s of {:.0}/s published",
                age(lag),
                self.behind_events.unwrap_or_default(),
                self.handled_per_s,
                self.published_per_s
            );
            return (state, late_since, text);
        }
        if parked.failed > 0 {
            let text = format!("{} dead letters, {} events wait behind them", parked.failed, self.parked_behind);
            return (Standing::Parked, parked.since, text);
        }
        let is_quiet = self.published_per_s == 0.0 && self.behind_events == Some(0);
        if is_quiet && hears != Some(true) {
            let text = match hears {
                None => "quiet, and no heartbeat of the outbox ever came back to tell why",
                _ => "quiet, and no heartbeat of the outbox comes back: perhaps nothing reaches Kafka",
            };
            return (Standing::Unknown, None, text.to_owned());
        }
        (Standing::Ok, None, String::new())
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
