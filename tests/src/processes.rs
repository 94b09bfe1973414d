//! The instance's processes: killed without warning, held still, started again as they were. Only pids that the instance
//! has noted are ever signalled.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{eventually, var};

/// How a process was started: enough to start it again.
#[derive(Debug, Clone)]
pub struct Process {
    name: String,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    folder: PathBuf,
    /// How much it makes way for others.
    nice: String,
}

impl Process {
    /// Reads how the running process of a component or service was started (`projector-run`, `connect`, …).
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn running(name: &str) -> Result<Self> {
        let pid = alive(name)?.with_context(|| format!("{name} does not run"))?;
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let words = |file: &str| -> Result<Vec<OsString>> {
            let bytes = fs::read(proc.join(file)).with_context(|| format!("can't read /proc/{pid}/{file}"))?;
            let bytes = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
            Ok(bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect())
        };
        let environment = words("environ")?
            .into_iter()
            .filter_map(|pair| {
                let pair = pair.into_vec();
                let at = pair.iter().position(|byte| *byte == b'=')?;
                Some((OsString::from_vec(pair[..at].to_vec()), OsString::from_vec(pair[at + 1..].to_vec())))
            })
            .collect();
        Ok(Self {
            name: name.to_owned(),
            arguments: words("cmdline")?,
            environment,
            folder: fs::read_link(proc.join("cwd"))?,
            nice: stat(pid, NICE).with_context(|| format!("{name} has ended"))?,
        })
    }

    /// Another one that is to be started in the same way.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    /// SIGKILL if it runs, without waiting; and nothing notes it any more.
    pub fn kill_and_forget(&self) {
        let target = alive(&self.name).ok().flatten().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(target) = target {
            let _ = kill_process(target, Signal::KILL);
        }
        if let Ok(file) = pid_file(&self.name) {
            let _ = fs::remove_file(file.with_extension("start"));
            let _ = fs::remove_file(file);
        }
    }

    /// SIGKILL, then waits until it is gone.
    ///
    /// # Errors
    /// When it survives.
    pub async fn kill(&self) -> Result<()> {
        self.end(Signal::KILL).await
    }

    /// SIGTERM, then waits until it is gone.
    ///
    /// # Errors
    /// When it doesn't end within 20 s.
    pub async fn terminate(&self) -> Result<()> {
        self.end(Signal::TERM).await
    }

    /// SIGINT, then waits until it is gone: how Postgres is told not to wait for its clients.
    ///
    /// # Errors
    /// When it doesn't end within 20 s.
    pub async fn interrupt(&self) -> Result<()> {
        self.end(Signal::INT).await
    }

    /// SIGQUIT, then waits until it is gone: how Postgres is made to stop at once, as if the power had failed.
    ///
    /// # Errors
    /// When it doesn't end within 20 s.
    pub async fn quit(&self) -> Result<()> {
        self.end(Signal::QUIT).await
    }

    /// SIGSTOP: its connections stay open and nobody answers, until what is returned is dropped.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn hold(&self) -> Result<Held> {
        let pid = alive(&self.name)?.with_context(|| format!("{} does not run", self.name))?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no pid")?;
        kill_process(pid, Signal::STOP)?;
        Ok(Held(pid))
    }

    /// The most memory that it ever had resident, in bytes.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn peak_memory_bytes(&self) -> Result<u64> {
        let pid = alive(&self.name)?.with_context(|| format!("{} does not run", self.name))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
    }

    async fn end(&self, signal: Signal) -> Result<()> {
        let Some(pid) = alive(&self.name)? else { return Ok(()) };
        let target = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no pid")?;
        kill_process(target, signal)?;
        let what = format!("{} gone after {signal:?}", self.name);
        let gone = eventually(&what, Duration::from_secs(20), || async { Ok(is_gone(pid).then_some(())) }).await;
        gone.with_context(|| format!("the end of {}:\n{}", log(&self.name), last_lines(&self.name)))
    }

    /// Starts it again with some variables more, and notes its pid where `./dev` looks for it.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&self, more: &[(&str, &str)]) -> Result<()> {
        let run = run_folder()?;
        let log = File::options().create(true).append(true).open(run.join(format!("log/{}.log", self.name)))?;
        // a session of its own, as ./dev does it: it must outlive this test
        let mut child = Command::new("setsid")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/native/make-way"))
            .arg(&self.nice)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .envs(more.iter().copied())
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start {}", self.name))?;
        let pid = child.id();
        // waited for, or it would stay as a zombie when it is killed
        std::thread::spawn(move || child.wait());
        let file = pid_file(&self.name)?;
        let ticks = start_ticks(pid).map(|ticks| ticks.to_string()).unwrap_or_default();
        fs::write(file.with_extension("start"), ticks)?;
        fs::write(file, pid.to_string())?;
        Ok(())
    }
}

/// A process that is held still.
#[must_use = "goes on when this is dropped"]
pub struct Held(Pid);

impl Drop for Held {
    fn drop(&mut self) {
        // it can't have gone to another process: what is stopped doesn't end by itself
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Where a component or service logs, for messages.
#[must_use]
pub fn log(name: &str) -> String {
    run_folder()
        .map_or_else(|_| format!("log of {name}"), |run| run.join(format!("log/{name}.log")).display().to_string())
}

/// What it logged last: a failed test is read where its log is gone.
fn last_lines(name: &str) -> String {
    let text = fs::read(log(name)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(8 << 10)..]).into_owned();
    let from = text.lines().count().saturating_sub(30);
    text.lines().skip(from).collect::<Vec<_>>().join("\n")
}

/// Waits until `projector run` answers that it is ready.
///
/// # Errors
/// When it isn't within a minute.
pub async fn projector_ready() -> Result<()> {
    ready("PROJECTOR_ADMIN_URL", "projector-run").await
}

/// Waits until command-api answers that it is ready.
///
/// # Errors
/// When it isn't within a minute.
pub async fn command_api_ready() -> Result<()> {
    ready("COMMAND_API_URL", "command-api").await
}

async fn ready(variable: &str, service: &str) -> Result<()> {
    let url = format!("{}/health/ready", var(variable)?);
    let what = format!("{service} ready, see {}", log(service));
    eventually(&what, Duration::from_secs(60), || async {
        Ok(reqwest::get(&url).await?.status().is_success().then_some(()))
    })
    .await
}

/// Waits until every connector and each of its tasks is RUNNING.
///
/// # Errors
/// When they aren't within two minutes.
pub async fn connector_running() -> Result<()> {
    let url = format!("{}/connectors?expand=status", var("CONNECT_URL")?);
    let what = format!("connector running, see {}", log("connect"));
    eventually(&what, Duration::from_secs(120), || async {
        let all: Value = reqwest::get(&url).await?.error_for_status()?.json().await?;
        let connectors = all.as_object().context("not a map")?;
        let running = |state: &Value| state["state"] == "RUNNING";
        let ready = !connectors.is_empty()
            && connectors.values().all(|connector| {
                let status = &connector["status"];
                let tasks = status["tasks"].as_array().cloned().unwrap_or_default();
                running(&status["connector"]) && !tasks.is_empty() && tasks.iter().all(running)
            });
        Ok(ready.then_some(()))
    })
    .await
}

fn run_folder() -> Result<PathBuf> {
    var("DEV_RUN_DIR").map(PathBuf::from)
}

fn pid_file(name: &str) -> Result<PathBuf> {
    Ok(run_folder()?.join("pid").join(name))
}

/// Whether nothing of a process is left but, at most, a zombie: a zombie's other threads may still hold its ports.
fn is_gone(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    start_ticks(pid).is_none() && threads <= 1
}

/// The pid of a running process; a zombie is dead, and so is a pid that went to another process since.
fn alive(name: &str) -> Result<Option<u32>> {
    let file = pid_file(name)?;
    let read = |path: &Path| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let Some(pid) = read(&file).and_then(|pid| u32::try_from(pid).ok()) else {
        return Ok(None);
    };
    let started = read(&file.with_extension("start"));
    Ok(match (start_ticks(pid), started) {
        (Some(now), Some(then)) => (now == then).then_some(pid),
        (Some(_), None) => Some(pid),
        (None, _) => None,
    })
}

/// How nice it is, by its place in [`stat`].
const NICE: usize = 16;
/// When it started.
const START: usize = 19;

/// Clock ticks from boot to the start of a process; `None` when it is gone or a zombie.
fn start_ticks(pid: u32) -> Option<u64> {
    stat(pid, START)?.parse().ok()
}

/// What the kernel says of a process, by its place behind the command's name; `None` when it is gone or a zombie.
fn stat(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(field).map(|field| (*field).to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_one_that_ended_is_not() {
        assert!(start_ticks(std::process::id()).is_some());
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(start_ticks(pid), None);
    }
}
