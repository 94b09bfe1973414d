//! From the commit to what readers see.

use super::machine;
use crate::latency::{Figures, Latency, Load};
use anyhow::Result;
use std::fmt::Write as _;

pub(super) fn write(text: &mut String, all: &Latency) -> Result<()> {
    writeln!(text, "\n## Latency\n")?;
    machine(text, &all.machine)?;
    writeln!(
        text,
        "Commands alone, on a schedule that doesn't wait for answers, {} s each; all reference projections on one host, every process of the stack on \
         the same machine; our services as `./dev services up` builds them (`opt-level = 1`). Commit → visible, p50 / p99 / max in ms.\n",
        30
    )?;
    let heads: Vec<_> = all.loads.iter().map(|load| format!("{:.0} commands/s", load.rate_asked)).collect();
    writeln!(text, "| read model | store | {} |\n|---|---|{}", heads.join(" | "), "---|".repeat(heads.len()))?;
    let Some(first) = all.loads.first() else { return Ok(()) };
    for model in &first.lag {
        let of = |load: &Load| load.lag.iter().find(|lag| lag.name == model.name).and_then(|lag| lag.lag.clone());
        row(text, all, &model.name, &model.store, of)?;
    }
    row(text, all, "the command itself", "", |load| load.latency_ms.clone())?;
    row(text, all, "events appended and committed", "", |load| load.append_ms.clone())?;
    let reached: Vec<_> = all.loads.iter().map(|load| format!("{:.0}", load.rate_reached)).collect();
    writeln!(text, "| commands/s reached | | {} |", reached.join(" | "))?;
    Ok(())
}

fn row(text: &mut String, all: &Latency, name: &str, store: &str, of: impl Fn(&Load) -> Option<Figures>) -> Result<()> {
    let figures = all.loads.iter().map(|load| match of(load) {
        Some(figures) => format!("{:.0} / {:.0} / {:.0}", figures.p50, figures.p99, figures.max),
        None => "–".to_owned(),
    });
    writeln!(text, "| {name} | {store} | {} |", figures.collect::<Vec<_>>().join(" | "))?;
    Ok(())
}
