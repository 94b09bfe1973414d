//! A command's way through Postgres, Debezium and Kafka into all three stores.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    eventually,
    shop::{Shop, TOTAL_CENTS},
    stores::Stores,
};

const SOON: Duration = Duration::from_secs(15);

/// Waits until both documents of an order show a status and the order's sequence.
async fn becomes(stores: &Stores, order_id: &str, status: &str, sequence: u64) -> Result<()> {
    let version = sequence.to_string();
    eventually(&format!("hash {order_id} {status}"), SOON, || async {
        let hash = stores.hash(order_id).await?;
        Ok((hash.get("status").is_some_and(|is| is == status) && hash.get("version") == Some(&version)).then_some(()))
    })
    .await?;
    eventually(&format!("search document {order_id} {status}"), SOON, || async {
        let document = stores.document(order_id).await?;
        Ok(document.filter(|document| document.source["status"] == status).map(|_| ()))
    })
    .await
}

async fn books(stores: &Stores, order_id: &str, rows: &[(&str, i64, i64)]) -> Result<()> {
    let expected: Vec<_> = rows.iter().map(|(entry, cents, orders)| ((*entry).to_owned(), *cents, *orders)).collect();
    eventually(&format!("revenue of {order_id} is {rows:?}"), SOON, || async {
        let actual = stores.revenue(order_id).await?;
        ensure!(actual == expected, "it is {actual:?}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn an_order_appears_everywhere_and_follows_its_commands() -> Result<()> {
    let (shop, stores) = (Shop::open().await?, Stores::connect().await?);
    let order = shop.place().await?;
    assert_eq!(order.sequence_number, 1);
    let id = &order.order_id;
    becomes(&stores, id, "pending", 1).await?;
    books(&stores, id, &[("placed", TOTAL_CENTS, 1)]).await?;

    let hash = stores.hash(id).await?;
    for (field, value) in [
        ("order_id", id.as_str()),
        ("customer_id", &shop.customer_id),
        ("customer_name", "Ada Lamport"),
        ("item_count", "2"),
        ("total_amount_cents", &TOTAL_CENTS.to_string()),
        ("currency", "USD"),
    ] {
        assert_eq!(hash.get(field).map(String::as_str), Some(value), "{field}");
    }
    let document = stores.document(id).await?.unwrap().source;
    assert_eq!(document["items_preview"], json!(["Copper kettle", "Tin whistle"]));
    assert_eq!(document["products"][0]["price_cents"], json!(1_250));
    assert_eq!(document["products"][0]["image_url"], json!("https://images.example.com/kettle.webp"));
    assert!(document["products"][1]["image_url"].is_null());

    becomes(&stores, id, "confirmed", shop.pay(id).await?.sequence_number).await?;
    let shipped = shop.act(id, "ship", &json!({"tracking_number": "TRK-1"})).await?;
    becomes(&stores, id, "shipped", shipped.sequence_number).await?;
    let delivered = shop.act(id, "deliver", &json!({})).await?;
    becomes(&stores, id, "delivered", delivered.sequence_number).await?;
    assert_eq!(delivered.sequence_number, 4);
    books(&stores, id, &[("placed", TOTAL_CENTS, 1)]).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_cancelled_order_is_marked_and_its_revenue_compensated() -> Result<()> {
    let (shop, stores) = (Shop::open().await?, Stores::connect().await?);
    let order = shop.place().await?;
    let cancelled = shop.act(&order.order_id, "cancel", &json!({"reason": "changed my mind"})).await?;
    becomes(&stores, &order.order_id, "cancelled", cancelled.sequence_number).await?;
    books(&stores, &order.order_id, &[("cancelled", -TOTAL_CENTS, 0), ("placed", TOTAL_CENTS, 1)]).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn the_revenue_report_counts_an_order_that_the_token_covers() -> Result<()> {
    let shop = Shop::open().await?;
    let gross = |report: &serde_json::Value| -> i64 {
        report["rows"].as_array().into_iter().flatten().filter_map(|row| row["gross_cents"].as_i64()).sum()
    };
    let report = async |token: &str| {
        shop.get("/reports/revenue", &[("granularity", "month"), ("consistency_token", token), ("wait_ms", "5000")])
            .await
    };
    let first = shop.place().await?;
    let before = report(&first.token).await?;
    let second = shop.place().await?;
    let after = report(&second.token).await?;
    // others may order and cancel meanwhile, but what was placed only grows
    ensure!(gross(&after) >= gross(&before) + TOTAL_CENTS, "before: {before}, after: {after}");
    Ok(())
}
