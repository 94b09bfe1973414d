//! All read models swapped under load.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tests::{ALONE, shop::Shop, stores::Stores, tools};

use crate::{LIMIT, Projections, READ_MODELS, live, readers::Readers, rebuild, settle};

/// What the changed projection adds to each total.
const MORE_CENTS: i64 = 7;

/// What the audit says of a read model.
async fn audited(read_model: &str) -> Result<Value> {
    let verdict = tools::audit(20).await?;
    let models = verdict["read_models"].as_array().context("no read models")?;
    models.iter().find(|m| m["name"] == read_model).cloned().with_context(|| format!("{read_model} isn't audited"))
}

/// The total must differ in each order, and nothing else in any; by what the changed projection adds.
async fn totals_differ() -> Result<()> {
    let summary = audited("order_summary").await?;
    ensure!(summary["different"] == summary["expected"] && summary["expected"] == summary["actual"], "{summary}");
    for difference in summary["differences"].as_array().context("no differences")? {
        let cents = |side: &str| difference[side].as_str().and_then(|text| text.parse::<i64>().ok());
        ensure!(difference["field"] == "total_amount_cents", "{difference}");
        ensure!(cents("actual") == cents("expected").map(|c| c + MORE_CENTS), "{difference}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn readers_notice_nothing_of_rebuilds_way_back_and_forward() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (shop, stores) = (Shop::open().await?, Stores::connect().await?);
    let orders: Vec<String> =
        try_join_all((0..20).map(|_| shop.place())).await?.into_iter().map(|o| o.order_id).collect();
    tools::audit_agrees(60).await?;
    let from = "total_amount_cents = %data.total_amount_cents";
    let changed = Projections::with("order_summary.yaml", from, &format!("{from} + {MORE_CENTS}"))?;

    let plan = tools::output("projector", &["plan", changed.path(), "--output", "json"], LIMIT).await?;
    ensure!(plan.status.code() == Some(2), "exit code {:?} of a plan with changes", plan.status.code());
    let plan: Value = serde_json::from_slice(&plan.stdout)?;
    let change =
        |name: &str| plan["changes"].as_array().unwrap().iter().find(|c| c["read_model"] == name).unwrap().clone();
    assert_eq!(change("order_summary")["what"], "rebuild");
    assert_eq!(change("daily_revenue")["what"], "nothing");

    for read_model in READ_MODELS {
        settle(read_model).await?;
    }
    let first = live("order_summary").await?;
    let load = tools::load(1_500, 60, 71)?;
    let readers = Readers::start(&shop, &stores, orders);
    for read_model in READ_MODELS {
        rebuild(&["start", read_model, "--projections", changed.path(), "--verify", "all"]).await?;
    }
    assert_eq!(live("order_summary").await?, first + 1);
    rebuild(&["rollback", "order_summary"]).await?;
    assert_eq!(live("order_summary").await?, first);
    rebuild(&["rollback", "order_summary"]).await?;
    assert_eq!(live("order_summary").await?, first + 1);
    readers.verdict(&["order_summary", "customer_order_history", "daily_revenue"]).await?;
    let report = tokio::time::timeout(LIMIT * 3, load).await.context("the load")???;
    let none = |field: &str| report[field].as_object().is_some_and(serde_json::Map::is_empty);
    ensure!(none("errors") && none("refused"), "commands suffered: {report}");

    totals_differ().await?;
    rebuild(&["rollback", "order_summary", "--reason", "for the next test"]).await?;
    tools::audit_agrees(30).await?;
    for read_model in READ_MODELS {
        settle(read_model).await?;
    }
    tools::audit_agrees(0).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_the_plan_did_not_announce_stops_the_swap() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (shop, stores) = (Shop::open().await?, Stores::connect().await?);
    let order = shop.place().await?;
    tools::audit_agrees(60).await?;
    // behind the projector's back, so that the same projection gives another document
    settle("order_summary").await?;
    let good = stores.hash(&order.order_id).await?;
    stores.set_hash(&order.order_id, &[("status".to_owned(), "lost".to_owned())].into()).await?;
    let before = live("order_summary").await?;
    let refused = tools::output("projector", &["rebuild", "start", "order_summary", "--verify", "all"], LIMIT).await;
    stores.set_hash(&order.order_id, &good).await?;
    let refused = refused?;
    let said = format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    ensure!(refused.status.code() == Some(1), "exit code {:?}: {said}", refused.status.code());
    ensure!(said.contains("`status` differs in 1 of") && said.contains(&order.order_id), "{said}");
    assert_eq!(live("order_summary").await?, before);

    // a second one is refused with who is at work, and the first one can be given up
    let second = tools::output("projector", &["rebuild", "start", "order_summary"], LIMIT).await?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(second.status.code() == Some(1) && said.contains("is being rebuilt already"), "{said}");
    rebuild(&["abort", "order_summary"]).await?;
    settle("order_summary").await?;

    // looked at first, then promoted by hand
    rebuild(&["start", "order_summary", "--promote", "manual"]).await?;
    assert_eq!(live("order_summary").await?, before);
    let status = crate::status().await?;
    let mine: Vec<_> = status["rebuilds"].as_array().unwrap().iter().map(|r| r["state"].clone()).collect();
    assert_eq!(mine, [json!("verified")], "{status}");
    rebuild(&["promote", "order_summary"]).await?;
    ensure!(live("order_summary").await? > before);
    settle("order_summary").await?;
    tools::audit_agrees(30).await
}
