//! Processes die, stores fall silent and events are garbled in the middle of a load; nothing is lost, nothing doubled, and
//! the dead letters are the garbled events alone.
//!
//! The short form runs with all other tests; the long form, `./dev test faults`, takes every fault in turn.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod drills;
mod group;
mod long_form;
mod poison;
mod short_form;
mod steps;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    processes::{Process, log},
    tools,
};

/// Orders to be sent, and the commands a second.
#[derive(Clone, Copy)]
struct Load {
    orders: u32,
    rate: u32,
    seed: u64,
}

impl Load {
    /// Sends the orders, and meanwhile does what `fault` does; whatever comes of the commands.
    async fn with<T>(self, fault: impl Future<Output = Result<T>>) -> Result<(T, Value)> {
        let load = tools::load(self.orders, self.rate, self.seed)?;
        let done = fault.await?;
        // some three commands an order, and as long again for a slow machine
        let limit = Duration::from_secs(u64::from(self.orders * 6 / self.rate) + 120);
        let report = tokio::time::timeout(limit, load)
            .await
            .with_context(|| format!("the load: not within {limit:?}, see {}", log("command-api")))???;
        Ok((done, report))
    }

    /// As [`Self::with`]; no command may notice what happens behind Postgres.
    async fn unharmed<T>(self, fault: impl Future<Output = Result<T>>) -> Result<T> {
        let (done, report) = self.with(fault).await?;
        let none = |field: &str| report[field].as_object().is_some_and(serde_json::Map::is_empty);
        ensure!(none("errors") && none("refused"), "commands suffered, see {}: {report}", log("command-api"));
        Ok(done)
    }
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// SIGKILL, and a start `ms` later.
async fn kill_and_start(name: &str, ms: u64) -> Result<()> {
    let process = Process::running(name)?;
    process.kill().await?;
    pause(ms).await;
    process.start(&[])
}
