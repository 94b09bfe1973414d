//! How far behind a read model is, from what its hosts report each second.

use crate::control::HostStatus;
use chrono::{DateTime, TimeDelta, Utc};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use std::collections::HashMap;
use uuid::Uuid;

/// A host that reported nothing for longer says nothing of now.
const FRESH: TimeDelta = TimeDelta::seconds(10);

/// Follows one generation's reports.
#[derive(Default)]
pub struct LagMeter {
    histograms: HashMap<Uuid, Histogram<u64>>,
    /// When something was applied, or nothing was left to apply.
    moved_at: Option<DateTime<Utc>>,
}

impl LagMeter {
    /// The lag in ms after these reports of the generation's hosts: the 99th percentile of what became visible since the
    /// last look; when nothing did, 0 if no message waits, else the time since anything moved. `None` when no host has
    /// reported lately: the lag isn't known.
    #[must_use]
    pub fn observe(&mut self, reports: &[&HostStatus], now: DateTime<Utc>) -> Option<u64> {
        let fresh: Vec<_> = reports.iter().filter(|r| now - r.updated_at < FRESH).collect();
        if fresh.is_empty() {
            return None;
        }
        let behind: i64 = fresh.iter().map(|r| r.behind).sum();
        let lags_us: Vec<_> = fresh.iter().filter_map(|r| self.since_last(r)).collect();
        if behind == 0 || !lags_us.is_empty() {
            self.moved_at = Some(now);
        }
        let idle_ms = || (now - *self.moved_at.get_or_insert(now)).num_milliseconds().unsigned_abs();
        Some(lags_us.into_iter().max().map_or_else(idle_ms, |us| us / 1_000))
    }

    /// The 99th percentile in µs of what a host applied since its last report; none if it applied nothing.
    fn since_last(&mut self, report: &HostStatus) -> Option<u64> {
        let all: Histogram<u64> = Deserializer::new().deserialize(&mut report.lag_histogram.as_slice()).ok()?;
        let mut new = all.clone();
        if let Some(before) = self.histograms.insert(report.host, all) {
            new.subtract(&before).ok()?;
        }
        (!new.is_empty()).then(|| new.value_at_quantile(0.99))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::Present;
    use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

    fn report(lags_us: &[u64], behind: i64, updated_at: DateTime<Utc>) -> HostStatus {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        lags_us.iter().for_each(|us| histogram.record(*us).unwrap());
        let mut lag_histogram = Vec::new();
        V2DeflateSerializer::new().serialize(&histogram, &mut lag_histogram).unwrap();
        HostStatus {
            host: Uuid::nil(),
            generation_id: 1,
            events_applied: 0,
            duplicates: 0,
            errors: 0,
            behind,
            last_error: None,
            lag_histogram,
            present: Present::default(),
            updated_at,
        }
    }

    #[test]
    fn lag_is_of_now_not_of_all_time() {
        let (mut meter, now) = (LagMeter::default(), Utc::now());
        let later = |seconds| now + TimeDelta::seconds(seconds);
        let lag = meter.observe(&[&report(&[900_000], 0, now)], now).unwrap();
        assert!((900..=901).contains(&lag), "{lag}");
        assert_eq!(meter.observe(&[&report(&[900_000], 0, now)], now), Some(0), "nothing waits, nothing came");
        let lag = meter.observe(&[&report(&[900_000, 20_000], 3, later(1))], later(1)).unwrap();
        assert!((20..=21).contains(&lag), "{lag}: the slow one was before");
        assert_eq!(meter.observe(&[&report(&[900_000, 20_000], 3, later(4))], later(4)), Some(3_000), "nothing moves");
        assert_eq!(meter.observe(&[&report(&[900_000, 20_000], 3, later(4))], later(60)), None, "the host is silent");
    }
}
