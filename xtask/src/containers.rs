//! The container path: `compose/compose.yaml` by whichever compose is installed.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};

use crate::settings::Instance;

/// Builds our images, starts all containers and waits for their health checks.
pub(crate) fn up(instance: &Instance) -> anyhow::Result<ExitCode> {
    compose(instance, &["up", "--build", "--detach"])
}

/// Stops and removes the containers; their volumes stay.
pub(crate) fn down(instance: &Instance) -> anyhow::Result<ExitCode> {
    compose(instance, &["down"])
}

fn compose(instance: &Instance, arguments: &[&str]) -> anyhow::Result<ExitCode> {
    let (program, first) = find()?;
    let status = Command::new(program)
        .args(first)
        .args(["--project-directory", "compose", "--file", "compose/compose.yaml"])
        .args(arguments)
        .current_dir(instance.root())
        .status()
        .with_context(|| format!("running {program}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn find() -> anyhow::Result<(&'static str, &'static [&'static str])> {
    let works = |program: &str, arguments: &[&str]| {
        let quiet = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        quiet.is_ok_and(|status| status.success())
    };
    if works("docker", &["compose", "version"]) {
        return Ok(("docker", &["compose"]));
    }
    if works("docker-compose", &["version"]) {
        return Ok(("docker-compose", &[]));
    }
    bail!("neither `docker compose` nor `docker-compose` works here; leave out --containers to run natively")
}
