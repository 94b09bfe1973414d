//! From the commit to what readers see, over the whole way: command-api, Postgres, Debezium, Kafka, a host with all reference
//! projections. `./dev bench latency` drives it as `./dev load` does, and gives the reports on standard input.

use crate::machine::Machine;
use crate::report::{Part, Report};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LatencyArgs {
    /// For the report: what else ran on the machine
    #[arg(long, default_value = "")]
    pub(crate) note: String,
    /// Print the figures, and leave the report as it is
    #[arg(long)]
    pub(crate) dry: bool,
}

/// All that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) machine: Machine,
    pub(crate) loads: Vec<Load>,
}

/// What the load's report says of one rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) ok: u64,
    pub(crate) rate_asked: f64,
    pub(crate) rate_reached: f64,
    /// Commands, from their slots in the schedule to the answer.
    pub(crate) latency_ms: Option<Figures>,
    /// Events appended and committed.
    pub(crate) append_ms: Option<Figures>,
    pub(crate) lag: Vec<Lag>,
    /// Queries for each command.
    #[serde(default)]
    pub(crate) reads_per_write: u32,
    /// Of each command and query.
    #[serde(default)]
    pub(crate) endpoints: Vec<Endpoint>,
    /// Of the events that were followed, the parts of their way.
    #[serde(default)]
    pub(crate) legs: Vec<Leg>,
    #[serde(default)]
    pub(crate) processes: Vec<Process>,
    #[serde(default)]
    pub(crate) elapsed_s: f64,
}

/// What a component or service took meanwhile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) name: String,
    /// Seconds of a core.
    pub(crate) cpu_s: f64,
    pub(crate) memory_mb: u64,
}

/// Of one command or query, from its slot in the schedule to the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// `command` or `query`.
    pub(crate) side: String,
    pub(crate) name: String,
    pub(crate) ok: u64,
    pub(crate) refused: u64,
    pub(crate) errors: u64,
    pub(crate) latency_ms: Figures,
}

/// A part of an event's way, into one kind of store or before any.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Leg {
    pub(crate) leg: String,
    pub(crate) store: Option<String>,
    pub(crate) events: u64,
    #[serde(flatten)]
    pub(crate) took: Figures,
}

/// Of a read model: from the commit until readers see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Lag {
    pub(crate) name: String,
    pub(crate) store: String,
    pub(crate) events: u64,
    pub(crate) errors: u64,
    pub(crate) lag: Option<Figures>,
}

/// Of a distribution, in ms.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// Takes what was measured into the report.
pub(crate) fn run(args: &LatencyArgs) -> Result<()> {
    let machine = Machine::look(&args.note)?;
    let loads = serde_json::from_reader(std::io::stdin()).context("reading the loads' reports")?;
    Report::take(Part::Latency(Latency { machine, loads }), args.dry)
}
