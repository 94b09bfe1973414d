//! `./dev bench`: measurements by hand (`bench/`), on a fresh instance of its own, built as for production.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use tokio::process::Command;

use crate::process;
use crate::settings::{Instance, TEST};
use crate::stack;

/// Components that nothing is measured of, and that would take their part of the machine.
const UNUSED: [&str; 2] = ["connect", "elasticsearch7"];

/// Builds it, runs it with `arguments` on a fresh instance `test`; its exit code is ours.
pub(crate) async fn run(chosen: &Instance, arguments: &[String]) -> anyhow::Result<ExitCode> {
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
    if arguments.iter().any(|word| ["--help", "-h", "help"].contains(&word.as_str())) {
        return ended(bench.status().await);
    }
    stack::reset(&instance).await?;
    stack::up(&instance).await?;
    for name in UNUSED {
        process::stop(&instance, name, Signal::TERM, Duration::from_secs(20)).await?;
    }
    let outcome = ended(bench.status().await);
    stack::down(&instance).await?;
    outcome
}

fn ended(status: std::io::Result<std::process::ExitStatus>) -> anyhow::Result<ExitCode> {
    let code = status.context("running bench")?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
