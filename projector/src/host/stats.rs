//! What a generation has done since it was started on this host.

use super::behind;
use super::lag::LagHistogram;
use crate::apply::Partition;
use crate::control::{Generation, HostStatus, Present};
use crate::source::KafkaSource;
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a lag is remembered, at least.
const LATELY: Duration = Duration::from_secs(1);

/// What a generation has done since it was started here.
#[derive(Debug)]
pub struct Stats {
    inner: Mutex<Inner>,
    /// Set with the consumer's first assignment: from then on events flow.
    pub(super) assigned: AtomicBool,
    /// When the present consumer began to join its group.
    joining_since: Mutex<Instant>,
}

impl Default for Stats {
    fn default() -> Self {
        Self { inner: Mutex::default(), assigned: AtomicBool::default(), joining_since: Mutex::new(Instant::now()) }
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
}

/// The longest lag within the last second or two.
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
    pub(super) fn visible(&mut self, happened: &[DateTime<Utc>], now: DateTime<Utc>) {
        self.lag.record(happened, now);
        self.lately.turn();
        let lag = happened.iter().min().and_then(|first| (now - *first).to_std().ok());
        self.lately.worst = self.lately.worst.max(lag.unwrap_or_default());
    }
}

impl Stats {
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
    pub(super) fn status(&self, host: Uuid, generation: &Generation, source: &KafkaSource) -> HostStatus {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let ends = source.end_offsets();
        self.with(|s| HostStatus {
            host,
            generation_id: generation.generation_id,
            events_applied: count(s.applied),
            duplicates: count(s.duplicates),
            errors: count(s.errors),
            behind: behind(&ends, &s.next),
            last_error: s.last_error.clone(),
            lag_histogram: s.lag.serialize(),
            present: Present::default(),
            updated_at: Utc::now(),
        })
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
