//! What was spoilt behind the projector's back is mended: one document, or all of a read model; and what does badly after a swap
//! goes back by itself.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{ALONE, eventually, shop::Shop, stores::Stores, tools};

use crate::{LIMIT, live, rebuild, settle};

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn one_document_and_a_whole_read_model_are_made_anew() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (shop, stores) = (Shop::open().await?, Stores::connect().await?);
    let orders = [shop.place().await?, shop.place().await?];
    shop.pay(&orders[0].order_id).await?;
    tools::audit_agrees(60).await?;
    settle("order_summary").await?;
    let [one, other] = orders.map(|order| order.order_id);
    let good = stores.hash(&one).await?;
    stores.set_hash(&one, &[("status".to_owned(), "lost".to_owned())].into()).await?;
    rebuild(&["one", "order_summary", &one, "--reason", "spoilt by hand"]).await?;
    assert_eq!(stores.hash(&one).await?, good);
    // One that is gone, guard included.
    stores.delete_hash(&one).await?;
    rebuild(&["one", "order_summary", &one]).await?;
    assert_eq!(stores.hash(&one).await?, good);
    let none = tools::output("projector", &["rebuild", "one", "order_summary", "nobody"], LIMIT).await?;
    ensure!(none.status.code() == Some(1), "{none:?}");
    let not_one = tools::output("projector", &["rebuild", "one", "product_stats", &shop.product_id], LIMIT).await?;
    let said = String::from_utf8_lossy(&not_one.stderr).into_owned();
    ensure!(not_one.status.code() == Some(1) && said.contains("aren't made by one aggregate's events"), "{said}");

    // The other one is spoilt in a way that nobody will say: the whole read model is built anew.
    let before = live("order_summary").await?;
    stores.delete_hash(&other).await?;
    stores.set_hash(&one, &[("status".to_owned(), "lost".to_owned())].into()).await?;
    rebuild(&["repair", "order_summary", "--reason", "an accident"]).await?;
    ensure!(live("order_summary").await? > before);
    assert_eq!(stores.hash(&one).await?, good);
    settle("order_summary").await?;
    tools::audit_agrees(60).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_does_badly_goes_back_by_itself_and_says_why() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let order = shop.place().await?;
    tools::audit_agrees(60).await?;
    settle("order_summary").await?;
    let before = live("order_summary").await?;
    // A rule that nothing keeps: no query takes less than nothing.
    rebuild(&["start", "order_summary", "--max-p99-ms", "0", "--watch", "2m"]).await?;
    ensure!(live("order_summary").await? > before);
    eventually("it goes back", LIMIT, || async {
        for _ in 0..20 {
            shop.get(&format!("/orders/{}", order.order_id), &[]).await?;
        }
        Ok((live("order_summary").await? == before).then_some(()))
    })
    .await?;
    let status = tools::json("projector", &["rebuild", "status", "order_summary", "--output", "json"], LIMIT).await?;
    let lines: &[Value] = status["log"].as_array().context("no log")?;
    let why = lines.iter().find(|line| line["who"] == "health rules").and_then(|line| line["why"].as_str());
    ensure!(why.is_some_and(|why| why.contains("at the 99th percentile")), "{status}");
    settle("order_summary").await?;
    tools::audit_agrees(30).await
}
