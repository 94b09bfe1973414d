//! The whole way, from a command to the read models and back to who asks: rates one after the other, with what every process
//! took and where the events' time went.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;
use tokio::process::Command;

use super::{OLDER_SEARCH, reported, stop};
use crate::load::{self, LoadArgs};
use crate::settings::Instance;
use crate::traces::{Receiver, Span};
use crate::{lag, process, services, stack, usage};

/// Commands a second, with queries for each, one after the other; and how long each. What a slow machine can't carry comes last.
const RATES: [(f64, u32); 6] = [(50.0, 0), (100.0, 1), (100.0, 3), (100.0, 9), (200.0, 0), (500.0, 0)];
const EACH: Duration = Duration::from_secs(30);
/// How long the read models may take to catch up before the next.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(180);
/// The share of commands whose events are followed.
const TRACED: &str = "0.1";
/// The JVMs compile for minutes; on two slow cores a higher rate would only make a backlog.
pub(super) const WARM_UP: LoadArgs =
    LoadArgs { rate: 120.0, time: Duration::from_secs(120), orders: None, reads_per_write: Some(1), seed: 7 };

/// What is measured of one rate.
#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    report: load::Report,
    legs: Vec<Leg>,
    processes: Vec<Process>,
}

/// What a component or service took while it was measured.
#[derive(Serialize)]
struct Process {
    name: &'static str,
    /// Seconds of a core.
    cpu_s: f64,
    /// Resident when it was over; of Postgres, its first process alone.
    memory_mb: u64,
}

fn processes(instance: &Instance) -> Vec<Process> {
    let components = stack::components(instance);
    let names = components.iter().map(|component| component.name).chain(services::SERVICES.iter().map(|s| s.name));
    let process = |name| {
        let pid = process::alive(instance, name)?;
        let memory_mb = process::memory_bytes(pid).unwrap_or_default() >> 20;
        Some(Process { name, cpu_s: usage::cpu_s(pid), memory_mb })
    };
    names.filter_map(process).collect()
}

/// What they took since.
fn since(before: &[Process], mut now: Vec<Process>) -> Vec<Process> {
    for process in &mut now {
        let then = before.iter().find(|then| then.name == process.name);
        process.cpu_s -= then.map_or(0.0, |then| then.cpu_s);
    }
    now
}

/// Of the followed events' way: all that go the same part of it, into one kind of store.
#[derive(Serialize)]
struct Leg {
    /// `outbox → kafka`, `kafka → owner`, `apply`, `write`, `refresh`; of the command: `append`, `commit`; of queries: [`TOLD`].
    leg: &'static str,
    store: Option<String>,
    events: u64,
    #[serde(flatten)]
    took: load::Figures,
}

/// Legs in the order in which they are gone; of each its spans' name, up to the read model's or store's.
const LEGS: [(&str, &str); 7] = [
    ("append", "append"),
    ("commit", "commit"),
    ("outbox → kafka", "outbox → kafka"),
    ("kafka → owner", "kafka → "),
    ("apply", "apply "),
    ("write", "write "),
    ("refresh", "refresh "),
];

/// From the store's answer to the end of a wait: its owner's publication, the control store's notification, and waking up.
const TOLD: &str = "answer → waiting query";
/// The read model of which who has just placed an order asks.
const ASKED: &str = "apply order_summary";

/// How long queries went on waiting when their store had answered; one that came later has waited for nothing.
fn told(spans: &[Span], stores: &BTreeMap<&str, &str>) -> Option<Leg> {
    let mut traces: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        traces.entry(&span.trace).or_default().push(span);
    }
    let mut took = load::Latencies::default();
    for trace in traces.values() {
        let Some(apply) = trace.iter().find(|span| span.name == ASKED) else { continue };
        let Some(write) = trace.iter().find(|span| span.parent == apply.id) else { continue };
        for wait in trace.iter().filter(|span| span.name == "wait" && span.from < write.to) {
            took.add(Duration::from_nanos(wait.to.saturating_sub(write.to)));
        }
    }
    let store = stores.get(ASKED.trim_start_matches("apply ")).map(|store| (*store).to_owned());
    (took.count() > 0).then(|| Leg { leg: TOLD, store, events: took.count(), took: took.figures() })
}

/// Adds the spans up. `stores`: of each read model.
fn legs(spans: &[Span], stores: &BTreeMap<&str, &str>) -> Vec<Leg> {
    let mut all: BTreeMap<(usize, Option<&str>), load::Latencies> = BTreeMap::new();
    for span in spans {
        let gone = LEGS.iter().enumerate().find_map(|(place, (_, name))| {
            let of = span.name.strip_prefix(name)?;
            let store = match of {
                "" => None,
                // A span of a write has the store's name already.
                of => Some(stores.get(of).copied().unwrap_or(of)),
            };
            Some((place, store))
        });
        if let Some(key) = gone {
            all.entry(key).or_default().add(Duration::from_nanos(span.to.saturating_sub(span.from)));
        }
    }
    let leg = |((place, store), took): ((usize, Option<&str>), load::Latencies)| Leg {
        leg: LEGS[place].0,
        store: store.map(str::to_owned),
        events: took.count(),
        took: took.figures(),
    };
    all.into_iter().map(leg).collect()
}

/// Waits until nothing is left of what was measured before.
pub(super) async fn caught_up(instance: &Instance) -> anyhow::Result<()> {
    let began = Instant::now();
    while lag::Status::read(instance).await?.behind() > 0 {
        ensure!(began.elapsed() < CAUGHT_UP_WITHIN, "not caught up after {} s", CAUGHT_UP_WITHIN.as_secs());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// The whole way, from a command to the read models: sent as `./dev load` sends them; `bench` takes it into the report.
pub(super) async fn run(instance: &Instance, bench: Command) -> anyhow::Result<ExitCode> {
    let receiver = Receiver::start().await?;
    let instance = &instance.clone().with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url()),
        ("OTEL_TRACES_SAMPLER_ARG", TRACED),
        ("OTEL_BSP_SCHEDULE_DELAY", "500"),
    ]);
    services::up(instance).await?;
    stop(instance, &[OLDER_SEARCH]).await?;
    load::run(instance, &WARM_UP).await?;
    caught_up(instance).await?;
    let mut measured = Vec::new();
    for (rate, reads_per_write) in RATES {
        let seed = measured.len() as u64 + 11;
        let args = LoadArgs {
            rate: rate * f64::from(reads_per_write + 1),
            time: EACH,
            seed,
            reads_per_write: Some(reads_per_write),
            ..WARM_UP
        };
        let ready = load::prepare(instance, &args).await?;
        let (before, _) = (processes(instance), receiver.take());
        let report = load::measure(instance, ready).await?;
        let processes = since(&before, processes(instance));
        eprintln!("{report}");
        let stores = report.lag.iter().map(|model| (model.name.as_str(), model.store.as_str())).collect();
        let spans = receiver.take();
        let legs = legs(&spans, &stores).into_iter().chain(told(&spans, &stores)).collect();
        measured.push(Measured { report, legs, processes });
        // What was measured is worth telling, also where the machine doesn't carry more.
        if let Err(error) = caught_up(instance).await {
            eprintln!("{rate} commands/s are the last that are measured: {error:#}");
            break;
        }
    }
    services::down(instance).await?;
    reported(bench, &measured).await
}
