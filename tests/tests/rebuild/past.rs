//! A generation is built from the event store, because Kafka no longer has its whole history.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sqlx::Connection;
use tests::{ALONE, eventually, shop::Shop, tools, topics, var};

use crate::{LIMIT, live, rebuild, settle, status};

const TOPIC: &str = "events.account";

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_kafka_no_longer_has_comes_from_the_event_store() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    // An audit compares something of every read model.
    shop.place().await?;
    let account = format!("acc-{}", shop.customer_id);
    let deposit = async |shop: &Shop, cents: i64| {
        let id = uuid::Uuid::new_v4();
        let body = json!({"command_id": id, "command_type": "DEPOSIT_FUNDS", "aggregate_id": account,
            "payload": {"amount_cents": cents, "currency": "USD"}, "created_at": "2026-05-23T10:00:00Z"});
        shop.post("/v1/commands/accounts/deposit", &body).await
    };
    for cents in 1..=40 {
        deposit(&shop, cents).await?;
    }
    tools::audit_agrees(60).await?;
    for read_model in ["account_balance", "account_statement", "account_transactions"] {
        settle(read_model).await?;
    }
    topics::forget_first_half(TOPIC).await?;
    let refused =
        tools::output("projector", &["rebuild", "start", "account_balance", "--from", "kafka"], LIMIT).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && said.contains("are gone from Kafka"), "{said}");

    // A transaction that was open when the ends of the topic were taken may have committed in the log already, unseen by
    // snapshots: as long as it is open nothing is read.
    let mut other = sqlx::PgConnection::connect(&var("WRITE_DATABASE_URL")?).await?;
    let mut open = other.begin().await?;
    let txid: i64 = sqlx::query_scalar("select pg_current_xact_id()::text::bigint").fetch_one(&mut *open).await?;
    let before = live("account_balance").await?;
    rebuild(&["start", "account_balance", "--detach", "--verify", "all"]).await?;
    for cents in 41..=60 {
        deposit(&shop, cents).await?;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let waits = status().await?;
    ensure!(waits["rebuilds"][0]["state"] == "planned", "it didn't wait for transaction {txid}: {waits}");
    open.commit().await?;
    eventually("rebuilt from the event store", LIMIT, || async {
        for cents in 1..=3 {
            deposit(&shop, cents).await?;
        }
        Ok((live("account_balance").await? > before).then_some(()))
    })
    .await?;
    // A search index and a table too, by `--from auto`, and paid attention to by the audit.
    rebuild(&["start", "account_statement", "account_transactions", "--verify", "all", "--together"]).await?;
    let log = tools::json("projector", &["rebuild", "status", "account_balance", "--output", "json"], LIMIT).await?;
    log["log"].as_array().context("no log")?;
    tools::audit_agrees(60).await?;
    for read_model in ["account_balance", "account_statement", "account_transactions"] {
        settle(read_model).await?;
    }
    tools::audit_agrees(0).await
}
