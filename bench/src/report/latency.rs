//! From the commit to what readers see, by legs; and queries beside commands.

use super::machine;
use crate::latency::{Figures, Latency, Load};
use anyhow::Result;
use std::collections::BTreeSet;
use std::fmt::Write as _;

pub(super) fn write(text: &mut String, all: &Latency) -> Result<()> {
    writeln!(text, "\n## Latency\n")?;
    machine(text, &all.machine)?;
    writeln!(
        text,
        "Requests leave on a schedule that doesn't wait for answers, 30 s each, one rate after the other; all reference projections on one host, every process of the stack \
         on the same machine, our services of the same build. p50 / p99 / max in ms.\n"
    )?;
    let (alone, beside): (Vec<&Load>, Vec<&Load>) = all.loads.iter().partition(|load| load.reads_per_write == 0);
    commands(text, &alone)?;
    if alone.iter().any(|load| !load.legs.is_empty()) {
        legs(text, &alone)?;
    }
    if !beside.is_empty() {
        queries(text, &beside)?;
    }
    if all.loads.iter().any(|load| !load.processes.is_empty()) {
        processes(text, &all.loads)?;
    }
    Ok(())
}

fn commands(text: &mut String, loads: &[&Load]) -> Result<()> {
    let Some(first) = loads.first() else { return Ok(()) };
    writeln!(text, "Commands alone: commit → visible.\n")?;
    head(text, "read model | store", loads.iter().map(|load| format!("{:.0} commands/s", load.rate_asked)))?;
    for model in &first.lag {
        let of = |load: &Load| load.lag.iter().find(|lag| lag.name == model.name).and_then(|lag| lag.lag.clone());
        row(text, &format!("{} | {}", model.name, model.store), loads, of)?;
    }
    row(text, "the command itself |", loads, |load| load.latency_ms.clone())?;
    row(text, "events appended and committed |", loads, |load| load.append_ms.clone())?;
    reached(text, "commands/s reached |", loads)
}

fn legs(text: &mut String, loads: &[&Load]) -> Result<()> {
    writeln!(
        text,
        "\nThe same by legs, as the traces of one command in ten have them (docs/tracing.md): *outbox → kafka* is WAL, Debezium and Connect until its producer sends; *kafka → owner* is that \
         producer's and the broker's, the host's consumer and what waits for the batch before; *apply* is reading, loading, folding and *write*, the store's answers to the whole batch; \
         *refresh* is where a search engine shows it only then.\n"
    )?;
    let names = legs_of(loads);
    let stores: BTreeSet<_> = names.iter().map(|(_, store)| *store).collect();
    head(text, "leg | store", loads.iter().map(|load| format!("{:.0} commands/s", load.rate_asked)))?;
    for store in stores {
        for (leg, _) in names.iter().filter(|(_, of)| *of == store) {
            row(text, &format!("{leg} | {}", store.unwrap_or_default()), loads, |load| took(load, leg, store))?;
        }
    }
    Ok(())
}

/// All legs that were measured at any of the rates, in the order in which they are gone.
fn legs_of<'a>(loads: &[&'a Load]) -> Vec<(&'a str, Option<&'a str>)> {
    let mut names: Vec<(&str, Option<&str>)> = Vec::new();
    for leg in loads.iter().flat_map(|load| &load.legs) {
        let name = (leg.leg.as_str(), leg.store.as_deref());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn took(load: &Load, leg: &str, store: Option<&str>) -> Option<Figures> {
    load.legs.iter().find(|of| of.leg == leg && of.store.as_deref() == store).map(|leg| leg.took.clone())
}

fn queries(text: &mut String, loads: &[&Load]) -> Result<()> {
    let rates = loads.iter().map(|load| {
        let commands = load.rate_asked / f64::from(load.reads_per_write + 1);
        format!("{:.0} queries/s beside {commands:.0} commands/s", load.rate_asked - commands)
    });
    writeln!(
        text,
        "\nQueries beside commands. *own order by token* is sent as soon as an order's command was answered, with its consistency token, and counts from there; \
         *answer → waiting query* is how long it went on waiting when the store had answered the read model's owner.\n"
    )?;
    head(text, "query", rates)?;
    let names: BTreeSet<_> = loads
        .iter()
        .flat_map(|load| load.endpoints.iter().filter(|of| of.side == "query").map(|of| of.name.as_str()))
        .collect();
    for name in names {
        let of = |load: &Load| {
            let found = load.endpoints.iter().find(|of| of.side == "query" && of.name == name);
            found.map(|of| of.latency_ms.clone())
        };
        row(text, name, loads, of)?;
    }
    for (leg, store) in legs_of(loads).into_iter().filter(|(leg, _)| leg.starts_with("answer")) {
        row(text, &format!("*{leg}*, {}", store.unwrap_or_default()), loads, |load| took(load, leg, store))?;
    }
    row(text, "events appended and committed", loads, |load| load.append_ms.clone())?;
    let failed =
        loads.iter().map(|load| load.endpoints.iter().map(|of| of.errors + of.refused).sum::<u64>().to_string());
    writeln!(text, "| refused or failed | {} |", failed.collect::<Vec<_>>().join(" | "))?;
    reached(text, "requests/s reached", loads)
}

fn processes(text: &mut String, loads: &[Load]) -> Result<()> {
    writeln!(
        text,
        "\nCores that each process took, and how much of one that is for a command, in ms; queries are in it where there are any. JVMs compile while they are young.\n"
    )?;
    let commands = |load: &Load| load.rate_reached / f64::from(load.reads_per_write + 1);
    let rates = loads.iter().map(|load| match load.reads_per_write {
        0 => format!("{:.0} commands/s", load.rate_asked),
        _ => format!("{:.0} and {:.0} queries/s", commands(load), load.rate_asked - commands(load)),
    });
    head(text, "process", rates)?;
    let names: BTreeSet<_> = loads.iter().flat_map(|load| load.processes.iter().map(|of| of.name.as_str())).collect();
    for name in names {
        let of = |load: &Load| match load.processes.iter().find(|of| of.name == name) {
            Some(of) => {
                let cores = of.cpu_s / load.elapsed_s.max(f64::EPSILON);
                format!("{cores:.2} / {:.2}", 1_000.0 * cores / commands(load).max(f64::EPSILON))
            }
            None => "–".to_owned(),
        };
        writeln!(text, "| {name} | {} |", loads.iter().map(of).collect::<Vec<_>>().join(" | "))?;
    }
    Ok(())
}

fn head(text: &mut String, names: &str, columns: impl Iterator<Item = String>) -> Result<()> {
    let columns: Vec<_> = columns.collect();
    let rule = "---|".repeat(names.split('|').count() + columns.len());
    writeln!(text, "| {names} | {} |\n|{rule}", columns.join(" | "))?;
    Ok(())
}

fn row(text: &mut String, name: &str, loads: &[&Load], of: impl Fn(&Load) -> Option<Figures>) -> Result<()> {
    // Less than a millisecond is told apart where it counts.
    let digits = |ms: f64| if ms < 10.0 { format!("{ms:.1}") } else { format!("{ms:.0}") };
    let figures = loads.iter().map(|load| match of(load) {
        Some(Figures { p50, p99, max }) => format!("{} / {} / {}", digits(p50), digits(p99), digits(max)),
        None => "–".to_owned(),
    });
    writeln!(text, "| {name} | {} |", figures.collect::<Vec<_>>().join(" | "))?;
    Ok(())
}

fn reached(text: &mut String, name: &str, loads: &[&Load]) -> Result<()> {
    let reached: Vec<_> = loads.iter().map(|load| format!("{:.0}", load.rate_reached)).collect();
    writeln!(text, "| {name} | {} |", reached.join(" | "))?;
    Ok(())
}
