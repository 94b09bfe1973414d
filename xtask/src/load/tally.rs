//! What was observed, added up: counts by outcome and latencies, by endpoint.

use std::{collections::BTreeMap, time::Duration};

use super::{
    drive::Schedule,
    figures::Latencies,
    report::{Endpoint, Report, Sample, Totals},
};

/// One request's end.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) side: Side,
    pub(super) endpoint: &'static str,
    pub(super) verdict: Verdict,
    /// From the slot in the schedule to the answer.
    pub(super) from_slot: Duration,
    /// From sending to the answer.
    pub(super) from_send: Duration,
    /// What the service says that appending the events took.
    pub(super) append: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Command,
    Query,
}

#[derive(Debug)]
pub(super) enum Verdict {
    Accepted(Option<Sample>),
    Refused {
        problem: String,
        detail: String,
    },
    /// No answer, or a wrong one.
    Failed(String),
    /// Not sent, as too many were under way: it failed.
    Overrun,
    /// Not sent: an earlier command on the same order didn't succeed.
    Skipped,
}

impl Observation {
    pub(super) fn skipped(endpoint: &'static str) -> Self {
        Self { verdict: Verdict::Skipped, ..Self::overrun(Side::Command, endpoint) }
    }

    pub(super) fn overrun(side: Side, endpoint: &'static str) -> Self {
        let (from_slot, from_send) = (Duration::ZERO, Duration::ZERO);
        Self { side, endpoint, verdict: Verdict::Overrun, from_slot, from_send, append: None }
    }
}

/// Of one endpoint.
#[derive(Debug, Default)]
struct Part {
    sent: u64,
    ok: u64,
    refused: u64,
    errors: u64,
    from_slot: Latencies,
    from_send: Latencies,
}

/// The report in the making.
#[derive(Debug, Default)]
pub(super) struct Tally {
    parts: BTreeMap<(Side, &'static str), Part>,
    refused: BTreeMap<String, u64>,
    refused_examples: BTreeMap<String, String>,
    errors: BTreeMap<String, u64>,
    skipped: u64,
    overrun: u64,
    append: Latencies,
    sample: Option<Sample>,
}

impl Tally {
    pub(super) fn add(&mut self, observation: Observation) {
        let Observation { side, endpoint, verdict, from_slot, from_send, append } = observation;
        let part = self.parts.entry((side, endpoint)).or_default();
        match verdict {
            Verdict::Skipped => {
                self.skipped += 1;
                return;
            }
            Verdict::Overrun => {
                (self.overrun, part.errors) = (self.overrun + 1, part.errors + 1);
                *self.errors.entry("not sent: too many requests were under way".to_owned()).or_default() += 1;
                return;
            }
            Verdict::Accepted(sample) => {
                part.ok += 1;
                keep(&mut self.sample, sample);
            }
            Verdict::Refused { problem, detail } => {
                part.refused += 1;
                *self.refused.entry(problem.clone()).or_default() += 1;
                self.refused_examples.entry(problem).or_insert(detail);
            }
            Verdict::Failed(reason) => {
                part.errors += 1;
                *self.errors.entry(reason).or_default() += 1;
            }
        }
        part.sent += 1;
        part.from_slot.add(from_slot);
        part.from_send.add(from_send);
        append.into_iter().for_each(|append| self.append.add(append));
    }

    pub(super) fn into_report(self, elapsed: Duration, schedule: &Schedule) -> Report {
        let totals = |sides: &[Side]| {
            let (mut sent, mut ok, mut from_slot, mut from_send) = (0, 0, Latencies::default(), Latencies::default());
            for (_, part) in self.parts.iter().filter(|((side, _), _)| sides.contains(side)) {
                (sent, ok) = (sent + part.sent, ok + part.ok);
                from_slot.merge(&part.from_slot);
                from_send.merge(&part.from_send);
            }
            let (latency_ms, service_ms) = (from_slot.figures(), from_send.figures());
            (sent > 0).then_some(Totals { sent, ok, latency_ms, service_ms })
        };
        let all = totals(&[Side::Command, Side::Query]);
        let sent = all.as_ref().map_or(0, |all| all.sent);
        let endpoints = self.parts.iter().filter(|(_, part)| part.sent > 0).map(|((side, name), part)| Endpoint {
            side: if *side == Side::Command { "command" } else { "query" },
            name: (*name).to_owned(),
            sent: part.sent,
            ok: part.ok,
            refused: part.refused,
            errors: part.errors,
            latency_ms: part.from_slot.figures(),
            service_ms: part.from_send.figures(),
        });
        Report {
            sent,
            ok: all.as_ref().map_or(0, |all| all.ok),
            latency_ms: all.as_ref().map(|all| all.latency_ms),
            service_ms: all.as_ref().map(|all| all.service_ms),
            commands: totals(&[Side::Command]),
            queries: totals(&[Side::Query]),
            append_ms: (!self.append.is_empty()).then(|| self.append.figures()),
            endpoints: endpoints.collect(),
            refused: self.refused,
            refused_examples: self.refused_examples,
            errors: self.errors,
            skipped: self.skipped,
            rate_asked: schedule.rate,
            rate_reached: sent as f64 / elapsed.as_secs_f64().max(f64::EPSILON),
            reads_per_write: schedule.reads_per_write,
            elapsed_s: elapsed.as_secs_f64(),
            lag: Vec::new(),
            sample: self.sample,
        }
    }
}

/// The latest, but rather one that stays pending.
fn keep(known: &mut Option<Sample>, sample: Option<Sample>) {
    let found = known.as_ref().is_some_and(|sample| sample.stays_pending);
    if let Some(sample) = sample.filter(|sample| sample.stays_pending || !found) {
        *known = Some(sample);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn after(ms: u64, side: Side, verdict: Verdict) -> Observation {
        let (from_slot, from_send) = (Duration::from_millis(ms), Duration::from_millis(1));
        let append = (side == Side::Command).then_some(Duration::from_millis(2));
        Observation { side, endpoint: "one", verdict, from_slot, from_send, append }
    }

    #[test]
    fn counts_each_request_once_and_measures_those_that_were_sent() {
        let mut tally = Tally::default();
        for ms in 1..=98 {
            tally.add(after(ms, Side::Command, Verdict::Accepted(None)));
        }
        let (problem, detail) = ("price-changed".to_owned(), "it is 2 now".to_owned());
        tally.add(after(99, Side::Command, Verdict::Refused { problem, detail }));
        tally.add(after(500, Side::Command, Verdict::Failed("timed out".to_owned())));
        tally.add(Observation::skipped("pay"));
        tally.add(Observation::overrun(Side::Query, "one"));
        tally.add(after(7, Side::Query, Verdict::Accepted(None)));

        let report = tally.into_report(Duration::from_secs(10), &Schedule { rate: 10.0, reads_per_write: 1 });
        assert_eq!((report.sent, report.ok, report.skipped), (101, 99, 1));
        assert_eq!((report.refused_count(), report.error_count()), (1, 2));
        assert_eq!(report.refused["price-changed"], 1);
        assert!((report.rate_reached - 10.1).abs() < 1e-9);
        let commands = report.commands.unwrap();
        assert_eq!((commands.sent, commands.ok), (100, 98));
        assert!((commands.latency_ms.p50 - 50.0).abs() < 0.2);
        assert!((commands.latency_ms.p99 - 99.0).abs() < 0.2);
        assert!((commands.latency_ms.max - 500.0).abs() < 1.0);
        assert!((report.queries.unwrap().latency_ms.p99 - 7.0).abs() < 0.1);
        assert!((report.append_ms.unwrap().p99 - 2.0).abs() < 0.1);
        assert_eq!(report.endpoints.len(), 2);
    }
}
