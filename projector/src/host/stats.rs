//! What a generation has done since it was started on this host.

use super::behind;
use super::lag::LagHistogram;
use super::measures::Measures;
use super::present::{Counted, Doing, Promise};
use crate::apply::Partition;
use crate::control::{Generation, HostStatus, Waiting};
use crate::source::KafkaSource;
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a lag is remembered, at least.
const LATELY: Duration = Duration::from_millis(500);

/// What a generation has done since it was started here.
#[derive(Debug)]
pub struct Stats {
    inner: Mutex<Inner>,
    /// Set with the consumer's first assignment: from then on events flow.
    pub(super) assigned: AtomicBool,
    /// When the present consumer began to join its group.
    joining_since: Mutex<Instant>,
    /// What it measures.
    pub measures: Measures,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            assigned: AtomicBool::default(),
            joining_since: Mutex::new(Instant::now()),
            measures: Measures::default(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) applied: u64,
    pub(super) duplicates: u64,
    pub(super) errors: u64,
    pub(super) last_error: Option<String>,
    pub(super) lag: LagHistogram,
    lately: Lately,
    pub(super) next: HashMap<Partition, i64>,
    /// Messages that progress has passed.
    pub(super) handled: u64,
    pub(super) doing: Doing,
    /// As it was reported last.
    reported: Reported,
}

/// What was last reported of rates and lags, for those who look between two reports.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reported {
    /// Messages not handled yet.
    pub behind: i64,
    /// Messages handled a second.
    pub handled_per_s: f64,
    /// Messages published a second.
    pub published_per_s: f64,
    /// The part of messages that failed.
    pub error_rate: f64,
}

/// The longest lag within the last second.
#[derive(Debug)]
struct Lately {
    since: Instant,
    worst: Duration,
    before: Duration,
}

impl Default for Lately {
    fn default() -> Self {
        Self { since: Instant::now(), worst: Duration::ZERO, before: Duration::ZERO }
    }
}

impl Lately {
    fn turn(&mut self) {
        let age = self.since.elapsed();
        if age > LATELY {
            let before = if age < 2 * LATELY { self.worst } else { Duration::ZERO };
            *self = Self { before, ..Self::default() };
        }
    }
}

impl Inner {
    /// Notes events that have become visible at `now`.
    fn visible(&mut self, happened: &[DateTime<Utc>], now: DateTime<Utc>) {
        self.lag.record(happened, now);
        self.lately.turn();
        let lag = happened.iter().min().and_then(|first| (now - *first).to_std().ok());
        self.lately.worst = self.lately.worst.max(lag.unwrap_or_default());
    }
}

impl Stats {
    /// Notes events that readers can see from now on.
    pub(super) fn visible(&self, happened: &[DateTime<Utc>]) {
        let now = Utc::now();
        for at in happened {
            let lag = (now - *at).to_std().unwrap_or_default();
            self.measures.visible_seconds.observe(lag.as_secs_f64());
        }
        self.with(|inner| inner.visible(happened, now));
    }

    /// How long it took lately, at the longest, until an event could be seen.
    pub(super) fn lately(&self) -> Duration {
        self.with(|inner| {
            inner.lately.turn();
            inner.lately.worst.max(inner.lately.before)
        })
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Its row for the control store.
    pub(super) fn status(
        &self,
        host: Uuid,
        generation: &Generation,
        source: &KafkaSource,
        promise: Promise,
    ) -> HostStatus {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (ends, lately, now) = (source.end_offsets(), self.lately(), Utc::now());
        self.with(|s| {
            let failed = self.measures.failures.get();
            let counted = Counted { next: &s.next, ends: &ends, handled: s.handled, failed, lately };
            let present = s.doing.present(&counted, promise, now);
            let behind = behind(&ends, &s.next);
            s.reported = Reported {
                behind,
                handled_per_s: present.handled_per_s,
                published_per_s: present.published_per_s,
                error_rate: present.error_rate,
            };
            HostStatus {
                host,
                generation_id: generation.generation_id,
                events_applied: count(s.applied),
                duplicates: count(s.duplicates),
                errors: count(s.errors),
                behind,
                last_error: s.last_error.clone(),
                lag_histogram: s.lag.serialize(),
                present,
                updated_at: now,
            }
        })
    }

    /// A call to `on`, which may be away; it is over when the guard is dropped.
    pub(super) fn call(self: &Arc<Self>, on: &'static str) -> Call {
        Call { stats: Arc::clone(self), number: self.with(|s| s.doing.begin_call(on)) }
    }

    /// What it waits for now, if anything is away.
    #[must_use]
    pub fn waiting(&self) -> Option<Waiting> {
        self.with(|s| s.doing.waiting(Utc::now()))
    }

    /// The age of the oldest event that readers don't see yet, or the slowest of those that they saw lately if that is more.
    #[must_use]
    pub fn lag(&self) -> Duration {
        let (lately, now) = (self.lately(), Utc::now());
        let unseen = self.with(|s| s.doing.oldest_unseen()).and_then(|at| (now - at).to_std().ok());
        unseen.unwrap_or_default().max(lately)
    }

    /// What was last reported.
    #[must_use]
    pub fn reported(&self) -> Reported {
        self.with(|s| s.reported)
    }

    /// Messages not handled yet.
    pub(super) fn behind(&self, source: &KafkaSource) -> i64 {
        let ends = source.end_offsets();
        self.with(|s| behind(&ends, &s.next))
    }

    /// The consumer is lost, and another one joins the group in its place: nothing is ours until that has partitions.
    pub(super) fn joins_again(&self) {
        self.assigned.store(false, Ordering::Relaxed);
        self.with(|s| s.next.clear());
        *self.joining_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long the consumer has been waiting for its first partitions; none once it has had some.
    #[must_use]
    pub fn joining_for(&self) -> Option<Duration> {
        if self.assigned.load(Ordering::Relaxed) {
            return None;
        }
        Some(self.joining_since.lock().unwrap_or_else(PoisonError::into_inner).elapsed())
    }

    /// The partitions that are this host's now, with the next offset of each.
    #[must_use]
    pub fn positions(&self) -> BTreeMap<Partition, i64> {
        self.with(|s| s.next.iter().map(|(partition, next)| (partition.clone(), *next)).collect())
    }

    /// Applied, duplicates, errors.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        self.with(|s| (s.applied, s.duplicates, s.errors))
    }
}

/// A call that hasn't been answered for good.
pub(super) struct Call {
    stats: Arc<Stats>,
    number: u64,
}

impl Call {
    pub(super) fn failed(&self, error: &str) {
        self.stats.with(|s| s.doing.call_failed(self.number, error));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.stats.with(|s| s.doing.end_call(self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_consumer_has_no_partitions_until_the_next_one_has() {
        let stats = Stats::default();
        assert!(stats.joining_for().is_some());
        stats.assigned.store(true, Ordering::Relaxed);
        stats.with(|s| s.next.insert(Partition { topic: "t".into(), number: 3 }, 7));
        assert_eq!(stats.joining_for(), None);
        assert_eq!(stats.positions().len(), 1);
        stats.joins_again();
        assert!(stats.joining_for().is_some_and(|waited| waited < Duration::from_secs(1)));
        assert!(stats.positions().is_empty());
    }
}
