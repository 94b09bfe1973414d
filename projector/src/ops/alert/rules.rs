//! The rules: what of a report somebody must know of, how long it must last, and what to do about it.

use super::machine::Machine;
use crate::control::{Severity, State, Waiting};
use crate::ops::lag::{Leg, LegState, Line, Report, Standing, age};
use chrono::{DateTime, TimeDelta, Utc};

/// The part of messages that may fail.
const ERROR_RATE_MAX: f64 = 0.001;
/// Messages behind from which on it counts that fewer are handled than published.
const FALLS_BEHIND_FROM: i64 = 500;
/// Handled for each published: below it the read model falls behind.
const KEEPS_UP: f64 = 0.9;
/// The age of a writing transaction that somebody should look at.
const WRITER_MAX_S: f64 = 60.0;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The control store doesn't answer a host. The one rule that isn't the monitor's: each host tells it.
    ControlStoreDown,
    /// A store, or another service that a read model needs, is away.
    StoreDown,
    /// A read model is later than its threshold.
    Late,
    /// A partition stands still.
    Stopped,
    /// Partitions have no host.
    NoHost,
    /// A live read model is paused.
    Paused,
    /// Events are parked.
    DeadLetter,
    /// Too many events fail.
    ErrorRate,
    /// Fewer events are handled than published.
    FallsBehind,
    /// Events don't reach Kafka.
    OutboxNotPublished,
    /// The slot is gone, or what it needed.
    SlotLost,
    /// Nobody reads the slot.
    SlotInactive,
    /// The connector doesn't run.
    ConnectorDown,
    /// The write database can't be asked.
    WriteDatabaseDown,
    /// Nothing tells whether events reach Kafka.
    OutboxUnknown,
    /// A transaction has been open for long.
    LongTransaction,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::ControlStoreDown,
        Self::StoreDown,
        Self::Late,
        Self::Stopped,
        Self::NoHost,
        Self::Paused,
        Self::DeadLetter,
        Self::ErrorRate,
        Self::FallsBehind,
        Self::OutboxNotPublished,
        Self::SlotLost,
        Self::SlotInactive,
        Self::ConnectorDown,
        Self::WriteDatabaseDown,
        Self::OutboxUnknown,
        Self::LongTransaction,
    ];

    /// Its name, in messages and labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ControlStoreDown => "control-store-down",
            Self::StoreDown => "store-down",
            Self::Late => "read-model-late",
            Self::Stopped => "partition-stopped",
            Self::NoHost => "no-host",
            Self::Paused => "read-model-paused",
            Self::DeadLetter => "dead-letter",
            Self::ErrorRate => "error-rate",
            Self::FallsBehind => "falls-behind",
            Self::OutboxNotPublished => "outbox-not-published",
            Self::SlotLost => "slot-lost",
            Self::SlotInactive => "slot-inactive",
            Self::ConnectorDown => "connector-down",
            Self::WriteDatabaseDown => "write-database-down",
            Self::OutboxUnknown => "outbox-unknown",
            Self::LongTransaction => "long-transaction",
        }
    }

    /// The rule of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }

    /// How long it must hold.
    #[must_use]
    pub fn raised_after(self) -> TimeDelta {
        TimeDelta::seconds(match self {
            Self::StoreDown | Self::DeadLetter | Self::Paused | Self::SlotLost | Self::OutboxNotPublished => 0,
            Self::Late | Self::LongTransaction => 1,
            Self::Stopped | Self::ErrorRate | Self::WriteDatabaseDown => 5,
            Self::ControlStoreDown | Self::SlotInactive | Self::ConnectorDown | Self::FallsBehind => 10,
            // A group gives partitions of a killed host to others within 13 s.
            Self::NoHost => 20,
            Self::OutboxUnknown => 30,
        })
    }

    /// How long it must not hold.
    #[must_use]
    pub fn resolved_after(self) -> TimeDelta {
        TimeDelta::seconds(match self {
            // That a store answers is no matter of degree.
            Self::ControlStoreDown | Self::StoreDown => 2,
            _ => 5,
        })
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(self, read_model: Option<&str>) -> String {
        let name = read_model.unwrap_or("NAME");
        match self {
            Self::ControlStoreDown => "bring that Postgres back, or mend CONTROL_DATABASE_URL; hosts go on with what they know, and only this is told meanwhile".to_owned(),
            Self::StoreDown => "bring the store back; the read model goes on by itself, nothing is lost".to_owned(),
            Self::Late => format!("see `projector lag` and `projector status`: is the host busy, its store slow? More hosts share the partitions of {name}"),
            Self::Stopped => format!("see `projector status`; a new epoch is accepted by `projector epoch accept`, a broken document repaired by `projector rebuild one {name} KEY`"),
            Self::NoHost => "start `projector run`; its log says what keeps it".to_owned(),
            Self::Paused => format!("see `projector rebuild status`; `projector rebuild resume {name}` lets it go on"),
            Self::DeadLetter => format!("`projector dlq list {name}` and `dlq show ID`; mend what made it fail, then `dlq retry ID`"),
            Self::ErrorRate => format!("`projector status` shows the last error of {name}, the host's log each"),
            Self::FallsBehind => format!("add hosts up to the number of partitions, or let {name}'s store have more"),
            Self::OutboxNotPublished => "the projector is not at fault: see Kafka Connect and its connector (`connectors status`), the slot, Kafka".to_owned(),
            Self::SlotLost => "stop `projector run`, make the slot anew and refill the topics, in the order that docs/operations.md says (The slot is lost)".to_owned(),
            Self::SlotInactive => "start Kafka Connect, or its connector (`connectors apply`); WAL piles up meanwhile".to_owned(),
            Self::ConnectorDown => "see Kafka Connect's log; POST /connectors/NAME/restart?includeTasks=true restarts it".to_owned(),
            Self::WriteDatabaseDown => "bring the write database back, or mend WRITE_DATABASE_URL and its role's rights".to_owned(),
            Self::OutboxUnknown => "does the connector write heartbeats (heartbeat.action.query), and is their topic the one of --heartbeat-topic?".to_owned(),
            Self::LongTransaction => "end it (`select pg_terminate_backend(PID)`) if nobody needs it: it holds back the pruning of the outbox, and vacuum".to_owned(),
        }
    }
}

/// Something that holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// By which rule.
    pub rule: Rule,
    /// Of which read model, where it is one's.
    pub read_model: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// Since when, where that is known.
    pub since: Option<DateTime<Utc>>,
    /// What is wrong.
    pub text: String,
    /// Grows with each new one of its kind, which is told although the alert stands.
    pub mark: Option<DateTime<Utc>>,
}

/// What of a report somebody must know of. `machine` knows what stands: a cause that stands already isn't told again as its effect.
#[must_use]
pub fn conditions(report: &Report, machine: &Machine) -> Vec<Condition> {
    let leg = &report.before_kafka;
    let mut all = before_kafka(leg);
    // Events that come late to Kafka are late for readers, by no fault of who reads them from there.
    let upstream = leg.state >= LegState::Late || machine.stands(Rule::OutboxNotPublished);
    for line in &report.read_models {
        all.extend(of_line(line, upstream));
    }
    all
}

fn condition(rule: Rule, severity: Severity, since: Option<DateTime<Utc>>, text: String) -> Condition {
    Condition { rule, read_model: None, severity, since, text, mark: None }
}

fn of_line(line: &Line, upstream: bool) -> Vec<Condition> {
    let name = &line.read_model;
    let live = line.generation_state == State::Live;
    let of = |rule, severity, since, text: String| Condition {
        read_model: Some(name.clone()),
        ..condition(rule, severity, since, text)
    };
    let mut all = Vec::new();
    match line.state {
        Standing::Waiting if live => {
            if let Some(Waiting { on, since, error }) = &line.waiting {
                let error = error.as_deref().unwrap_or("no answer");
                let since_text = since.format("%H:%M:%S");
                let text = format!("{name} waits for {on} since {since_text} UTC: {error}");
                all.push(of(Rule::StoreDown, Severity::Critical, Some(*since), text));
            }
        }
        Standing::Stopped if live => {
            all.push(of(Rule::Stopped, Severity::Critical, line.since, format!("{name}: {}", line.text)));
        }
        Standing::NoHost if live => {
            all.push(of(Rule::NoHost, Severity::Critical, line.since, format!("{name}: {}", line.text)));
        }
        Standing::Paused if live => {
            all.push(of(Rule::Paused, Severity::Warning, None, format!("{name} is paused: {}", line.text)));
        }
        Standing::Late | Standing::Critical if !upstream => {
            let severity = if line.state == Standing::Critical { Severity::Critical } else { Severity::Warning };
            all.push(of(Rule::Late, severity, line.since, format!("{name} is late: {}", line.text)));
        }
        _ => {}
    }
    if line.parked > 0 && (live || line.generation_state.is_shadow()) {
        let text = format!("{name}: {} dead letters, {} events wait behind them", line.parked, line.parked_behind);
        all.push(Condition { mark: line.parked_newest, ..of(Rule::DeadLetter, Severity::Warning, None, text) });
    }
    if live && line.error_rate >= ERROR_RATE_MAX {
        let text = format!("{name}: {:.2} % of the last minute's events failed", line.error_rate * 100.0);
        all.push(of(Rule::ErrorRate, Severity::Warning, None, text));
    }
    let works = matches!(line.state, Standing::Ok | Standing::Parked | Standing::Late | Standing::Critical);
    let slower = line.handled_per_s < KEEPS_UP * line.published_per_s;
    if live && works && slower && line.behind_events.is_some_and(|behind| behind >= FALLS_BEHIND_FROM) {
        let text = format!(
            "{name} handles {:.0} events/s of {:.0}/s published, {} behind",
            line.handled_per_s,
            line.published_per_s,
            line.behind_events.unwrap_or_default()
        );
        all.push(of(Rule::FallsBehind, Severity::Warning, None, text));
    }
    all
}

fn before_kafka(leg: &Leg) -> Vec<Condition> {
    let mut all = Vec::new();
    let waits = leg.since.is_some();
    match leg.state {
        LegState::Late | LegState::Critical if waits => {
            let severity = if leg.state == LegState::Critical { Severity::Critical } else { Severity::Warning };
            let text = format!("outbox not published: {}", leg.text);
            all.push(condition(Rule::OutboxNotPublished, severity, leg.since, text));
        }
        LegState::Unreachable => {
            all.push(condition(Rule::WriteDatabaseDown, Severity::Critical, None, leg.text.clone()));
        }
        LegState::Unknown => all.push(condition(Rule::OutboxUnknown, Severity::Warning, None, leg.text.clone())),
        _ => {}
    }
    if let Some(slot) = &leg.slot {
        if !slot.exists || slot.wal_status.as_deref() == Some("lost") {
            let text = format!("replication slot {} is gone, or lost WAL that it needed", slot.name);
            all.push(condition(Rule::SlotLost, Severity::Critical, None, text));
        } else if !slot.active {
            let kept = slot.retained_bytes.unwrap_or_default() / (1 << 20);
            let text = format!("nobody reads replication slot {}; {kept} MiB of WAL are kept for it", slot.name);
            all.push(condition(Rule::SlotInactive, Severity::Warning, None, text));
        }
    }
    if let Some(trouble) = leg.connect.as_ref().and_then(|connect| connect.trouble()) {
        all.push(condition(Rule::ConnectorDown, Severity::Warning, None, trouble));
    }
    if let Some(writer) = leg.writer.as_ref().filter(|writer| writer.seconds > WRITER_MAX_S) {
        let pid = writer.pid.map_or_else(|| "no process".to_owned(), |pid| format!("pid {pid}"));
        let text =
            format!("a transaction of {} ({pid}) has been open for {}", writer.application_name, age(writer.seconds));
        all.push(condition(Rule::LongTransaction, Severity::Warning, Some(writer.since), text));
    }
    all
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
