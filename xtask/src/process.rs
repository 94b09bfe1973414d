//! Processes that outlive xtask: started in a session of their own, known by pid files, stopped by pid.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::settings::Instance;

/// Starts a program of a session as nice as it is told.
const MAKE_WAY: &str = "compose/native/make-way";

/// How nice a process is: on a few cores that all share, who waits for a commit or an answer comes before what follows behind.
/// Without this, 200 commands a second on two cores end in time-outs (docs/write-side.md).
fn makes_way(instance: &Instance, name: &str) -> u8 {
    match name {
        _ if !instance.has_answers_first() => 0,
        "kafka" | "connect" | "registry" | "projector-run" | "search" | "elasticsearch7" | "clickhouse" => 6,
        _ => 0,
    }
}

/// Starts `program` in a new session, its output appended to the log, and writes its pid file.
pub(crate) fn spawn(
    instance: &Instance,
    name: &str,
    program: &Path,
    arguments: &[String],
    env: &BTreeMap<String, String>,
) -> anyhow::Result<u32> {
    for folder in ["log", "pid"] {
        create_dir(&instance.dir().join(folder))?;
    }
    let log = File::options().create(true).append(true).open(instance.log(name))?;
    // `setsid` needs no fork here, since a child of ours leads no process group: the pid stays the program's.
    let mut child = Command::new("setsid")
        .arg(instance.root().join(MAKE_WAY))
        .arg(makes_way(instance, name).to_string())
        .arg(program)
        .args(arguments)
        .envs(env)
        .current_dir(instance.root())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {name} ({})", program.display()))?;
    let pid = child.id();
    // Reaped here, so that a process that dies while xtask lives leaves no zombie behind.
    std::thread::spawn(move || child.wait());
    let started = start_time(pid).map(|ticks| ticks.to_string()).unwrap_or_default();
    fs::write(instance.pid_file(name).with_extension("start"), started)?;
    fs::write(instance.pid_file(name), pid.to_string())?;
    Ok(pid)
}

/// The pid of a component or service, if it runs. A zombie is dead, and so is a pid that another process got since.
pub(crate) fn alive(instance: &Instance, name: &str) -> Option<u32> {
    let file = instance.pid_file(name);
    let pid = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
    let now = start_time(pid)?;
    match fs::read_to_string(file.with_extension("start")).ok().and_then(|text| text.trim().parse::<u64>().ok()) {
        Some(then) if then != now => None,
        _ => Some(pid),
    }
}

/// Clock ticks between boot and the start of a process; `None` if it is gone or a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command may hold blanks and brackets: count the fields after the last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Whether a process has ended without being reaped.
pub(crate) fn zombie(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists() && start_time(pid).is_none()
}

/// Creates a directory and its parents; an error names it.
pub(crate) fn create_dir(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("creating directory {}", path.display()))
}

/// Held while something of an instance must not happen twice at a time; it lives beside the instance's directory, so
/// that a reset keeps it.
pub(crate) fn lock(instance: &Instance, what: &str) -> anyhow::Result<File> {
    let folder = instance.root().join("run");
    create_dir(&folder)?;
    let path = folder.join(format!("{}.{what}.lock", instance.name()));
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    file.try_lock().with_context(|| format!("another ./dev is busy with {what} of instance `{}`", instance.name()))?;
    Ok(file)
}

/// Resident memory of a process in bytes.
pub(crate) fn memory_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Sends `signal`, waits, then kills by pid. Returns whether it ran at all.
pub(crate) async fn stop(instance: &Instance, name: &str, signal: Signal, limit: Duration) -> anyhow::Result<bool> {
    let Some(pid) = alive(instance, name) else {
        forget(instance, name);
        return Ok(false);
    };
    send(pid, signal)?;
    let mut deadline = Instant::now() + limit;
    let mut killed = false;
    while alive(instance, name).is_some() {
        if Instant::now() >= deadline {
            if killed {
                bail!("{name} (pid {pid}) survives SIGKILL");
            }
            send(pid, Signal::KILL)?;
            killed = true;
            deadline = Instant::now() + Duration::from_secs(10);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    forget(instance, name);
    Ok(true)
}

fn send(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).with_context(|| format!("{pid} is no pid"))?;
    match kill_process(target, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("signalling pid {pid}")),
    }
}

fn forget(instance: &Instance, name: &str) {
    let file = instance.pid_file(name);
    for path in [file.with_extension("start"), file] {
        let _ = fs::remove_file(path);
    }
}

/// The last lines of a log, at most 64 KiB of it.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(64 * 1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Runs a command to its end with its output in a log; a failure carries the log's tail.
pub(crate) async fn run_logged(
    instance: &Instance,
    name: &str,
    program: &Path,
    arguments: &[&str],
    env: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    create_dir(&instance.dir().join("log"))?;
    let path = instance.log(name);
    let log = File::create(&path)?;
    let status = tokio::process::Command::new(program)
        .args(arguments)
        .envs(env)
        .current_dir(instance.root())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("running {}", program.display()))?;
    if !status.success() {
        bail!("{name} failed ({status}); its log, {}, ends:\n{}", path.display(), tail(&path, 20));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn own_process_has_a_start_time_and_memory() {
        assert!(start_time(std::process::id()).is_some());
        assert!(memory_bytes(std::process::id()).unwrap() > 100_000);
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        let deadline = Instant::now() + Duration::from_secs(10);
        while start_time(pid).is_some() {
            assert!(Instant::now() < deadline, "an exited child that nobody waited for counts as alive");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(Path::new(&format!("/proc/{pid}/stat")).exists(), "still a zombie, not yet reaped");
        assert!(zombie(pid));
        child.wait().unwrap();
        assert!(!zombie(pid));
    }

    #[test]
    fn a_process_is_as_nice_as_it_is_said_to_be() {
        let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(MAKE_WAY);
        let said = Command::new("setsid").arg(script).args(["7", "nice"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "7", "{said:?}");
    }

    #[test]
    fn tail_of_a_missing_log_is_empty() {
        assert_eq!(tail(Path::new("/nonexistent/log"), 3), "");
    }
}
