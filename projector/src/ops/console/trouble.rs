//! What is wrong, in words, the worst first: of what, since when, why, and what to do.

use super::super::lag::{LegState, Line, Report, Standing};
use super::words;
use crate::control::{Severity, State};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use std::cmp::Reverse;

/// Something that is wrong.
#[derive(Debug, PartialEq)]
pub(super) struct Trouble {
    pub(super) severity: Severity,
    /// The read models that it is wrong with; none where it is about none alone.
    pub(super) read_models: Vec<String>,
    /// Of a read model: how it is.
    state: Option<Standing>,
    pub(super) what: String,
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) why: String,
    pub(super) remedy: String,
}

/// All that is wrong now.
pub(super) fn all(report: &Report) -> Vec<Trouble> {
    let mut troubles: Vec<Trouble> = Vec::new();
    for trouble in report.read_models.iter().filter_map(of) {
        // What is the same is said once.
        let same = |known: &&mut Trouble| {
            (known.severity, &known.what, &known.why) == (trouble.severity, &trouble.what, &trouble.why)
        };
        match troubles.iter_mut().find(same) {
            None => troubles.push(trouble),
            Some(known) => {
                known.since = known.since.into_iter().chain(trouble.since).min();
                known.read_models.extend(trouble.read_models);
            }
        }
    }
    let leg = &report.before_kafka;
    if leg.is_late() || leg.state == LegState::Unreachable {
        let remedy = "see Connectors: restart the connector if it failed; if its slot is lost, see docs/operations.md. Read models are \
                      not slow: nothing reaches them";
        troubles.push(Trouble {
            severity: if leg.state == LegState::Critical { Severity::Critical } else { Severity::Warning },
            read_models: Vec::new(),
            state: None,
            what: if leg.is_late() { "outbox not published" } else { "the write database can't be asked" }.to_owned(),
            since: leg.since,
            why: leg.text.clone(),
            remedy: remedy.to_owned(),
        });
    }
    // What only an alert knows.
    for alert in report.alerts.iter().filter(|alert| alert.resolved_at.is_none()) {
        let known = troubles.iter().any(|trouble| match &alert.read_model {
            Some(name) => trouble.read_models.contains(name),
            None => trouble.read_models.is_empty(),
        });
        if !known {
            troubles.push(Trouble {
                severity: alert.severity,
                read_models: alert.read_model.iter().cloned().collect(),
                state: None,
                what: alert.name.clone(),
                since: Some(alert.since),
                why: alert.text.clone(),
                remedy: alert.remedy.clone(),
            });
        }
    }
    troubles.sort_by_key(|trouble| (Reverse(trouble.severity), Reverse(trouble.state), trouble.since));
    troubles
}

fn of(line: &Line) -> Option<Trouble> {
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
    Some(Trouble {
        severity,
        read_models: vec![line.read_model.clone()],
        state: Some(line.state),
        what: match line.generation_state {
            State::Live => line.state.name().to_owned(),
            state => format!("generation {} ({}) {}", line.generation, state.name(), line.state.name()),
        },
        since: line.since,
        why: line.text.clone(),
        remedy: remedy(line.state).to_owned(),
    })
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds within years")]
fn milliseconds(ms: u64) -> f64 {
    ms as f64
}

/// What to do.
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
                            @for (n, name) in trouble.read_models.iter().enumerate() {
                                @if n > 0 { ", " }
                                a id={ "trouble-" (name) "-" (trouble.what) } href={ "/read-models/" (words::in_path(name)) } { (name) }
                            }
                            @if !trouble.read_models.is_empty() { ": " }
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
