//! How late everything is, and why: the one report that the command line, the alerts, the metrics and the console show.
//!
//! A change is on its way in two legs. **Before Kafka** ([`Leg`]): the outbox's row waits for the connector. Rows don't say
//! whether they are published, but **heartbeats** do: rows that are written to the outbox every second, and read back from
//! Kafka by the host that holds the monitor's lease. Debezium sends rows in the order of their commits, so what was written
//! before the newest heartbeat that came back is published, and what was written after it may not be.
//!
//! **Behind Kafka** ([`Line`]): each generation's hosts say every second how many messages wait, how old the oldest event is
//! that readers don't see yet, and what they wait for. A read model with nothing to do looks like one that gets nothing any
//! more; the heartbeats tell these apart: while they come back, quiet means healthy, and otherwise it is not known.

mod leg;
mod line;
mod source;

pub use leg::{Connect, Heard, Leg, Outbox, Slot, Standing as LegState, Writer};
pub use line::{Line, Placed, Standing};
pub use source::{BeforeKafka, BeforeKafkaArgs};

use crate::control::{Alert, Control, ControlError};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use std::collections::BTreeSet;

/// How long after a heartbeat was written quiet still means healthy. The connector writes one each second.
const HEARTBEAT_MAX: TimeDelta = TimeDelta::seconds(30);

/// How late everything is at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// When this was so, by the control store's clock.
    pub at: DateTime<Utc>,
    /// Each generation that is fed or could be, by name and number.
    pub read_models: Vec<Line>,
    /// From the commit to Kafka.
    pub before_kafka: Leg,
    /// What is being alerted on, and what was until lately.
    pub alerts: Vec<Alert>,
}

impl Report {
    /// Whether somebody has to look: a live read model doesn't keep its promises, or events don't reach Kafka.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.read_models.iter().any(Line::is_late) || self.before_kafka.is_late()
    }
}

/// Reads how late everything is. What can't be asked about the leg before Kafka is said in the report.
///
/// # Errors
/// The control store doesn't answer.
pub async fn report(control: &Control, before: &BeforeKafka) -> Result<Report, ControlError> {
    let at = control.now().await?;
    let members = control.members().await?;
    let topics: BTreeSet<&str> = members.iter().flat_map(|m| m.generation.topics.keys()).map(String::as_str).collect();
    let (statuses, parked) = (control.host_status().await?, control.parked_counts().await?);
    let (heartbeat, monitored) = (control.heartbeat().await?, control.is_monitored().await?);
    let before_kafka = before.look(heartbeat.as_ref(), monitored, &topics).await;
    let hears = heartbeat.as_ref().map(|beat| at - beat.occurred_at < HEARTBEAT_MAX);
    let line = |member| {
        let id = |member: &crate::control::Member| member.generation.generation_id;
        let reports: Vec<_> = statuses.iter().filter(|s| s.generation_id == id(member)).collect();
        Line::of(member, &reports, parked.get(&id(member)).copied().unwrap_or_default(), hears, at)
    };
    let read_models = members.iter().filter(|member| line::is_shown(member)).map(line).collect();
    Ok(Report { at, read_models, before_kafka, alerts: control.alerts().await? })
}

/// A time that somebody waits, for people: `0.4 s`, `12 s`, `3 min`, `5 h`, `2 d`.
#[must_use]
pub fn age(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// Seconds from `then` to `now`; none below zero, as clocks differ.
pub(crate) fn seconds(then: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
    (now - then).to_std().unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::age;

    #[test]
    fn times_are_short() {
        let all = [0.04, 1.0, 9.97, 119.0, 150.0, 7_300.0, 200_000.0].map(age);
        assert_eq!(all, ["0.0 s", "1.0 s", "10 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
