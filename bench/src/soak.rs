//! Memory over time, beside commands and queries. `./dev bench soak` drives it, and gives what it saw on standard input.

use crate::latency::{LatencyArgs, Load};
use crate::machine::Machine;
use crate::report::{Part, Report};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// What was seen, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Soak {
    pub(crate) machine: Machine,
    #[serde(flatten)]
    pub(crate) seen: Seen,
}

/// What was seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) report: Load,
    pub(crate) samples: Vec<Sample>,
}

/// Resident memory of one of our services.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Since the load began.
    pub(crate) at_s: f64,
    pub(crate) name: String,
    pub(crate) memory_mb: u64,
}

/// Takes what was seen into the report.
pub(crate) fn run(args: &LatencyArgs) -> Result<()> {
    let machine = Machine::look(&args.note)?;
    let seen = serde_json::from_reader(std::io::stdin()).context("reading what was seen")?;
    Report::take(Part::Soak(Soak { machine, seen }), args.dry)
}
