//! What processes and the machine take, as the kernel counts it: CPU time and memory, and what strangers took meanwhile, by
//! which a reader sees whether a figure is of a quiet machine.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Instant;
use xtask::usage::TICKS_A_SECOND;
pub(crate) use xtask::usage::cpu_s;

/// Of a span of time.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// How long it was.
    pub(crate) wall_s: f64,
    /// CPU seconds of the store.
    pub(crate) store_cpu_s: f64,
    /// CPU seconds of Kafka.
    pub(crate) kafka_cpu_s: f64,
    /// CPU seconds of processes that have nothing to do with it.
    pub(crate) strangers_cpu_s: f64,
}

/// Counts from its start.
pub(crate) struct Meter {
    began: Instant,
    store: &'static str,
    before: Usage,
}

impl Meter {
    /// `store`: the component that is written to.
    pub(crate) fn start(store: &'static str) -> Self {
        Self { began: Instant::now(), store, before: now(store) }
    }

    pub(crate) fn read(&self) -> Usage {
        let now = now(self.store);
        Usage {
            wall_s: self.began.elapsed().as_secs_f64(),
            store_cpu_s: now.store_cpu_s - self.before.store_cpu_s,
            kafka_cpu_s: now.kafka_cpu_s - self.before.kafka_cpu_s,
            // A process that ended took its count along; below zero it says nothing.
            strangers_cpu_s: (now.strangers_cpu_s - self.before.strangers_cpu_s).max(0.0),
        }
    }
}

fn now(store: &str) -> Usage {
    let components: f64 = components().iter().map(|(_, pid)| cpu_s(*pid)).sum();
    let of = |name: &str| components_named(name).map_or(0.0, cpu_s);
    Usage {
        wall_s: 0.0,
        store_cpu_s: of(store),
        kafka_cpu_s: of("kafka"),
        strangers_cpu_s: machine_cpu_s() - components - cpu_s(std::process::id()),
    }
}

/// The instance's processes, as it noted them.
fn components() -> Vec<(String, u32)> {
    let folder = PathBuf::from(std::env::var_os("DEV_RUN_DIR").unwrap_or_default()).join("pid");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let pid = |file: std::fs::DirEntry| {
        let pid = std::fs::read_to_string(file.path()).ok()?.trim().parse().ok()?;
        Some((file.file_name().to_str()?.to_owned(), pid))
    };
    files.filter(|file| file.path().extension().is_none_or(|end| end != "start")).filter_map(pid).collect()
}

fn components_named(name: &str) -> Option<u32> {
    components().into_iter().find(|(known, _)| known == name).map(|(_, pid)| pid)
}

/// CPU seconds of all that ran on this machine.
fn machine_cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let fields: Vec<f64> = fields.filter_map(|text| text.parse().ok()).collect();
    // user, nice, system, then idle and iowait, then interrupts, soft ones, what a hypervisor took
    let busy = fields.iter().enumerate().filter(|(i, _)| !matches!(i, 3 | 4 | 8..));
    busy.map(|(_, ticks)| ticks).sum::<f64>() / TICKS_A_SECOND
}

/// The most memory that a process ever had, in MB.
pub(crate) fn memory_peak_mb(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? / 1_024)
}

/// The peak counts from here.
pub(crate) fn reset_memory_peak(pid: u32) {
    // Where the system doesn't let us, it is that of the whole process.
    _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}
