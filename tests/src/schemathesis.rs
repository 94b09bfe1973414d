//! Requests made up from a service's own OpenAPI document, by schemathesis: it invents what fits the schemas and what just doesn't.
//!
//! Its versions are pinned in `.ci/schemathesis.txt`; the first run installs them into `.cache/tools`.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const REQUIREMENTS: &str = ".ci/schemathesis.txt";
const HOOKS: &str = "schemathesis_hooks";
const INSTALL_MAX: Duration = Duration::from_secs(300);
const RUN_MAX: Duration = Duration::from_secs(300);
/// Answers below 500, described, in the form and of the type that is described.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// What a run came to.
#[derive(Debug)]
pub struct Findings {
    /// Whether every answer was as described, and none a server error.
    pub clean: bool,
    /// All that was printed.
    pub report: String,
}

/// Tries every operation of the document at `url` with so many made-up requests each. The same seed makes up the same ones.
///
/// # Errors
/// When schemathesis can't be installed or run.
pub async fn run(url: &str, requests_each: u32, seed: u32) -> Result<Findings> {
    let site = installed().await?;
    let (requests, seed) = (requests_each.to_string(), seed.to_string());
    let base = url.strip_suffix("/openapi.json").with_context(|| format!("{url} is no OpenAPI document"))?;
    let arguments = [
        "run",
        url,
        "--url",
        base,
        "--phases",
        "examples,coverage,fuzzing",
        "--checks",
        CHECKS,
        "--max-examples",
        &requests,
        "--seed",
        &seed,
        "--workers",
        "1",
        "--continue-on-failure",
        "--no-shrink",
        "--suppress-health-check",
        "all",
        "--warnings",
        "off",
    ];
    let mut command = Command::new(site.join("bin/schemathesis"));
    let modules = std::env::join_paths([site.as_path(), &Path::new(ROOT).join(".ci")])?;
    command
        .args(arguments)
        .env("PYTHONPATH", modules)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SCHEMATHESIS_HOOKS", HOOKS);
    let output = finished(command.current_dir(std::env::temp_dir()), RUN_MAX).await?;
    let report = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // 1: it found something; anything else is its own trouble
    ensure!(matches!(output.status.code(), Some(0 | 1)), "schemathesis failed with {}: {report}", output.status);
    ensure!(report.contains("Operations:"), "schemathesis tried nothing: {report}");
    Ok(Findings { clean: output.status.success(), report })
}

/// The folder of the pinned versions.
async fn installed() -> Result<PathBuf> {
    let requirements = std::fs::read(Path::new(ROOT).join(REQUIREMENTS)).context(REQUIREMENTS)?;
    let name = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &requirements).simple().to_string();
    let site = std::path::absolute(Path::new(ROOT).join(".cache/tools").join(format!("schemathesis-{}", &name[..12])))?;
    if site.join("bin/schemathesis").is_file() {
        return Ok(site);
    }
    // Beside it first, so that what was cut off is never taken for the whole.
    let fresh = site.with_extension(uuid::Uuid::new_v4().simple().to_string());
    let mut command = Command::new("python3");
    let arguments =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement", REQUIREMENTS];
    command.args(arguments).arg("--target").arg(&fresh).current_dir(ROOT);
    let output = finished(&mut command, INSTALL_MAX).await?;
    ensure!(
        output.status.success(),
        "pip can't install what {REQUIREMENTS} lists: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    match std::fs::rename(&fresh, &site) {
        Err(_) if site.join("bin/schemathesis").is_file() => std::fs::remove_dir_all(&fresh)?,
        result => result?,
    }
    Ok(site)
}

async fn finished(command: &mut Command, limit: Duration) -> Result<Output> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    tokio::time::timeout(limit, output)
        .await
        .with_context(|| format!("not within {limit:?}"))?
        .context("can't be started")
}
