//! Ten minutes of commands and queries: what our services hold in memory must not grow with what they did.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;
use tokio::process::Command;

use super::{OLDER_SEARCH, latency, reported, stop};
use crate::audit::{self, AuditArgs};
use crate::load::{self, LoadArgs};
use crate::settings::Instance;
use crate::{process, services};

/// Commands and as many queries a second, for so long.
const LOAD: LoadArgs =
    LoadArgs { rate: 100.0, time: Duration::from_secs(600), orders: None, reads_per_write: Some(1), seed: 31 };
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
const AUDIT: AuditArgs = AuditArgs { wait: 120, first: 10 };

/// Resident memory of one service.
#[derive(Serialize)]
struct Sample {
    at_s: f64,
    name: &'static str,
    memory_mb: u64,
}

#[derive(Serialize)]
struct Measured {
    report: load::Report,
    samples: Vec<Sample>,
}

/// Drives the load; `bench` takes what was seen into the report. All read models must be right in the end.
pub(super) async fn run(instance: &Instance, bench: Command) -> anyhow::Result<ExitCode> {
    services::up(instance).await?;
    stop(instance, &[OLDER_SEARCH]).await?;
    load::run(instance, &latency::WARM_UP).await?;
    latency::caught_up(instance).await?;
    let ready = load::prepare(instance, &LOAD).await?;
    let began = Instant::now();
    let mut samples = Vec::new();
    let mut turns = tokio::time::interval(SAMPLE_EVERY);
    let load = load::measure(instance, ready);
    tokio::pin!(load);
    let report = loop {
        tokio::select! {
            report = &mut load => break report?,
            _ = turns.tick() => samples.extend(look(instance, began)),
        }
    };
    eprintln!("{report}");
    let audit = audit::run(&instance.env(), &AUDIT).await?;
    ensure!(audit.agrees, "{audit}");
    services::down(instance).await?;
    reported(bench, &Measured { report, samples }).await
}

fn look(instance: &Instance, began: Instant) -> Vec<Sample> {
    let sample = |name| {
        let memory = process::memory_bytes(process::alive(instance, name)?)?;
        Some(Sample { at_s: began.elapsed().as_secs_f64(), name, memory_mb: memory >> 20 })
    };
    services::SERVICES.iter().filter_map(|service| sample(service.name)).collect()
}
