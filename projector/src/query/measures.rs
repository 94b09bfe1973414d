//! What a query service measures as it answers. Names and labels are `ops`' to give.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// What became of a query that asked for freshness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Waited {
    /// It was there, or came in time.
    Met,
    /// It didn't come in time.
    Behind,
    /// A dead letter keeps it.
    Parked,
    /// The token is of another epoch.
    UnknownEpoch,
    /// Another generation went live meanwhile: it began again.
    Superseded,
}

impl Waited {
    fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Behind => "behind",
            Self::Parked => "parked",
            Self::UnknownEpoch => "unknown_epoch",
            Self::Superseded => "superseded",
        }
    }
}

/// Counts and distributions since the service was started. Their labels are what is declared, so they are few.
#[derive(Debug, Default)]
pub struct Measures {
    by: Mutex<By>,
    /// Kept answers that were given.
    pub cache_hits: Counter,
    /// Kept answers that weren't there.
    pub cache_misses: Counter,
    /// Requests turned away since there were too many.
    pub overloaded: Counter,
    /// Requests given up since they took too long.
    pub timed_out: Counter,
}

#[derive(Debug, Default)]
struct By {
    requests: BTreeMap<(String, u16), Histogram>,
    waits: BTreeMap<(String, Waited), u64>,
    wait_seconds: BTreeMap<String, Histogram>,
}

impl Measures {
    fn by(&self) -> MutexGuard<'_, By> {
        self.by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn answered(&self, endpoint: &str, status: u16, took: Duration) {
        let mut by = self.by();
        let histogram = by.requests.entry((endpoint.to_owned(), status)).or_insert_with(|| Histogram::new(SECONDS));
        histogram.observe(took.as_secs_f64());
    }

    pub(crate) fn waited(&self, read_model: &str, outcome: Waited, took: Duration) {
        let mut by = self.by();
        *by.waits.entry((read_model.to_owned(), outcome)).or_default() += 1;
        let histogram = by.wait_seconds.entry(read_model.to_owned()).or_insert_with(|| Histogram::new(SECONDS));
        histogram.observe(took.as_secs_f64());
    }

    /// Each declared path and status with how long answers took, in seconds.
    pub fn requests(&self, mut each: impl FnMut(&str, u16, &Histogram)) {
        for ((endpoint, status), histogram) in &self.by().requests {
            each(endpoint, *status, histogram);
        }
    }

    /// Each read model and outcome of a wait, with their number.
    pub fn waits(&self, mut each: impl FnMut(&str, &'static str, u64)) {
        for ((read_model, outcome), count) in &self.by().waits {
            each(read_model, outcome.name(), *count);
        }
    }

    /// Each read model with how long it was waited for, in seconds.
    pub fn wait_seconds(&self, mut each: impl FnMut(&str, &Histogram)) {
        for (read_model, histogram) in &self.by().wait_seconds {
            each(read_model, histogram);
        }
    }
}
