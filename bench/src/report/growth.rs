//! What an event costs while more is stored.

use super::{grouped, machine};
use crate::growth::Growth;
use anyhow::Result;
use std::fmt::Write as _;

pub(super) fn write(text: &mut String, all: &Growth) -> Result<()> {
    writeln!(text, "\n## Growth\n")?;
    machine(text, &all.machine)?;
    writeln!(
        text,
        "Orders are placed without end, live, one host, four partitions; one event in nine is about an order that was placed when half as many were there. CPU in µs an event, *÷ first* of host and store together.\n"
    )?;
    let columns = ["store", "events so far", "events/s", "host CPU", "store CPU", "÷ first", "strangers"];
    writeln!(text, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()))?;
    for of in &all.stores {
        let us = |cpu_s: f64, events: usize| cpu_s * 1e6 / events as f64;
        let both = |stage: &crate::growth::Stage| us(stage.host_cpu_s + stage.store_cpu_s, stage.events);
        let first = of.stages.first().map_or(f64::NAN, both);
        for stage in &of.stages {
            writeln!(
                text,
                "| {} | {} | {} | {:.1} | {:.1} | {:.2} | {:.1} |",
                of.store.projection(),
                grouped(stage.handled as f64),
                grouped(stage.events as f64 / stage.wall_s),
                us(stage.host_cpu_s, stage.events),
                us(stage.store_cpu_s, stage.events),
                both(stage) / first,
                stage.strangers_cpu_s / stage.wall_s,
            )?;
        }
        writeln!(
            text,
            "| {} | {} of {} compared are wrong | | | | | |",
            of.store.projection(),
            of.wrong,
            grouped(of.compared as f64)
        )?;
    }
    Ok(())
}
