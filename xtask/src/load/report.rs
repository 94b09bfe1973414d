//! What came of the load: counts by outcome, latencies, one order to try the queries with.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer ones are recorded as this; the request times out long before.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// One command's end.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) verb: &'static str,
    pub(super) verdict: Verdict,
    /// From the slot in the schedule to the answer.
    pub(super) from_slot: Duration,
    /// From sending to the answer.
    pub(super) from_send: Duration,
}

#[derive(Debug)]
pub(super) enum Verdict {
    Accepted(Option<Sample>),
    Refused {
        problem: String,
        detail: String,
    },
    Failed(String),
    /// Not sent: an earlier command on the same order didn't succeed.
    Skipped,
}

impl Observation {
    pub(super) fn skipped(verb: &'static str) -> Self {
        Self { verb, verdict: Verdict::Skipped, from_slot: Duration::ZERO, from_send: Duration::ZERO }
    }
}

/// An order of this run, for a reader to look up and to cancel.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// The order.
    pub(crate) order_id: String,
    /// Who placed it.
    pub(crate) customer_id: String,
    /// The sequence number that its placing was answered with.
    pub(crate) sequence_number: i64,
    /// The token that its placing was answered with.
    pub(crate) consistency_token: String,
    /// Whether nothing follows its placing, so that it is still pending.
    #[serde(skip)]
    pub(super) stays_pending: bool,
}

/// A latency distribution, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Median.
    pub(crate) p50: f64,
    /// 99th percentile.
    pub(crate) p99: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Figures {
    /// The three figures of a histogram in microseconds.
    pub(crate) fn of(histogram_us: &Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1_000.0;
        Self {
            p50: ms(histogram_us.value_at_quantile(0.50)),
            p99: ms(histogram_us.value_at_quantile(0.99)),
            max: ms(histogram_us.max()),
        }
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.1} · p99 {:.1} · max {:.1} ms", self.p50, self.p99, self.max)
    }
}

/// The load's result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Commands that left for the service.
    pub(crate) sent: u64,
    /// Accepted ones.
    pub(crate) ok: u64,
    /// Refused ones (4xx), by problem type.
    pub(crate) refused: BTreeMap<String, u64>,
    /// An example of each problem type's detail.
    pub(crate) refused_examples: BTreeMap<String, String>,
    /// Failed ones (5xx, no answer), by reason.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Not sent, since an earlier command on the order didn't succeed.
    pub(crate) skipped: u64,
    /// Accepted commands by verb.
    pub(crate) by_verb: BTreeMap<&'static str, u64>,
    /// Commands a second that were asked for.
    pub(crate) rate_asked: f64,
    /// Commands a second that were answered.
    pub(crate) rate_reached: f64,
    /// From the first slot to the last answer.
    pub(crate) elapsed_s: f64,
    /// From the slot in the schedule to the answer: what a client of a busy shop feels.
    pub(crate) latency_ms: Figures,
    /// From sending to the answer: what the service took.
    pub(crate) service_ms: Figures,
    /// An order of the last ones.
    pub(crate) sample: Option<Sample>,
}

impl Report {
    /// Commands that failed (5xx, no answer).
    pub(crate) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Commands that were refused (4xx).
    pub(crate) fn refused_count(&self) -> u64 {
        self.refused.values().sum()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} commands in {:.1} s ({:.0} a second, {:.0} asked) · {} ok · {} refused · {} errors{}",
            self.sent,
            self.elapsed_s,
            self.rate_reached,
            self.rate_asked,
            self.ok,
            self.refused_count(),
            self.error_count(),
            if self.skipped > 0 {
                format!(" · {} not sent (order failed before)", self.skipped)
            } else {
                String::new()
            },
        )?;
        let verbs: Vec<_> = self.by_verb.iter().map(|(verb, n)| format!("{n} {verb}")).collect();
        writeln!(f, "  {}", verbs.join(" · "))?;
        writeln!(f, "  latency from the schedule  {}", self.latency_ms)?;
        write!(f, "  time in the service        {}", self.service_ms)?;
        for (problem, count) in &self.refused {
            let example = self.refused_examples.get(problem).map_or("", String::as_str);
            write!(f, "\n  refused {count} × {problem}: {example}")?;
        }
        for (reason, count) in &self.errors {
            write!(f, "\n  error {count} × {reason}")?;
        }
        Ok(())
    }
}

/// The report in the making.
pub(super) struct Tally {
    ok: u64,
    refused: BTreeMap<String, u64>,
    refused_examples: BTreeMap<String, String>,
    errors: BTreeMap<String, u64>,
    skipped: u64,
    by_verb: BTreeMap<&'static str, u64>,
    from_slot_us: Histogram<u64>,
    from_send_us: Histogram<u64>,
    sample: Option<Sample>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            ok: 0,
            refused: BTreeMap::new(),
            refused_examples: BTreeMap::new(),
            errors: BTreeMap::new(),
            skipped: 0,
            by_verb: BTreeMap::new(),
            from_slot_us: empty_histogram(),
            from_send_us: empty_histogram(),
            sample: None,
        }
    }
}

#[expect(clippy::expect_used, reason = "the bounds are constants, and valid")]
fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("valid bounds")
}

impl Tally {
    pub(super) fn add(&mut self, observation: Observation) {
        match observation.verdict {
            Verdict::Skipped => {
                self.skipped += 1;
                return;
            }
            Verdict::Accepted(sample) => {
                self.ok += 1;
                *self.by_verb.entry(observation.verb).or_default() += 1;
                self.keep(sample);
            }
            Verdict::Refused { problem, detail } => {
                *self.refused.entry(problem.clone()).or_default() += 1;
                self.refused_examples.entry(problem).or_insert(detail);
            }
            Verdict::Failed(reason) => *self.errors.entry(reason).or_default() += 1,
        }
        self.from_slot_us.saturating_record(micros(observation.from_slot));
        self.from_send_us.saturating_record(micros(observation.from_send));
    }

    /// The latest, but rather one that stays pending.
    fn keep(&mut self, sample: Option<Sample>) {
        let found = self.sample.as_ref().is_some_and(|sample| sample.stays_pending);
        if let Some(sample) = sample.filter(|sample| sample.stays_pending || !found) {
            self.sample = Some(sample);
        }
    }

    pub(super) fn into_report(self, elapsed: Duration, rate_asked: f64) -> Report {
        let sent = self.from_slot_us.len();
        Report {
            sent,
            ok: self.ok,
            refused: self.refused,
            refused_examples: self.refused_examples,
            errors: self.errors,
            skipped: self.skipped,
            by_verb: self.by_verb,
            rate_asked,
            rate_reached: sent as f64 / elapsed.as_secs_f64().max(f64::EPSILON),
            elapsed_s: elapsed.as_secs_f64(),
            latency_ms: Figures::of(&self.from_slot_us),
            service_ms: Figures::of(&self.from_send_us),
            sample: self.sample,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn after(ms: u64, verdict: Verdict) -> Observation {
        Observation {
            verb: "place",
            verdict,
            from_slot: Duration::from_millis(ms),
            from_send: Duration::from_millis(1),
        }
    }

    #[test]
    fn counts_each_command_once_and_measures_those_that_were_sent() {
        let mut tally = Tally::default();
        for ms in 1..=98 {
            tally.add(after(ms, Verdict::Accepted(None)));
        }
        let (problem, detail) = ("price-changed".to_owned(), "it is 2 now".to_owned());
        tally.add(after(99, Verdict::Refused { problem, detail }));
        tally.add(after(500, Verdict::Failed("timed out".to_owned())));
        tally.add(Observation::skipped("pay"));

        let report = tally.into_report(Duration::from_secs(10), 10.0);
        assert_eq!((report.sent, report.ok, report.skipped), (100, 98, 1));
        assert_eq!((report.refused_count(), report.error_count()), (1, 1));
        assert_eq!(report.refused["price-changed"], 1);
        assert!((report.rate_reached - 10.0).abs() < 1e-9);
        assert!((report.latency_ms.p50 - 50.0).abs() < 0.2);
        assert!((report.latency_ms.p99 - 99.0).abs() < 0.2);
        assert!((report.latency_ms.max - 500.0).abs() < 1.0);
    }
}
