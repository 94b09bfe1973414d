//! Events a second, each beside its baselines and its goal.

use super::{grouped, machine};
use crate::stores::Store;
use crate::throughput::{OfStore, Ours, Throughput};
use anyhow::Result;
use std::fmt::Write as _;

/// What is to be reached on two cores: events a second, rows for ClickHouse.
fn goal(store: Store, replaying: bool) -> Option<f64> {
    match (store, replaying) {
        (Store::Redis, false) => Some(100_000.0),
        (Store::Redis, true) => Some(200_000.0),
        (Store::Search, true) => Some(40_000.0),
        (Store::Clickhouse, true) => Some(300_000.0),
        (Store::Postgres, true) => Some(100_000.0),
        _ => None,
    }
}

/// What people found out with these figures; to be written anew with them.
const FINDINGS: &str = include_str!("../../findings.md");

const LEGEND: &str = "
- **(a)**: the topic read and dropped by librdkafka in one thread, its queues as large as they may be; the best of three.
- **(b)**: the store fed with the final documents, made ready beforehand, by its best bulk client, without conditions or versions; the best of three.
- **(c)**: `bench/src/peer`, a straightforward consumer, well set: rdkafka's `StreamConsumer`, apache-avro values into serde_json, one conditional write an
  event, pipelined. A process of its own; Redis and search.
- **live**: `projector run` reads the whole topic as a backlog of a live generation. **replay**: `projector rebuild start` builds the same once more beside it.
- **writes**: documents or rows written, and how many that is for each event: what folding leaves. **limit**: the lower one of (a) and of (b) divided by that, in events a second. Half of it is a goal everywhere.
- **wrong**: documents that aren't as they must be, of all. **strangers**: cores that processes took which have nothing to do with it.
- Rates count from the first progress that is published to the last, and of a replay to the last write of what it had put off: without the start of processes and of the group.
";

pub(super) fn write<'a>(text: &mut String, all: impl ExactSizeIterator<Item = &'a Throughput>) -> Result<()> {
    if all.len() == 0 {
        return Ok(());
    }
    writeln!(text, "\n## Throughput\n{LEGEND}")?;
    all.into_iter().try_for_each(|one| run(text, one))?;
    text.push_str(FINDINGS);
    Ok(())
}

fn run(text: &mut String, all: &Throughput) -> Result<()> {
    writeln!(text, "### {} events\n", grouped(all.events as f64))?;
    machine(text, &all.machine)?;
    writeln!(
        text,
        "{} events of {} orders (five each, three to four lines, {:.0} bytes of Avro on average), {} partitions, one host, one read model.\n",
        grouped(all.events as f64),
        grouped(all.orders as f64),
        all.read_bytes as f64 / all.events as f64,
        all.partitions,
    )?;
    writeln!(text, "**(a) reading and dropping: {} events/s.**\n", grouped(all.read_per_second))?;
    let columns = [
        "store",
        "what",
        "events/s",
        "goal",
        "of (a)",
        "writes/s (an event)",
        "limit",
        "of the limit",
        "÷ (c)",
        "wrong",
        "memory MB",
        "host CPU µs/event",
        "store CPU µs/event",
        "strangers",
    ];
    writeln!(text, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()))?;
    for of in &all.stores {
        baselines(text, all, of)?;
        row(text, all, of, "live", &of.live, goal(of.store, false))?;
        row(text, all, of, "replay", &of.replay, goal(of.store, true))?;
    }
    writeln!(text, "\nWhere the time goes:\n")?;
    writeln!(
        text,
        "Of an owner's time, which is more than 100 % in all where several batches are under way: folding, waiting for documents to fold into, waiting for writes, and the rest (reading, decoding, saving progress, \
         waiting for messages, resting between batches). Cores: how much the host, the store, Kafka and strangers took while it ran, start included; what is \
         left of the machine's {} was idle, or the measuring's own.\n",
        all.machine.cores
    )?;
    writeln!(
        text,
        "| store | what | fold | load | write | rest | host | store | Kafka | strangers |\n|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for of in &all.stores {
        shares(text, of, "live", &of.live)?;
        shares(text, of, "replay", &of.replay)?;
    }
    text.push('\n');
    Ok(())
}

fn name(store: Store) -> &'static str {
    match store {
        Store::Redis => "Redis",
        Store::Search => "search",
        Store::Clickhouse => "ClickHouse",
        Store::Postgres => "Postgres",
    }
}

fn baselines(text: &mut String, all: &Throughput, of: &OfStore) -> Result<()> {
    let what = if of.store == Store::Clickhouse { "rows" } else { "documents" };
    let blank = "| ".repeat(11);
    writeln!(
        text,
        "| {} | (b) {} | {} {what}/s {blank}|",
        name(of.store),
        of.fed.client,
        grouped(of.fed.per_second())
    )?;
    if let Some(peer) = &of.peer {
        let rate = peer.done.events as f64 / peer.done.seconds;
        let (host, store) = (each(peer.done.cpu_s, peer.done.events), each(peer.usage.store_cpu_s, peer.done.events));
        writeln!(
            text,
            "| {} | (c) peer | {} | | {:.2} | 1.00 | | | 1.0 | {} of {} | {} | {host} | {store} | {:.1} |",
            name(of.store),
            grouped(rate),
            rate / all.read_per_second,
            peer.wrong,
            all.orders,
            peer.done.memory_peak_mb,
            peer.usage.strangers_cpu_s / peer.usage.wall_s,
        )?;
    }
    Ok(())
}

fn each(seconds: f64, events: usize) -> String {
    format!("{:.1}", seconds * 1e6 / events as f64)
}

fn row(text: &mut String, all: &Throughput, of: &OfStore, what: &str, ours: &Ours, goal: Option<f64>) -> Result<()> {
    let run = &ours.run;
    let (rate, writes) = (run.events_per_second, run.writes as f64 / run.events as f64);
    let limit = all.read_per_second.min(of.fed.per_second() / writes);
    let met = |met: bool| if met { "met" } else { "**not met**" };
    let goal = match (of.store, goal) {
        (_, None) => String::new(),
        // Its goal is of rows: each event that books something adds one.
        (Store::Clickhouse, Some(goal)) => {
            let rows = rate * ours.documents as f64 / run.events as f64;
            format!("{} rows/s: {}, {} rows/s", grouped(goal), met(rows >= goal), grouped(rows))
        }
        (_, Some(goal)) => format!("{}: {}", grouped(goal), met(rate >= goal)),
    };
    let peer = of
        .peer
        .as_ref()
        .map_or_else(String::new, |peer| format!("{:.1}", rate * peer.done.seconds / peer.done.events as f64));
    writeln!(
        text,
        "| {} | {what} | **{}** | {goal} | {:.2} | {} ({writes:.2}) | {} | {:.2}: {} | {peer} | {} of {} | {} | {} | {} | {:.1} |",
        name(of.store),
        grouped(rate),
        rate / all.read_per_second,
        grouped(rate * writes),
        grouped(limit),
        rate / limit,
        met(rate >= limit / 2.0),
        ours.wrong,
        ours.documents,
        run.memory_peak_mb,
        each(run.cpu_s, run.events),
        each(run.usage.store_cpu_s, run.events),
        run.usage.strangers_cpu_s / run.usage.wall_s,
    )?;
    Ok(())
}

fn shares(text: &mut String, of: &OfStore, what: &str, ours: &Ours) -> Result<()> {
    let run = &ours.run;
    let whole = run.events as f64 / run.events_per_second;
    let share = |seconds: f64| format!("{:.0} %", 100.0 * seconds / whole);
    let rest = (whole - run.fold_s - run.load_s - run.write_s).max(0.0);
    let cores = |seconds: f64| format!("{:.1}", seconds / run.usage.wall_s);
    writeln!(
        text,
        "| {} | {what} | {} | {} | {} | {} | {} | {} | {} | {} |",
        name(of.store),
        share(run.fold_s),
        share(run.load_s),
        share(run.write_s),
        share(rest),
        cores(run.cpu_s),
        cores(run.usage.store_cpu_s),
        cores(run.usage.kafka_cpu_s),
        cores(run.usage.strangers_cpu_s),
    )?;
    Ok(())
}
