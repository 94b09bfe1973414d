//! The project's own tools, run as a user runs them.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::{process::Command, sync::OnceCell};

use crate::{binary, processes::log, var};

static SERVICES: OnceCell<()> = OnceCell::const_new();

/// Starts what isn't running of our services; at once when all of them do. Every test begins with it, so that none
/// depends on what another one left.
///
/// # Errors
/// When a service doesn't start; the message names its log.
pub async fn services_up() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    SERVICES
        .get_or_try_init(async || if all_ready().await? { Ok(()) } else { run("xtask", &["services", "up"]).await })
        .await?;
    Ok(())
}

async fn all_ready() -> Result<bool> {
    for service in ["COMMAND_API_URL", "PROJECTOR_ADMIN_URL", "QUERY_URL"] {
        let answer = reqwest::get(format!("{}/health/ready", var(service)?)).await;
        if !answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Runs one of the project's binaries to its end.
///
/// # Errors
/// When it fails or takes minutes, with what it printed.
pub async fn run(name: &str, arguments: &[&str]) -> Result<()> {
    succeeded(name, arguments, Duration::from_secs(300)).await.map(drop)
}

/// Runs one of the project's binaries to its end, which must be a success, and reads the JSON that it prints.
///
/// # Errors
/// When it fails or takes longer than `limit`, with what it printed.
pub async fn json(name: &str, arguments: &[&str], limit: Duration) -> Result<Value> {
    let output = succeeded(name, arguments, limit).await?;
    let printed = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&printed).with_context(|| format!("{name} {} printed no JSON: {printed}", arguments.join(" ")))
}

/// Runs one of the project's binaries to its end, whatever comes of it.
///
/// # Errors
/// When it takes longer than `limit`.
pub async fn output(name: &str, arguments: &[&str], limit: Duration) -> Result<Output> {
    finished(name, arguments, limit).await
}

async fn succeeded(name: &str, arguments: &[&str], limit: Duration) -> Result<Output> {
    let output = finished(name, arguments, limit).await?;
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{name} {} failed: {printed}{errors}", arguments.join(" "));
    Ok(output)
}

async fn finished(name: &str, arguments: &[&str], limit: Duration) -> Result<Output> {
    let what = || format!("{name} {}", arguments.join(" "));
    tokio::time::timeout(limit, command(name, arguments).output())
        .await
        .with_context(|| format!("{}: not within {limit:?}, see the logs in {}", what(), log("*")))?
        .with_context(|| format!("can't run {}", what()))
}

/// What `./dev audit` says, waiting at most `wait_s` for the projector.
///
/// # Errors
/// When it can't compare at all, or its exit code doesn't fit its verdict.
pub async fn audit(wait_s: u64) -> Result<Value> {
    let wait = wait_s.to_string();
    // it may be in the middle of a round when its patience ends
    let limit = Duration::from_secs(wait_s + 120);
    let output = finished("xtask", &["audit", "--output", "json", "--wait", &wait], limit).await?;
    let verdict: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("audit gave no verdict: {}", String::from_utf8_lossy(&output.stderr)))?;
    ensure!(
        output.status.code() == Some(i32::from(verdict["agrees"] != Value::Bool(true))),
        "exit code {:?} with {verdict}",
        output.status.code()
    );
    Ok(verdict)
}

/// The audit must find nothing.
///
/// # Errors
/// What it found.
pub async fn audit_agrees(wait_s: u64) -> Result<()> {
    let verdict = audit(wait_s).await?;
    let log = log("projector-run");
    ensure!(verdict["agrees"] == Value::Bool(true), "the audit differs, see {log}: {verdict:#}");
    Ok(())
}

/// Sends orders in the background, as `./dev load` does, without readers; await the result to get its report.
///
/// # Errors
/// When it can't be started; the inner one when the load failed.
pub fn load(orders: u32, rate: u32, seed: u64) -> Result<tokio::task::JoinHandle<Result<Value>>> {
    let (orders, rate, seed) = (orders.to_string(), rate.to_string(), seed.to_string());
    let arguments =
        ["load", "--orders", &orders, "--rate", &rate, "--reads-per-write", "0", "--seed", &seed, "--output", "json"];
    let child = command("xtask", &arguments).spawn().context("can't run xtask load")?;
    Ok(tokio::spawn(async move {
        let output = child.wait_with_output().await?;
        ensure!(output.status.success(), "load failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }))
}

fn command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary(name));
    command
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}
