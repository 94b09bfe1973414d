//! `./dev bench`: measurements by hand (`bench/`), on a fresh instance of its own, built as for production.

mod latency;
mod soak;

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::settings::{Instance, TEST};
use crate::{process, services, stack};

// What nothing is measured of would take its part of the machine.
const CONNECT: &str = "connect";
const OLDER_SEARCH: &str = "elasticsearch7";

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
    // What goes the whole way, with all services.
    let whole = arguments.first().map(String::as_str).filter(|word| ["latency", "soak"].contains(word));
    let mut instance = Instance::new(chosen.settings().clone(), TEST)?.released();
    if whole.is_some() {
        instance = instance.answers_first();
    }
    let _session = process::lock(&instance, "tests")?;
    // Built before the servers start: compilers and servers would compete for memory.
    services::build_release(&instance).await?;
    let mut bench = Command::new(instance.binary("bench"));
    bench.args(arguments).envs(instance.env()).current_dir(instance.root()).kill_on_drop(true);
    // These measure nothing.
    if arguments.iter().any(|word| ["--help", "-h", "help", "report"].contains(&word.as_str())) {
        return ended(bench.status().await);
    }
    stack::reset(&instance).await?;
    stack::up(&instance).await?;
    let outcome = match whole {
        Some("latency") => latency::run(&instance, bench).await,
        Some(_) => soak::run(&instance, bench).await,
        None => throughput(&instance, bench).await,
    };
    stack::down(&instance).await?;
    outcome
}

async fn throughput(instance: &Instance, mut bench: Command) -> anyhow::Result<ExitCode> {
    stop(instance, &[CONNECT, OLDER_SEARCH]).await?;
    ended(bench.status().await)
}

async fn stop(instance: &Instance, names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        process::stop(instance, name, Signal::TERM, Duration::from_secs(20)).await?;
    }
    Ok(())
}

/// `bench` takes what was measured here into the report.
async fn reported(mut bench: Command, measured: &impl Serialize) -> anyhow::Result<ExitCode> {
    let mut child = bench.stdin(Stdio::piped()).spawn().context("running bench")?;
    let mut stdin = child.stdin.take().context("bench takes no input")?;
    stdin.write_all(&serde_json::to_vec(measured)?).await?;
    drop(stdin);
    ended(child.wait().await)
}

fn ended(status: std::io::Result<std::process::ExitStatus>) -> anyhow::Result<ExitCode> {
    let code = status.context("running bench")?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
