//! What came of the load: counts by outcome, latencies by endpoint, the read models' lag, one order to try the queries with.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};

use serde::Serialize;

use super::figures::Figures;
use crate::lag;

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

/// Of all commands, or of all queries.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Totals {
    /// Those that left for the service.
    pub(crate) sent: u64,
    /// Accepted ones.
    pub(crate) ok: u64,
    /// From the slot in the schedule to the answer: what a client of a busy shop feels.
    pub(crate) latency_ms: Figures,
    /// From sending to the answer: what the service took.
    pub(crate) service_ms: Figures,
}

/// Of one command or query.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Endpoint {
    /// `command` or `query`.
    pub(crate) side: &'static str,
    /// What it does.
    pub(crate) name: String,
    /// Those that left for the service.
    pub(crate) sent: u64,
    /// Accepted ones.
    pub(crate) ok: u64,
    /// Refused ones (4xx).
    pub(crate) refused: u64,
    /// Failed ones: 5xx, no answer, a wrong one.
    pub(crate) errors: u64,
    /// As in [`Totals`].
    pub(crate) latency_ms: Figures,
    /// As in [`Totals`].
    pub(crate) service_ms: Figures,
}

/// The load's result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Requests that left for the services.
    pub(crate) sent: u64,
    /// Accepted ones.
    pub(crate) ok: u64,
    /// Of all requests, as in [`Totals`].
    pub(crate) latency_ms: Option<Figures>,
    /// Of all requests, as in [`Totals`].
    pub(crate) service_ms: Option<Figures>,
    /// `None` without any.
    pub(crate) commands: Option<Totals>,
    /// `None` without any.
    pub(crate) queries: Option<Totals>,
    /// What command-api says that appending the events and committing them took.
    pub(crate) append_ms: Option<Figures>,
    /// One by one.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Refused ones (4xx), by problem type.
    pub(crate) refused: BTreeMap<String, u64>,
    /// An example of each problem type's detail.
    pub(crate) refused_examples: BTreeMap<String, String>,
    /// Failed ones (5xx, no answer, a wrong one), by reason.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Not sent, since an earlier command on the order didn't succeed.
    pub(crate) skipped: u64,
    /// Requests a second that were asked for.
    pub(crate) rate_asked: f64,
    /// Requests a second that were answered.
    pub(crate) rate_reached: f64,
    /// Queries for each command.
    pub(crate) reads_per_write: u32,
    /// From the first slot to the last answer.
    pub(crate) elapsed_s: f64,
    /// What the projector made of it; empty where it wasn't asked.
    pub(crate) lag: Vec<lag::Progress>,
    /// An order of the last ones.
    pub(crate) sample: Option<Sample>,
}

impl Report {
    /// Requests that failed (5xx, no answer, a wrong one).
    pub(crate) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Requests that were refused (4xx).
    pub(crate) fn refused_count(&self) -> u64 {
        self.refused.values().sum()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let skipped = match self.skipped {
            0 => String::new(),
            skipped => format!(" · {skipped} not sent (order failed before)"),
        };
        writeln!(
            f,
            "{} requests in {:.1} s ({:.0} a second, {:.0} asked; {} queries a command) · {} ok · {} refused · {} errors{skipped}",
            self.sent,
            self.elapsed_s,
            self.rate_reached,
            self.rate_asked,
            self.reads_per_write,
            self.ok,
            self.refused_count(),
            self.error_count(),
        )?;
        for (what, totals) in [("commands", &self.commands), ("queries", &self.queries)] {
            let Some(Totals { sent, latency_ms, service_ms, .. }) = totals else { continue };
            writeln!(f, "  {sent} {what}, from the schedule  {latency_ms}")?;
            writeln!(
                f,
                "  {:width$} in the service     {service_ms}",
                "",
                width = sent.to_string().len() + what.len() + 1
            )?;
        }
        if let Some(append_ms) = &self.append_ms {
            writeln!(f, "  events appended and committed  {append_ms}")?;
        }
        writeln!(
            f,
            "  {:<26} {:>8} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8}  (ms, from the schedule)",
            "", "ok", "refused", "errors", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for Endpoint { side, name, ok, refused, errors, latency_ms: at, .. } in &self.endpoints {
            let name = if *side == "query" { format!("? {name}") } else { format!("! {name}") };
            writeln!(
                f,
                "  {name:<26} {ok:>8} {refused:>7} {errors:>7} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1}",
                at.p50, at.p90, at.p99, at.p999, at.max
            )?;
        }
        if !self.lag.is_empty() {
            writeln!(f, "  Read models (lag: commit → visible)")?;
            lag::table(f, &self.lag)?;
        }
        for (problem, count) in &self.refused {
            let example = self.refused_examples.get(problem).map_or("", String::as_str);
            writeln!(f, "  refused {count} × {problem}: {example}")?;
        }
        for (reason, count) in &self.errors {
            writeln!(f, "  error {count} × {reason}")?;
        }
        Ok(())
    }
}
