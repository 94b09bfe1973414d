//! What a throttled rebuild costs those who write, and readers of what they wrote. By hand, on a quiet machine:
//! `./dev test --workspace --test rebuild -- long_form --nocapture`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{ALONE, shop::Shop, tools};

use crate::{LIMIT, live, rebuild, settle};

/// Orders a second, and for how long each time.
const RATE: u32 = 40;
const ORDERS: u32 = RATE * 30;
/// What p99 may become of what it was.
const WRITES_MAX: f64 = 1.3;
const LAG_P99_MS: f64 = 500.0;

async fn p99_of(load: tokio::task::JoinHandle<Result<Value>>) -> Result<f64> {
    let report = tokio::time::timeout(LIMIT, load).await.context("the load")???;
    report["service_ms"]["p99"].as_f64().with_context(|| format!("no p99: {report}"))
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn long_form_writes_stay_quick_while_one_rebuilds() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    shop.place().await?;
    // A history that takes a while at this pace, and caches that are warm.
    tools::load(2_000, 100, 90)?.await??;
    tools::audit_agrees(60).await?;
    settle("customer_order_history").await?;
    let before = p99_of(tools::load(ORDERS, RATE, 91)?).await?;
    let generation = live("customer_order_history").await?;
    let load = tools::load(ORDERS, RATE, 92)?;
    rebuild(&["start", "customer_order_history", "--throttle", "500"]).await?;
    let during = p99_of(load).await?;
    ensure!(live("customer_order_history").await? > generation);
    let status = tools::json("projector", &["status", "--output", "json"], LIMIT).await?;
    let lags: Vec<(String, f64)> = status["read_models"]
        .as_array()
        .context("no read models")?
        .iter()
        .filter_map(|m| Some((m["name"].as_str()?.to_owned(), m["lag_ms"]["p99"].as_f64()?)))
        .collect();
    eprintln!("writes: p99 {before:.1} ms before, {during:.1} ms while one rebuilds; lag p99 in ms: {lags:?}");
    ensure!(during <= before * WRITES_MAX, "writes' p99 became {during:.1} ms of {before:.1} ms");
    let late: Vec<_> = lags.iter().filter(|(_, p99)| *p99 > LAG_P99_MS).collect();
    ensure!(late.is_empty(), "live read models lag: {late:?}");
    settle("customer_order_history").await
}
