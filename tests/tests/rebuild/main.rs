//! Read models are rebuilt, swapped, rolled back and forward again while commands and reads go on: no reader sees an error, a
//! gap or an older state, and whatever is killed meanwhile, it ends live and exact, or cleanly aborted.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod catalog;
mod kills;
mod latency;
mod past;
mod probes;
mod readers;
mod repairs;
mod swaps;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{eventually, processes::log, tools};
use uuid::Uuid;

/// All of them, in the order in which they are rebuilt.
const READ_MODELS: [&str; 12] = [
    "order_summary",
    "order_details",
    "order_list_view",
    "customer_order_history",
    "order_search",
    "product_search",
    "product_stats",
    "daily_revenue",
    "dashboard",
    "account_balance",
    "account_transactions",
    "account_statement",
];
const LIMIT: Duration = Duration::from_secs(90);

/// A folder of projections that differ from the reference ones.
struct Projections(PathBuf);

impl Projections {
    /// The reference projections, with one text of one of them replaced.
    fn with(file: &str, from: &str, to: &str) -> Result<Self> {
        let source = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../projections"));
        let folder = std::env::temp_dir().join(format!("projections-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder)?;
        for entry in std::fs::read_dir(&source)? {
            let path = entry?.path();
            let mut text = std::fs::read_to_string(&path)?;
            let name = path.file_name().context("a file without a name")?.to_string_lossy().into_owned();
            if name == file {
                ensure!(text.contains(from), "{file} doesn't say `{from}`");
                text = text.replace(from, to);
            }
            std::fs::write(folder.join(name), text)?;
        }
        Ok(Self(folder))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl Drop for Projections {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `projector rebuild …`, which must succeed.
async fn rebuild(arguments: &[&str]) -> Result<()> {
    let all: Vec<&str> = ["rebuild"].iter().chain(arguments).copied().collect();
    tools::run("projector", &all).await.with_context(|| format!("see {}", log("projector-run")))
}

async fn status() -> Result<Value> {
    tools::json("projector", &["rebuild", "status", "--output", "json"], LIMIT).await
}

/// The live generation of a read model.
async fn live(read_model: &str) -> Result<i64> {
    let status = status().await?;
    let all = status["generations"].as_array().context("no generations")?;
    let is = |g: &&Value| g["read_model"] == read_model && g["state"] == "live";
    all.iter()
        .find(is)
        .and_then(|g| g["generation"].as_i64())
        .with_context(|| format!("{read_model} isn't live: {status}"))
}

/// Ends what a failed test left under way, gives up what is kept for a way back, and waits until that is gone.
async fn settle(read_model: &str) -> Result<()> {
    let kept = |status: &Value, state: &str| {
        let all = status["generations"].as_array().cloned().unwrap_or_default();
        all.iter().any(|g| g["read_model"] == read_model && g["state"] == state)
    };
    let before = status().await?;
    if before["rebuilds"].as_array().is_some_and(|all| all.iter().any(|r| r["read_model"] == read_model)) {
        rebuild(&["abort", read_model]).await?;
    }
    if kept(&before, "retired") {
        rebuild(&["retire", read_model]).await?;
    }
    eventually(
        &format!("only the live generation of {read_model} is left, see {}", log("projector-run")),
        LIMIT,
        || async {
            let status = status().await?;
            let left = ["retired", "dropped", "abandoned"].iter().any(|state| kept(&status, state));
            Ok((!left).then_some(()))
        },
    )
    .await
}

/// [`settle`] for all of them at once.
async fn settle_all() -> Result<()> {
    futures::future::try_join_all(READ_MODELS.map(settle)).await.map(drop)
}
