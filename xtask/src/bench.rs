//! `./dev bench`: measurements by hand (`bench/`), on a fresh instance of its own, built as for production.

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::load::{self, LoadArgs};
use crate::settings::{Instance, TEST};
use crate::{process, services, stack};

/// Components that nothing is measured of, and that would take their part of the machine.
const UNUSED: [&str; 2] = ["connect", "elasticsearch7"];

/// Commands a second, one after the other, and how long each.
const LATENCY_RATES: [f64; 3] = [50.0, 200.0, 500.0];
const LATENCY_FOR: Duration = Duration::from_secs(30);
/// The JVMs are slow at first.
const WARM_UP: LoadArgs =
    LoadArgs { rate: 100.0, time: Duration::from_secs(20), orders: None, reads_per_write: Some(0), seed: 7 };

/// Builds it, runs it with `arguments` on a fresh instance `test`; its exit code is ours.
pub(crate) async fn run(chosen: &Instance, arguments: &[String]) -> anyhow::Result<ExitCode> {
    // One event's way through the core, step by step: no servers.
    if let [first, more @ ..] = arguments
        && first == "event"
    {
        let mut cargo = Command::new("cargo");
        cargo.args(["bench", "--workspace", "--bench", "event", "--"]).args(more).current_dir(chosen.root());
        return ended(cargo.status().await);
    }
    let instance = Instance::new(chosen.settings().clone(), TEST)?;
    let _session = process::lock(&instance, "tests")?;
    // Built before the servers start: compilers and servers would compete for memory. Alone, since only this is built for release.
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--package", "bench"]).current_dir(instance.root()).kill_on_drop(true);
    if !build.status().await.context("running cargo")?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let mut bench = Command::new(instance.release_binary("bench"));
    bench.args(arguments).envs(instance.env()).current_dir(instance.root()).kill_on_drop(true);
    // These measure nothing.
    if arguments.iter().any(|word| ["--help", "-h", "help", "report"].contains(&word.as_str())) {
        return ended(bench.status().await);
    }
    stack::reset(&instance).await?;
    stack::up(&instance).await?;
    let outcome = if arguments.first().is_some_and(|word| word == "latency") {
        latency(&instance, bench).await
    } else {
        measure(&instance, bench).await
    };
    stack::down(&instance).await?;
    outcome
}

async fn measure(instance: &Instance, mut bench: Command) -> anyhow::Result<ExitCode> {
    for name in UNUSED {
        process::stop(instance, name, Signal::TERM, Duration::from_secs(20)).await?;
    }
    ended(bench.status().await)
}

/// The whole way, from a command to the read models: sent as `./dev load` sends them; `bench` takes it into the report.
async fn latency(instance: &Instance, mut bench: Command) -> anyhow::Result<ExitCode> {
    services::up(instance).await?;
    load::run(instance, &WARM_UP).await?;
    let mut measured = Vec::new();
    for rate in LATENCY_RATES {
        let seed = measured.len() as u64 + 11;
        let report = load::run(instance, &LoadArgs { rate, time: LATENCY_FOR, seed, ..WARM_UP }).await?;
        eprintln!("{report}");
        measured.push(report);
    }
    services::down(instance).await?;
    let mut child = bench.stdin(Stdio::piped()).spawn().context("running bench")?;
    let mut stdin = child.stdin.take().context("bench takes no input")?;
    stdin.write_all(&serde_json::to_vec(&measured)?).await?;
    drop(stdin);
    ended(child.wait().await)
}

fn ended(status: std::io::Result<std::process::ExitStatus>) -> anyhow::Result<ExitCode> {
    let code = status.context("running bench")?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
