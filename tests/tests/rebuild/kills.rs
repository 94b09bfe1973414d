//! The job and the host are killed in the middle of rebuilds.
//!
//! `REBUILD_KILLS=30` does it at as many moments, chosen by chance (`REBUILD_SEED` chooses them again).

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use tests::{
    ALONE, binary, eventually,
    processes::{Process, log, projector_ready},
    shop::Shop,
    tools,
};

use crate::{READ_MODELS, live, settle, status};

/// Kills in every run.
const KILLS: u64 = 3;
/// From its beginning; some are over by then.
const LATEST_MS: u64 = 3_000;
/// Until a job has begun, on a busy machine.
const BEGINS_WITHIN: Duration = Duration::from_secs(30);

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_rebuild_goes_on_after_its_job_and_its_host_were_killed() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    shop.place().await?;
    let seed = number("REBUILD_SEED").unwrap_or(20);
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let (mut in_the_middle, mut over) = (0, 0);
    for kill in 1..=number("REBUILD_KILLS").unwrap_or(KILLS) {
        let read_model = READ_MODELS[usize::try_from(dice.below(READ_MODELS.len() as u64))?];
        let (ms, job_too) = (dice.below(LATEST_MS), dice.below(4) > 0);
        settle(read_model).await?;
        let before = live(read_model).await?;
        let load = tools::load(150, 60, 80 + kill)?;
        let mut job = tokio::process::Command::new(binary("projector"))
            .args(["rebuild", "start", read_model])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        eventually(&format!("the rebuild of {read_model} begins"), BEGINS_WITHIN, || async {
            Ok((under_way(read_model).await?.is_some() || live(read_model).await? > before).then_some(()))
        })
        .await?;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        let state = under_way(read_model).await?;
        if job_too {
            job.kill().await?;
        }
        let host = Process::running("projector-run")?;
        host.kill().await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        host.start(&[])?;
        projector_ready().await?;
        let what = format!("{read_model} rebuilt by a host, see {}", log("projector-run"));
        let after = eventually(&what, Duration::from_secs(60), || async {
            let status = status().await?;
            let none = status["rebuilds"].as_array().is_some_and(Vec::is_empty);
            ensure!(none, "{status}");
            Ok(Some(live(read_model).await?))
        })
        .await
        .with_context(|| format!("REBUILD_SEED={seed}, kill {kill}"))?;
        ensure!(after == before + 1, "REBUILD_SEED={seed}, kill {kill}: {before} → {after}, by whoever was left");
        *(if state.is_some() { &mut in_the_middle } else { &mut over }) += 1;
        let who = if job_too { "job and host" } else { "host" };
        let state = state.as_deref().unwrap_or("over");
        eprintln!("{read_model}: {who} killed {ms} ms after it had begun, {state}: generation {before} → {after}");
        load.await?.context("the load")?;
        tools::audit_agrees(60).await?;
        settle(read_model).await?;
    }
    eprintln!("all live and exact: {in_the_middle} killed in the middle, {over} when it was over");
    Ok(())
}

/// The state of a read model's rebuild, if one is under way.
async fn under_way(read_model: &str) -> Result<Option<String>> {
    let status = status().await?;
    let one = status["rebuilds"].as_array().and_then(|all| all.iter().find(|one| one["read_model"] == read_model));
    Ok(one.map(|one| one["state"].to_string()))
}
