//! Commit → visible: from the event's time (set just before its transaction commits) until readers can see its effect.

use chrono::{DateTime, Utc};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

/// An hour in µs; longer lags count as this.
const LONGEST_US: u64 = 3_600_000_000;

/// A histogram of lags in µs.
#[derive(Debug)]
pub(super) struct LagHistogram(Option<Histogram<u64>>);

impl Default for LagHistogram {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, 2).ok())
    }
}

impl LagHistogram {
    /// Records events that have become visible at `now`.
    pub(super) fn record(&mut self, happened: &[DateTime<Utc>], now: DateTime<Utc>) {
        if let Some(histogram) = &mut self.0 {
            for at in happened {
                let lag = (now - *at).num_microseconds().and_then(|us| u64::try_from(us).ok()).unwrap_or(0);
                histogram.saturating_record(lag.clamp(1, LONGEST_US));
            }
        }
    }

    /// V2 with deflate.
    pub(super) fn serialize(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(histogram) = &self.0
            && let Err(error) = V2DeflateSerializer::new().serialize(histogram, &mut bytes)
        {
            tracing::warn!(%error, "lag histogram not written");
        }
        bytes
    }
}
