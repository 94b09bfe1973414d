//! When a condition becomes an alert, and when that is over. No clock and no I/O: whoever looks passes what holds, and the time.
//!
//! A condition must hold for its rule's time before it is an alert, and must not hold for another time before that is resolved:
//! what flickers is told once.

use super::rules::{Condition, Rule};
use crate::control::Alert;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An alert stands that didn't.
    Raised(Alert),
    /// One that stood already became worse, or there is one more of it.
    Again(Alert),
    /// It is over.
    Resolved(Alert),
}

impl Notice {
    /// The alert that it is about.
    #[must_use]
    pub fn alert(&self) -> &Alert {
        let (Self::Raised(alert) | Self::Again(alert) | Self::Resolved(alert)) = self;
        alert
    }
}

/// A condition that held lately.
#[derive(Clone, Debug)]
struct Tracked {
    alert: Alert,
    first: DateTime<Utc>,
    last: DateTime<Utc>,
    mark: Option<DateTime<Utc>>,
    raised: bool,
}

type Key = (Rule, Option<String>);

/// What holds, and what of it was told.
#[derive(Clone, Debug, Default)]
pub struct Machine(BTreeMap<Key, Tracked>);

impl Machine {
    /// Goes on from the alerts that another one left standing at `now`.
    #[must_use]
    pub fn resume(standing: Vec<Alert>, now: DateTime<Utc>) -> Self {
        let tracked = standing.into_iter().filter(|alert| alert.resolved_at.is_none()).filter_map(|alert| {
            let key = (Rule::of(&alert.name)?, alert.read_model.clone());
            Some((key, Tracked { first: alert.since, last: now, mark: None, raised: true, alert }))
        });
        Self(tracked.collect())
    }

    /// Whether an alert of this rule stands, about any read model.
    #[must_use]
    pub fn stands(&self, rule: Rule) -> bool {
        self.0.iter().any(|((of, _), tracked)| *of == rule && tracked.raised)
    }

    /// The alerts that stand.
    pub fn standing(&self) -> impl Iterator<Item = &Alert> {
        self.0.values().filter(|tracked| tracked.raised).map(|tracked| &tracked.alert)
    }

    /// Takes what holds at `now`; gives what is to be told.
    pub fn step(&mut self, holds: Vec<Condition>, now: DateTime<Utc>) -> Vec<Notice> {
        let mut notices = Vec::new();
        for condition in holds {
            let key = (condition.rule, condition.read_model.clone());
            let tracked = self.0.entry(key).or_insert_with(|| Tracked {
                alert: condition.alert(now),
                first: now,
                last: now,
                mark: condition.mark,
                raised: false,
            });
            let worse = condition.severity > tracked.alert.severity;
            // A host that took over doesn't know what the former one had told of.
            let more = condition.mark > tracked.mark && tracked.mark.is_some();
            let since = tracked.alert.since;
            tracked.alert = condition.alert(now);
            tracked.alert.since = since.min(tracked.alert.since);
            (tracked.last, tracked.mark) = (now, condition.mark.or(tracked.mark));
            if !tracked.raised && now - tracked.first >= condition.rule.raised_after() {
                tracked.raised = true;
                notices.push(Notice::Raised(tracked.alert.clone()));
            } else if tracked.raised && (worse || more) {
                notices.push(Notice::Again(tracked.alert.clone()));
            }
        }
        self.0.retain(|(rule, _), tracked| {
            if tracked.last == now {
                return true;
            }
            if !tracked.raised {
                return false;
            }
            if now - tracked.last < rule.resolved_after() {
                return true;
            }
            notices.push(Notice::Resolved(Alert { resolved_at: Some(now), ..tracked.alert.clone() }));
            false
        });
        notices
    }
}

impl Condition {
    fn alert(&self, now: DateTime<Utc>) -> Alert {
        Alert {
            name: self.rule.name().to_owned(),
            read_model: self.read_model.clone(),
            severity: self.severity,
            since: self.since.unwrap_or(now),
            text: self.text.clone(),
            remedy: self.rule.remedy(self.read_model.as_deref()),
            resolved_at: None,
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
