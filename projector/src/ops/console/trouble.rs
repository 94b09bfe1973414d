//! What is wrong, in words, the worst first: of what, since when, why, and what to do.

use super::super::lag::{LegState, Line, Report, Standing};
use super::words;
use crate::control::{Alert, Severity, State};
use chrono::{DateTime, Utc};
use maud::{Markup, html};

/// Something that is wrong.
#[derive(Debug, PartialEq)]
pub(super) struct Trouble {
    pub(super) severity: Severity,
    /// The read model; none where it is about none alone.
    pub(super) read_model: Option<String>,
    pub(super) what: String,
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) why: String,
    pub(super) remedy: String,
}

/// All that is wrong now.
pub(super) fn all(report: &Report) -> Vec<Trouble> {
    let mut troubles: Vec<Trouble> = report.read_models.iter().filter_map(|line| of(line, &report.alerts)).collect();
    let leg = &report.before_kafka;
    if leg.is_late() || leg.state == LegState::Unreachable {
        let remedy = "see Connectors: restart the connector if it failed; if its slot is lost, see docs/operations.md. Read models are \
                      not slow: nothing reaches them";
        troubles.push(Trouble {
            severity: if leg.state == LegState::Critical { Severity::Critical } else { Severity::Warning },
            read_model: None,
            what: if leg.is_late() { "outbox not published" } else { "the write database can't be asked" }.to_owned(),
            since: leg.since,
            why: leg.text.clone(),
            remedy: remedy.to_owned(),
        });
    }
    // What only an alert knows.
    for alert in report.alerts.iter().filter(|alert| alert.resolved_at.is_none()) {
        let known = troubles.iter().any(|trouble| trouble.read_model == alert.read_model);
        if !known {
            troubles.push(Trouble {
                severity: alert.severity,
                read_model: alert.read_model.clone(),
                what: alert.name.clone(),
                since: Some(alert.since),
                why: alert.text.clone(),
                remedy: alert.remedy.clone(),
            });
        }
    }
    troubles.sort_by_key(|trouble| (std::cmp::Reverse(trouble.severity), trouble.since, trouble.read_model.clone()));
    troubles
}

fn of(line: &Line, alerts: &[Alert]) -> Option<Trouble> {
    let severity = match line.state {
        Standing::Ok | Standing::Unknown => return None,
        Standing::Parked | Standing::Late => Severity::Warning,
        Standing::Critical | Standing::NoHost | Standing::Stopped => Severity::Critical,
        Standing::Waiting if line.lag_seconds() * 1_000.0 > milliseconds(line.lag_ms_critical) => Severity::Critical,
        Standing::Waiting => Severity::Warning,
        Standing::Paused => Severity::Warning,
    };
    // What nobody reads isn't urgent.
    let severity = if line.generation_state == State::Live { severity } else { Severity::Warning };
    let own = |alert: &&Alert| alert.resolved_at.is_none() && alert.read_model.as_ref() == Some(&line.read_model);
    let advised = alerts.iter().find(own).map(|alert| alert.remedy.clone()).filter(|remedy| !remedy.is_empty());
    Some(Trouble {
        severity,
        read_model: Some(line.read_model.clone()),
        what: match line.generation_state {
            State::Live => line.state.name().to_owned(),
            state => format!("generation {} ({}) {}", line.generation, state.name(), line.state.name()),
        },
        since: line.since,
        why: line.text.clone(),
        remedy: advised.unwrap_or_else(|| remedy(line.state).to_owned()),
    })
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds within years")]
fn milliseconds(ms: u64) -> f64 {
    ms as f64
}

/// What to do, where no alert says it.
fn remedy(state: Standing) -> &'static str {
    match state {
        Standing::Ok | Standing::Unknown => "",
        Standing::Parked => "see Dead letters: mend what made them fail, then retry; or skip, with a reason",
        Standing::Late | Standing::Critical => {
            "if more is published than handled, add a host or wait for the peak to pass; if not, look at its store"
        }
        Standing::NoHost => "start `projector run`: its partitions have nobody who feeds them",
        Standing::Stopped => "nothing passes this event: do what the reason says; the log of the host has more",
        Standing::Waiting => "bring back what is away; it goes on by itself, nothing is lost",
        Standing::Paused => "see Rebuilds: resume it, or abort it",
    }
}

/// All of them, or that there is none.
pub(super) fn shown(troubles: &[Trouble], now: DateTime<Utc>) -> Markup {
    html! {
        @if troubles.is_empty() {
            p .said { "All read models are in time." }
        } @else {
            ul .troubles aria-label="What is wrong" {
                @for trouble in troubles {
                    li .(trouble.severity.name()) {
                        strong {
                            @if let Some(name) = &trouble.read_model {
                                a id={ "trouble-" (name) "-" (trouble.what) } href={ "/read-models/" (words::in_path(name)) } { (name) }
                                ": "
                            }
                            (trouble.what)
                        }
                        @if let Some(since) = trouble.since {
                            " for " time datetime=(since.to_rfc3339()) title=(words::clock(since)) { (words::since(since, now)) }
                        }
                        p { (trouble.why) }
                        p .todo { b { "What to do: " } (trouble.remedy) }
                    }
                }
            }
        }
    }
}
