//! `./dev bench`: measurements by hand, each on a fresh instance of its own, built as for production.

use std::process::ExitCode;

use anyhow::Context;
use tokio::process::Command;

use crate::process;
use crate::settings::Instance;
use crate::stack;

/// What is measured.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum What {
    /// A million events become another generation's documents
    Rebuild,
}

/// Runs it; cargo's exit code is ours.
pub(crate) async fn run(chosen: &Instance, what: What) -> anyhow::Result<ExitCode> {
    let instance = Instance::new(chosen.settings().clone(), "test")?;
    let _session = process::lock(&instance, "tests")?;
    let name = match what {
        What::Rebuild => "rebuild",
    };
    // Built before the servers start: compilers and servers would compete for memory.
    if !bench(&instance, name, &["--no-run"]).status().await.context("running cargo")?.success() {
        return Ok(ExitCode::FAILURE);
    }
    stack::reset(&instance).await?;
    stack::up(&instance).await?;
    let outcome = bench(&instance, name, &[]).status().await.context("running cargo bench");
    stack::down(&instance).await?;
    Ok(if outcome?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bench(instance: &Instance, name: &str, more: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(["bench", "--workspace", "--bench", name]).args(more);
    command.envs(instance.env()).current_dir(instance.root()).kill_on_drop(true);
    command
}
