//! What a command returned is there in the very next query that asks for it: one shopper after the other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::Value;
use tests::{
    ALONE,
    processes::{Process, projector_ready},
    shop::Shop,
    tools,
};

/// Shoppers at once; each waits for its own writes.
const SHOPPERS: usize = 4;

/// Places an order and reads it in the next two requests, `times` times; returns the longest wait of a read.
async fn shop_and_look(times: usize) -> Result<Duration> {
    let shop = Shop::open().await?;
    let mut longest = Duration::ZERO;
    for round in 1..=times {
        let order = shop.place().await?;
        let (id, sequence) = (&order.order_id, order.sequence_number.to_string());

        let asked = Instant::now();
        let one = shop.get(&format!("/orders/{id}"), &[("min_seq", &sequence), ("wait_ms", "5000")]).await?;
        longest = longest.max(asked.elapsed());
        ensure!(one["order_id"] == id.as_str(), "round {round}: another order: {one}");
        ensure!(one["version"].as_u64() >= Some(order.sequence_number), "round {round}: an older version: {one}");

        let list = shop
            .get(
                &format!("/customers/{}/orders", shop.customer_id),
                &[("consistency_token", &order.token), ("wait_ms", "5000"), ("size", "5")],
            )
            .await?;
        let orders = list["orders"].as_array().with_context(|| format!("no orders: {list}"))?;
        ensure!(
            orders.iter().any(|listed| listed["order_id"] == id.as_str()),
            "round {round}: {id} is not in its customer's list: {list}"
        );
        ensure!(list["total"].as_u64() == Some(round as u64), "round {round}: total of {list}");
    }
    Ok(longest)
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_thousand_orders_are_there_in_the_next_request() -> Result<()> {
    let _alone = ALONE.lock().await;
    try_join_all((0..SHOPPERS).map(|_| shop_and_look(1_000 / SHOPPERS))).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn they_are_there_although_the_projector_is_held_back() -> Result<()> {
    let _alone = ALONE.lock().await;
    tools::services_up().await?;
    let projector = Process::running("projector-run")?;
    projector.terminate().await?;
    projector.start(&[("PROJECTOR_FAULT_DELAY_MS", "300")])?;
    let outcome = async {
        projector_ready().await?;
        try_join_all((0..SHOPPERS).map(|_| shop_and_look(30))).await
    }
    .await;

    projector.terminate().await?;
    projector.start(&[])?;
    projector_ready().await?;
    let longest = outcome?.into_iter().max().unwrap();
    ensure!(longest >= Duration::from_millis(250), "nothing held the projector back: {longest:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_version_that_does_not_exist_is_not_made_up() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let order = shop.place().await?;
    let path = format!("/orders/{}", order.order_id);
    let answer = shop.get_raw(&path, &[("min_seq", "1000000"), ("wait_ms", "300")]).await?;
    assert_eq!(answer.status().as_u16(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: Value = answer.json().await?;
    assert!(problem["type"].as_str().unwrap().ends_with("/read-model-behind"), "{problem}");
    assert_eq!(problem["read_model"], "order_summary", "{problem}");
    for field in ["required", "reached", "lag_ms"] {
        assert!(!problem[field].is_null(), "no {field} in {problem}");
    }
    Ok(())
}
