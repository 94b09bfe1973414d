//! What more of something costs.

use super::{grouped, machine};
use crate::scale::{Scale, What};
use anyhow::Result;
use std::fmt::Write as _;

pub(super) fn write(text: &mut String, all: &Scale) -> Result<()> {
    writeln!(text, "\n## Scale\n")?;
    machine(text, &all.machine)?;
    writeln!(
        text,
        "{} orders of five events; unless said otherwise 4 partitions, one host, `order_summary` into Redis. All processes share the machine, so \
         more hosts or partitions don't bring more cores. With several read models, events count once for each, and one of them is replayed while the others are live; memory is that of the \
         host that had the most.\n",
        grouped(all.orders as f64),
    )?;
    let columns = [
        "",
        "live events/s",
        "replay events/s",
        "÷ first, live",
        "÷ first, replay",
        "host CPU µs/event",
        "memory MB",
        "wrong",
        "strangers",
    ];
    writeln!(text, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()))?;
    for point in &all.points {
        let first = all.points.iter().find(|first| first.what == point.what).unwrap_or(point);
        let (live, replay) = (&point.live, &point.replay);
        let note = if point.what == What::Lines { " (Postgres)" } else { "" };
        writeln!(
            text,
            "| {}{note} | {} | {} | {:.2} | {:.2} | {:.1} | {} | {} | {:.1} |",
            point.value,
            grouped(live.events_per_second),
            grouped(replay.events_per_second),
            live.events_per_second / first.live.events_per_second,
            replay.events_per_second / first.replay.events_per_second,
            (live.cpu_s + replay.cpu_s) * 1e6 / (live.events + replay.events) as f64,
            live.memory_peak_mb.max(replay.memory_peak_mb),
            point.wrong,
            (live.usage.strangers_cpu_s + replay.usage.strangers_cpu_s) / (live.usage.wall_s + replay.usage.wall_s),
        )?;
    }
    Ok(())
}
