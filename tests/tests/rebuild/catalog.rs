//! What hosts and query services take up, hold still and let go of without a restart.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{ALONE, eventually, processes::log, shop::Shop, tools};

use crate::{LIMIT, Projections, live, rebuild, settle, status};

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_new_read_model_is_taken_up_and_given_up_without_a_restart() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let order = shop.place().await?;
    let more = Projections::with("order_summary.yaml", "name: order_summary", "name: order_copy")?;
    let file = format!("{}/order_summary.yaml", more.path());
    let text = std::fs::read_to_string(&file)?;
    let text = text
        .replace("prefix: \"order:\"", "prefix: \"copy:\"\n    database: 8")
        .replace("/orders/{id}", "/copies/{id}");
    std::fs::write(&file, text)?;
    tools::run("projector", &["apply", &file]).await?;
    let path = format!("/copies/{}", order.order_id);
    let what = format!("{path} answered, see {} and {}", log("projector-run"), log("projector-serve"));
    let copy = eventually(&what, LIMIT, || async { Ok(Some(shop.get(&path, &[]).await?)) }).await?;
    assert_eq!(copy["order_id"], order.order_id.as_str());

    // the folder of the reference projections doesn't declare it
    let kept = tools::output("projector", &["apply"], LIMIT).await?;
    ensure!(String::from_utf8_lossy(&kept.stdout).contains("order_copy: no file declares it"), "{kept:?}");
    ensure!(shop.get_raw(&path, &[]).await?.status().is_success(), "given up unasked");
    tools::run("projector", &["apply", "--prune", "--reason", "only a copy"]).await?;
    eventually("the copy given up", LIMIT, || async {
        Ok((shop.get_raw(&path, &[]).await?.status().as_u16() == 404).then_some(()))
    })
    .await?;
    settle("order_copy").await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_rebuild_is_held_back_paused_and_aborted() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    for _ in 0..40 {
        let order = shop.place().await?;
        shop.pay(&order.order_id).await?;
    }
    tools::audit_agrees(60).await?;
    settle("order_summary").await?;
    let before = live("order_summary").await?;
    let done = async || -> Result<i64> {
        let status = status().await?;
        let rebuild = status["rebuilds"].get(0).with_context(|| format!("nothing is under way: {status}"))?;
        rebuild["events_done"].as_i64().context("no events")
    };
    rebuild(&["start", "order_summary", "--detach", "--throttle", "10"]).await?;
    eventually("the replay begins", LIMIT, || async { Ok((done().await? > 0).then_some(())) }).await?;
    rebuild(&["pause", "order_summary", "--reason", "busy"]).await?;
    // what was under way comes to its end
    tokio::time::sleep(Duration::from_secs(2)).await;
    let paused = done().await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(done().await?, paused, "it goes on");
    let status = status().await?;
    assert_eq!(status["rebuilds"][0]["paused_why"], "busy", "{status}");
    ensure!(status["rebuilds"][0]["events_total"].as_i64() > Some(paused), "the throttle held nothing back: {status}");
    rebuild(&["resume", "order_summary"]).await?;
    eventually("it goes on", LIMIT, || async { Ok((done().await? > paused).then_some(())) }).await?;
    rebuild(&["abort", "order_summary", "--reason", "enough"]).await?;
    settle("order_summary").await?;
    assert_eq!(live("order_summary").await?, before);
    let log = tools::json("projector", &["rebuild", "status", "order_summary", "--output", "json"], LIMIT).await?;
    let did = |what: &str| {
        let lines: &[Value] = log["log"].as_array().map(Vec::as_slice).unwrap_or_default();
        lines.iter().find(|line| line["what"] == what).map(|line| line["why"].clone())
    };
    assert_eq!((did("paused"), did("abandoned")), (Some("busy".into()), Some("enough".into())), "{log}");
    tools::audit_agrees(30).await
}
