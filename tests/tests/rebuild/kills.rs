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
/// A rebuild is over by then.
const LATEST_MS: u64 = 5_000;

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
    let (mut done, mut never_begun) = (0, 0);
    for kill in 1..=number("REBUILD_KILLS").unwrap_or(KILLS) {
        let read_model = READ_MODELS[usize::try_from(dice.below(READ_MODELS.len() as u64))?];
        let (ms, job_too) = (200 + dice.below(LATEST_MS - 200), dice.below(4) > 0);
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
        tokio::time::sleep(Duration::from_millis(ms)).await;
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
        // killed before there was a rebuild, or done by whoever was left
        ensure!(after == before || after == before + 1, "{before} → {after}");
        *(if after > before { &mut done } else { &mut never_begun }) += 1;
        let who = if job_too { "job and host" } else { "host" };
        eprintln!("{read_model}: {who} killed after {ms} ms: generation {before} → {after}");
        load.await?.context("the load")?;
        tools::audit_agrees(60).await?;
        settle(read_model).await?;
    }
    eprintln!("{done} live and exact, {never_begun} killed before they had begun");
    Ok(())
}
