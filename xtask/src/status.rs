//! What runs, and what it logged.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use serde::Serialize;

use crate::process;
use crate::services::SERVICES;
use crate::settings::Instance;
use crate::stack;

#[derive(Serialize)]
struct Line {
    name: &'static str,
    kind: &'static str,
    state: &'static str,
    port: u16,
    pid: Option<u32>,
    memory_bytes: Option<u64>,
    log: PathBuf,
}

fn lines(instance: &Instance) -> Vec<Line> {
    let components = stack::components(instance).into_iter().map(|c| (c, "component"));
    let services = SERVICES.iter().map(|s| (s, "service"));
    components
        .chain(services)
        .map(|(part, kind)| {
            let pid = process::alive(instance, part.name);
            let recorded = instance.pid_file(part.name).exists();
            Line {
                name: part.name,
                kind,
                state: match (pid, recorded) {
                    (Some(_), _) => "running",
                    (None, true) => "died",
                    (None, false) => "stopped",
                },
                port: instance.port(part.ports[0]),
                pid,
                memory_bytes: pid.and_then(process::memory_bytes),
                log: instance.log(part.name),
            }
        })
        .collect()
}

/// Prints one line a component and service, as a table or as JSON.
pub(crate) fn print(instance: &Instance, json: bool) -> anyhow::Result<()> {
    let lines = lines(instance);
    if json {
        let report = serde_json::json!({ "instance": instance.name(), "parts": lines });
        return emit(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    let mut table = format!("{:<16} {:<8} {:>6} {:>8} {:>9}  log\n", "name", "state", "port", "pid", "memory");
    for line in &lines {
        let pid = line.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let log = line.log.strip_prefix(instance.root()).unwrap_or(&line.log).display();
        let memory = mebibytes(line.memory_bytes);
        writeln!(table, "{:<16} {:<8} {:>6} {pid:>8} {memory:>9}  {log}", line.name, line.state, line.port)?;
    }
    let total = lines.iter().filter_map(|line| line.memory_bytes).sum();
    writeln!(table, "{:<16} {:<8} {:>6} {:>8} {:>9}", "total", "", "", "", mebibytes(Some(total)))?;
    emit(&table)
}

/// Prints; a reader that has seen enough, such as `head`, is no error.
fn emit(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes / (1024 * 1024)))
}

/// Prints the end of one log, or of all; follows them if asked.
pub(crate) fn logs(instance: &Instance, name: Option<&str>, count: usize, follow: bool) -> anyhow::Result<()> {
    let folder = instance.dir().join("log");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).map(|all| all.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    paths.sort();
    if let Some(name) = name {
        let known: Vec<String> =
            paths.iter().filter_map(|p| p.file_stem()).map(|s| s.to_string_lossy().into_owned()).collect();
        paths.retain(|path| path.file_stem().is_some_and(|stem| stem == name));
        if paths.is_empty() {
            bail!("no log of {name:?} in {}; there are: {}", folder.display(), known.join(", "));
        }
    }
    let mut ends = Vec::new();
    for path in &paths {
        ends.push(std::fs::metadata(path)?.len());
        if paths.len() > 1 {
            emit(&format!("==> {} <==\n", path.display()))?;
        }
        emit(&format!("{}\n", process::tail(path, count)))?;
    }
    if follow {
        follow_all(&paths, &mut ends)?;
    }
    Ok(())
}

/// Prints what is added to the logs, until it is interrupted.
fn follow_all(paths: &[PathBuf], ends: &mut [u64]) -> anyhow::Result<()> {
    loop {
        std::thread::sleep(Duration::from_millis(300));
        for (path, end) in paths.iter().zip(ends.iter_mut()) {
            let mut file = std::fs::File::open(path)?;
            file.seek(SeekFrom::Start(*end))?;
            let mut added = Vec::new();
            *end += file.read_to_end(&mut added)? as u64;
            std::io::stdout().write_all(&added)?;
        }
    }
}
