//! The one report: docs/benchmarks.json with all figures, docs/benchmarks.md made of it. Each part keeps what it was measured
//! with; measuring one part leaves the others as they are.

mod growth;
mod latency;
mod scale;
mod soak;
mod throughput;

use crate::growth::Growth;
use crate::latency::Latency;
use crate::machine::Machine;
use crate::scale::Scale;
use crate::soak::Soak;
use crate::throughput::Throughput;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const JSON: &str = "docs/benchmarks.json";
const MARKDOWN: &str = "docs/benchmarks.md";

/// All parts that were ever measured.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// By the number of orders.
    #[serde(default)]
    throughput: BTreeMap<usize, Throughput>,
    latency: Option<Latency>,
    scale: Option<Scale>,
    growth: Option<Growth>,
    soak: Option<Soak>,
}

/// What was measured now.
pub(crate) enum Part {
    Throughput(Throughput),
    Latency(Latency),
    Scale(Scale),
    Growth(Growth),
    Soak(Soak),
}

impl Report {
    /// Takes a part into the report, or only prints it.
    pub(crate) fn take(part: Part, dry: bool) -> Result<()> {
        let mut report = if dry { Self::default() } else { Self::read()? };
        match part {
            Part::Throughput(throughput) => _ = report.throughput.insert(throughput.orders, throughput),
            Part::Latency(latency) => report.latency = Some(latency),
            Part::Scale(scale) => report.scale = Some(scale),
            Part::Growth(growth) => report.growth = Some(growth),
            Part::Soak(soak) => report.soak = Some(soak),
        }
        if dry {
            println!("{}", report.markdown()?);
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(JSON, text).with_context(|| format!("writing {JSON}"))?;
        report.write()
    }

    /// The Markdown of what was measured before.
    pub(crate) fn write_anew() -> Result<()> {
        Self::read()?.write()
    }

    fn read() -> Result<Self> {
        let Ok(text) = std::fs::read(JSON) else { return Ok(Self::default()) };
        serde_json::from_slice(&text).with_context(|| format!("{JSON}: delete it, and measure all anew"))
    }

    fn write(&self) -> Result<()> {
        std::fs::write(MARKDOWN, self.markdown()?).with_context(|| format!("writing {MARKDOWN}"))?;
        println!("{MARKDOWN} and {JSON} are written");
        Ok(())
    }

    fn markdown(&self) -> Result<String> {
        let mut text = String::from(INTRODUCTION);
        throughput::write(&mut text, self.throughput.values())?;
        if let Some(latency) = &self.latency {
            latency::write(&mut text, latency)?;
        }
        if let Some(scale) = &self.scale {
            scale::write(&mut text, scale)?;
        }
        if let Some(growth) = &self.growth {
            growth::write(&mut text, growth)?;
        }
        if let Some(soak) = &self.soak {
            soak::write(&mut text, soak)?;
        }
        Ok(text)
    }
}

const INTRODUCTION: &str = "# Benchmarks

Written by `./dev bench`, with all figures in [benchmarks.json](benchmarks.json). It is run by hand on a fresh instance, never in CI; `bench/`
is its code. Every figure stands beside baselines of the same run, since another machine, or another hour on this one, gives
others; every measurement ends with a comparison of all documents in the store with what they must be, which is said of the
generated orders and not of their events (`bench/src/oracle.rs`).
";

/// When, where, with what.
fn machine(text: &mut String, machine: &Machine) -> Result<()> {
    let versions: Vec<_> = machine.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    writeln!(
        text,
        "`{}`, {}, commit {}, release build. {} × {}, {} GB, Linux {}, all processes on it. {}. Load before: {}.{}{}\n",
        machine.command,
        machine.at,
        machine.commit,
        machine.cores,
        machine.processor,
        machine.memory_gb,
        machine.kernel,
        versions.join(", "),
        machine.load_before,
        if machine.note.is_empty() { "" } else { " Beside it: " },
        machine.note,
    )?;
    Ok(())
}

/// A number for people: `12,345`.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 && digit.is_ascii_digit() && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (value, text) in [(0.0, "0"), (999.0, "999"), (1_000.0, "1,000"), (1_234_567.4, "1,234,567")] {
            assert_eq!(grouped(value), text);
        }
    }
}
