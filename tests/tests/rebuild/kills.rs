//! The job and the host are killed in the middle of rebuilds.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use tests::{
    ALONE, binary, eventually,
    processes::{Process, log, projector_ready},
    shop::Shop,
    tools,
};

use crate::{live, settle, status};

/// Moments after the begin of a rebuild at which the job, and a little later the host, is killed.
const MOMENTS_MS: [u64; 3] = [300, 900, 1_600];

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_rebuild_goes_on_after_its_job_and_its_host_were_killed() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    shop.place().await?;
    for (number, ms) in MOMENTS_MS.into_iter().enumerate() {
        let read_model = ["customer_order_history", "order_summary"][number % 2];
        settle(read_model).await?;
        let before = live(read_model).await?;
        let load = tools::load(150, 60, 80 + ms)?;
        let mut job = tokio::process::Command::new(binary("projector"))
            .args(["rebuild", "start", read_model])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        job.kill().await?;
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
        .await?;
        // killed before there was a rebuild, or done by the host
        ensure!(after == before || after == before + 1, "{before} → {after}");
        eprintln!("{read_model} killed after {ms} ms: generation {before} → {after}");
        load.await?.context("the load")?;
        tools::audit_agrees(60).await?;
        settle(read_model).await?;
    }
    Ok(())
}
