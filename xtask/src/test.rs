//! `./dev test`: everything built first, a fresh instance `test`, all tests, and the instance stopped whatever happens.

use std::process::ExitCode;

use anyhow::Context;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::settings::Instance;
use crate::stack;

/// Runs `cargo test` over the workspace with the environment of instance `test`; its exit code is ours.
pub(crate) async fn run(chosen: &Instance, keep: bool, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let instance = Instance::new(chosen.settings().clone(), "test")?;
    // Built before the servers start, so that compilers and servers do not compete for memory; plain binaries too,
    // since the acceptance tests start them.
    for arguments in [&["build", "--workspace"][..], &["test", "--workspace", "--no-run"][..]] {
        let status = Command::new("cargo")
            .args(arguments)
            .current_dir(instance.root())
            .status()
            .await
            .context("running cargo")?;
        if !status.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        outcome = fresh_then_test(&instance, arguments) => outcome,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    if keep {
        eprintln!("instance `test` keeps running; stop it with ./dev --instance test down");
    } else {
        stack::down(&instance).await?;
    }
    outcome
}

async fn fresh_then_test(instance: &Instance, arguments: &[String]) -> anyhow::Result<ExitCode> {
    stack::reset(instance).await?;
    stack::up(instance).await?;
    let status = Command::new("cargo")
        .args(["test", "--workspace"])
        .args(arguments)
        // One at a time: they share one set of real stores, and some stop a server.
        .args(["--", "--include-ignored", "--test-threads=1"])
        .envs(instance.env())
        .current_dir(instance.root())
        .kill_on_drop(true)
        .status()
        .await
        .context("running cargo test")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
