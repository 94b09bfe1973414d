//! What a generation's owner measures as it works. Names and labels are `ops`' to give.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

/// Counts and distributions of one generation since it was started here.
#[derive(Clone, Debug)]
pub struct Measures {
    /// Events of each batch.
    pub batch_events: Histogram,
    /// What folding a batch took, without its store, in seconds.
    pub fold_seconds: Histogram,
    /// What the store took for a batch's loads, in seconds.
    pub load_seconds: Histogram,
    /// What the store took for a batch's writes, in seconds.
    pub write_seconds: Histogram,
    /// From the event until readers saw it, in seconds.
    pub visible_seconds: Histogram,
    /// Writes that the store refused because somebody else was faster; folded again.
    pub conflicts: Counter,
    /// Calls that failed since something was away, and were made again.
    pub retries: Counter,
    /// Events that failed, and were tried again or parked.
    pub failures: Counter,
    /// Events that failed and were parked.
    pub parked: Counter,
    /// Documents that were in the host's cache.
    pub cache_hits: Counter,
    /// Documents that had to be loaded.
    pub cache_misses: Counter,
}

impl Default for Measures {
    fn default() -> Self {
        let seconds = || Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]);
        Self {
            batch_events: Histogram::new([1.0, 5.0, 20.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 4_000.0]),
            fold_seconds: seconds(),
            load_seconds: seconds(),
            write_seconds: seconds(),
            visible_seconds: Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0]),
            conflicts: Counter::default(),
            retries: Counter::default(),
            failures: Counter::default(),
            parked: Counter::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
        }
    }
}
