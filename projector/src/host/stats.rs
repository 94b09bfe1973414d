//! What a generation has done since it was started on this host.

use super::behind;
use super::lag::LagHistogram;
use crate::apply::Partition;
use crate::control::{Generation, HostStatus};
use crate::source::KafkaSource;
use chrono::Utc;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use uuid::Uuid;

/// What a generation has done since it was started here.
#[derive(Debug, Default)]
pub struct Stats {
    inner: Mutex<Inner>,
    /// Set with the first assignment: from then on events flow.
    pub(super) assigned: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) applied: u64,
    pub(super) duplicates: u64,
    pub(super) errors: u64,
    pub(super) last_error: Option<String>,
    pub(super) lag: LagHistogram,
    pub(super) next: HashMap<Partition, i64>,
}

impl Stats {
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
            updated_at: Utc::now(),
        })
    }

    /// Messages not handled yet.
    pub(super) fn behind(&self, source: &KafkaSource) -> i64 {
        let ends = source.end_offsets();
        self.with(|s| behind(&ends, &s.next))
    }

    /// Whether partitions have ever been assigned to this host.
    #[must_use]
    pub fn is_assigned(&self) -> bool {
        self.assigned.load(Ordering::Relaxed)
    }

    /// Applied, duplicates, errors.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        self.with(|s| (s.applied, s.duplicates, s.errors))
    }
}
