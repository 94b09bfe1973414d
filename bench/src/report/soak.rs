//! Memory by the minute.

use super::{grouped, machine};
use crate::soak::Soak;
use anyhow::Result;
use std::collections::BTreeSet;
use std::fmt::Write as _;

const MINUTE_S: f64 = 60.0;

pub(super) fn write(text: &mut String, all: &Soak) -> Result<()> {
    let (report, samples) = (&all.seen.report, &all.seen.samples);
    writeln!(text, "\n## Soak\n")?;
    machine(text, &all.machine)?;
    let commands = report.rate_asked / f64::from(report.reads_per_write + 1);
    writeln!(
        text,
        "{commands:.0} commands and {:.0} queries a second, {} requests in all; all reference projections on one host. The most that was resident in each minute, in MB. \
         Afterwards every read model was recomputed from the write database, and none differed.\n",
        report.rate_asked - commands,
        grouped(report.ok as f64),
    )?;
    let minutes = samples.iter().map(|sample| sample.at_s).fold(0.0, f64::max) / MINUTE_S;
    let minutes: Vec<f64> = (0..).map(f64::from).take_while(|minute| *minute < minutes).collect();
    let heads: Vec<_> = minutes.iter().map(|minute| format!("{:.0}", minute + 1.0)).collect();
    writeln!(text, "| minute | {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len() + 1))?;
    for name in samples.iter().map(|sample| sample.name.as_str()).collect::<BTreeSet<_>>() {
        let most = minutes.iter().map(|minute| {
            let of = samples.iter().filter(|sample| sample.name == name && (sample.at_s / MINUTE_S).floor() == *minute);
            of.map(|sample| sample.memory_mb).max().unwrap_or_default().to_string()
        });
        writeln!(text, "| {name} | {} |", most.collect::<Vec<_>>().join(" | "))?;
    }
    Ok(())
}
