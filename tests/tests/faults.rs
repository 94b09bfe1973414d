//! Processes die in the middle of a load; nothing is lost, nothing doubled.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{
    ALONE, eventually,
    processes::{Process, connector_running, projector_ready},
    shop::Shop,
    stores::Stores,
    tools,
};

const ORDERS: u32 = 400;
const RATE: u32 = 100;

/// No command may notice what happens behind Postgres.
fn unharmed(report: &Value) -> Result<()> {
    let none = |field: &str| report[field].as_object().is_some_and(serde_json::Map::is_empty);
    ensure!(none("errors") && none("refused"), "commands suffered: {report}");
    Ok(())
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn the_projector_is_killed_in_the_middle_of_a_load() -> Result<()> {
    let _alone = ALONE.lock().await;
    tools::services_up().await?;
    let load = tools::load(ORDERS, RATE, 11)?;
    for _ in 0..3 {
        pause(2_500).await;
        let projector = Process::running("projector-run")?;
        projector.kill().await?;
        pause(300).await;
        projector.start(&[])?;
    }
    unharmed(&load.await??)?;
    projector_ready().await?;
    tools::audit_agrees(60).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn connect_is_killed_in_the_middle_of_a_load() -> Result<()> {
    let _alone = ALONE.lock().await;
    tools::services_up().await?;
    let load = tools::load(ORDERS, RATE, 12)?;
    pause(5_000).await;
    let connect = Process::running("connect")?;
    connect.kill().await?;
    pause(500).await;
    connect.start(&[])?;
    unharmed(&load.await??)?;
    connector_running().await?;
    tools::audit_agrees(90).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn commands_sent_before_the_connector_exists_arrive_too() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (shop, stores) = (Shop::open().await?, Stores::connect().await?);
    tools::run("connectors", &["remove"]).await?;
    let sent = async {
        let mut orders = Vec::new();
        for _ in 0..5 {
            let order = shop.place().await?;
            shop.act(&order.order_id, "cancel", &json!({"reason": "too early"})).await?;
            orders.push(order.order_id);
        }
        pause(1_500).await;
        for id in &orders {
            ensure!(stores.hash(id).await?.is_empty(), "{id} came without a connector");
        }
        Ok(orders)
    }
    .await;
    // whatever happened: the next test needs it
    tools::run("connectors", &["apply"]).await?;
    connector_running().await?;
    for id in sent? {
        eventually(&format!("{id} arrives"), Duration::from_secs(60), || async {
            Ok(stores.hash(&id).await?.get("status").filter(|status| *status == "cancelled").map(|_| ()))
        })
        .await?;
    }
    tools::audit_agrees(30).await
}
