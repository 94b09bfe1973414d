//! What a throttled rebuild costs those who write, and readers of what they wrote. By hand, on a quiet machine:
//! `./dev test --workspace --test rebuild -- long_form --nocapture`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{ALONE, shop::Shop, tools};

use crate::{LIMIT, live, rebuild, settle};

/// Commands a second, and orders whose commands, some three each, take about 30 s at that rate.
const RATE: u32 = 40;
const ORDERS: u32 = RATE * 30 / 3;
/// What p99 may become of what it was.
const WRITES_MAX: f64 = 1.3;
const LAG_P99_MS: f64 = 500.0;

/// So many pairs of loads, without a rebuild and beside one: a single p99 is as noisy as what is asked of it.
const PAIRS: u64 = 2;

/// Writes' p99, and that of each read model's lag, of this load alone.
async fn p99_of(load: tokio::task::JoinHandle<Result<Value>>) -> Result<(f64, Vec<(String, f64)>)> {
    let report = tokio::time::timeout(LIMIT, load).await.context("the load")???;
    let p99 = report["service_ms"]["p99"].as_f64().with_context(|| format!("no p99: {report}"))?;
    let lags = report["lag"].as_array().into_iter().flatten();
    let lags: Vec<_> = lags.filter_map(|m| Some((m["name"].as_str()?.to_owned(), m["lag"]["p99"].as_f64()?))).collect();
    ensure!(!lags.is_empty(), "no lag: {report}");
    Ok((p99, lags))
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn long_form_writes_stay_quick_while_one_rebuilds() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    shop.place().await?;
    // A history that takes most of a load at this pace, and caches that are warm.
    tools::load(4_000, 150, 90)?.await??;
    tools::audit_agrees(60).await?;
    let (mut alone, mut beside, mut late) = (0.0, 0.0, Vec::new());
    for pair in 0..PAIRS {
        settle("customer_order_history").await?;
        let (before, lags_before) = p99_of(tools::load(ORDERS, RATE, 91 + 2 * pair)?).await?;
        let generation = live("customer_order_history").await?;
        let load = tools::load(ORDERS, RATE, 92 + 2 * pair)?;
        rebuild(&["start", "customer_order_history", "--throttle", "500"]).await?;
        let (during, lags) = p99_of(load).await?;
        ensure!(live("customer_order_history").await? > generation);
        eprintln!(
            "writes: p99 {before:.1} ms before, {during:.1} ms while one rebuilds; lag p99 in ms: {lags_before:?} before, {lags:?}"
        );
        alone += before;
        beside += during;
        late.extend(lags.into_iter().filter(|(_, p99)| *p99 > LAG_P99_MS));
    }
    ensure!(beside <= alone * WRITES_MAX, "writes' p99 became {:.2} times what it was", beside / alone);
    ensure!(late.is_empty(), "live read models lag: {late:?}");
    settle("customer_order_history").await
}
