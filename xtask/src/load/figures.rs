//! A latency distribution in a few figures.

use std::{
    fmt::{self, Display, Formatter},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer ones are recorded as this; a request times out long before.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// A latency distribution, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Median.
    pub(crate) p50: f64,
    /// 90th percentile.
    pub(crate) p90: f64,
    /// 99th percentile.
    pub(crate) p99: f64,
    /// 99.9th percentile.
    pub(crate) p999: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Figures {
    /// The figures of a histogram in microseconds.
    pub(crate) fn of(histogram_us: &Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1_000.0;
        let at = |quantile: f64| ms(histogram_us.value_at_quantile(quantile));
        Self { p50: at(0.50), p90: at(0.90), p99: at(0.99), p999: at(0.999), max: ms(histogram_us.max()) }
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { p50, p90, p99, p999, max } = self;
        write!(f, "p50 {p50:.1} · p90 {p90:.1} · p99 {p99:.1} · p99.9 {p999:.1} · max {max:.1} ms")
    }
}

/// Of latencies, to three digits.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    #[expect(clippy::expect_used, reason = "the bounds are constants, and valid")]
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("valid bounds"))
    }
}

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        // The bounds are the same, so nothing can be out of range.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn figures(&self) -> Figures {
        Figures::of(&self.0)
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
