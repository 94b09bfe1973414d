//! Our three services on top of the components: prepared in order, then started; each step fails with its log.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;

use crate::process;
use crate::progress::Board;
use crate::settings::{Instance, Port};
use crate::stack::{self, Component, ready};

/// Our long-running services, in the order in which they start.
pub(crate) const SERVICES: [Component; 3] = [
    Component { name: "command-api", ports: &[Port::CommandApi] },
    Component { name: "projector-run", ports: &[Port::ProjectorAdmin] },
    Component { name: "projector-serve", ports: &[Port::Query] },
];

/// A step that runs to its end, and must be repeatable.
struct Step {
    name: &'static str,
    binary: &'static str,
    arguments: &'static [&'static str],
}

enum Stage {
    Run(Step),
    Serve { service: &'static str, binary: &'static str, verb: &'static str },
}

const STAGES: [Stage; 7] = [
    Stage::Run(Step { name: "migrate", binary: "command-api", arguments: &["migrate"] }),
    Stage::Run(Step { name: "schemas", binary: "command-api", arguments: &["schemas", "register"] }),
    Stage::Run(Step { name: "connector", binary: "connectors", arguments: &["apply"] }),
    Stage::Serve { service: "command-api", binary: "command-api", verb: "serve" },
    Stage::Run(Step { name: "projections", binary: "projector", arguments: &["apply"] }),
    Stage::Serve { service: "projector-run", binary: "projector", verb: "run" },
    Stage::Serve { service: "projector-serve", binary: "projector", verb: "serve" },
];

/// Prepares the stores and starts what does not run yet, or runs an older build. The components must be up.
pub(crate) async fn up(instance: &Instance) -> anyhow::Result<()> {
    let missing: Vec<&str> = stack::components(instance)
        .iter()
        .map(|c| c.name)
        .filter(|name| process::alive(instance, name).is_none())
        .collect();
    if !missing.is_empty() {
        bail!("not running: {}; start them with ./dev up --instance {}", missing.join(", "), instance.name());
    }
    if instance.is_released() {
        build_release(instance).await?;
    }
    stop_other_builds(instance).await?;
    stack::check_ports(instance, &SERVICES)?;
    eprintln!("services of instance `{}`", instance.name());
    let board = Board::new();
    let env = instance.env();
    for stage in &STAGES {
        match stage {
            Stage::Run(step) => {
                let mut row = board.row(step.name);
                row.begin(&format!("{} {}", step.binary, step.arguments.join(" ")));
                if let Err(error) =
                    process::run_logged(instance, step.name, &built(instance, step.binary)?, step.arguments, &env).await
                {
                    row.failed(&format!("failed, see {}", instance.log(step.name).display()));
                    return Err(error.context(format!("`{} {}`", step.binary, step.arguments.join(" "))));
                }
                row.done("done");
            }
            Stage::Serve { service, binary, verb } => {
                let mut row = board.row(service);
                row.begin("starting");
                match serve(instance, service, binary, verb).await {
                    Ok(pid) => row.done(&format!("ready, {}, pid {pid}", instance.http(port_of(service)?))),
                    Err(error) => {
                        row.failed(&format!("failed, see {}", instance.log(service).display()));
                        return Err(error.context(format!("`{binary} {verb}` did not start")));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Everything as for production. `./dev` itself has built the other profile by then.
pub(crate) async fn build_release(instance: &Instance) -> anyhow::Result<()> {
    let mut build = tokio::process::Command::new("cargo");
    build.args(["build", "--release", "--workspace", "--bins"]).current_dir(instance.root()).kill_on_drop(true);
    ensure!(build.status().await.context("running cargo")?.success(), "cargo build --release failed");
    Ok(())
}

/// Starts one service unless it runs, and waits until it is ready.
async fn serve(instance: &Instance, service: &str, binary: &str, verb: &str) -> anyhow::Result<u32> {
    let pid = match process::alive(instance, service) {
        Some(pid) => pid,
        None => process::spawn(instance, service, &built(instance, binary)?, &[verb.to_owned()], &instance.env())?,
    };
    let url = format!("{}/health/ready", instance.http(port_of(service)?));
    ready::wait(instance, service, Duration::from_secs(60), async || ready::http_ok(&url).await).await?;
    Ok(pid)
}

fn port_of(service: &str) -> anyhow::Result<Port> {
    SERVICES.iter().find(|s| s.name == service).map(|s| s.ports[0]).with_context(|| format!("no service {service}"))
}

fn built(instance: &Instance, binary: &str) -> anyhow::Result<std::path::PathBuf> {
    let path = instance.binary(binary);
    if !path.is_file() {
        bail!("{} is not built: run cargo build --workspace", path.display());
    }
    Ok(path)
}

/// Stops services in reverse order; the components stay.
pub(crate) async fn down(instance: &Instance) -> anyhow::Result<()> {
    let board = Board::new();
    for service in SERVICES.iter().rev().filter(|s| process::alive(instance, s.name).is_some()) {
        let mut row = board.row(service.name);
        row.begin("stopping");
        process::stop(instance, service.name, Signal::TERM, Duration::from_secs(15)).await?;
        row.done("stopped");
    }
    Ok(())
}

/// A service that isn't what is to run, since it was built anew or otherwise, is stopped.
async fn stop_other_builds(instance: &Instance) -> anyhow::Result<()> {
    for stage in STAGES.iter().rev() {
        let Stage::Serve { service, binary, .. } = stage else { continue };
        let Some(pid) = process::alive(instance, service) else { continue };
        // A file that was replaced is no longer where it was: the link then says "(deleted)" behind its path.
        if fs::read_link(format!("/proc/{pid}/exe")).ok() != instance.binary(binary).canonicalize().ok() {
            process::stop(instance, service, Signal::TERM, Duration::from_secs(15)).await?;
        }
    }
    Ok(())
}
