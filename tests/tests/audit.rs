//! The audit finds what is wrong: one value, one document too few, one too many, in each store.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    ALONE,
    shop::{Shop, TOTAL_CENTS},
    stores::{REVENUE_TABLE, SearchDocument, Stores},
    tools,
};

/// An order that all stores have, audited.
async fn audited_order() -> Result<(String, Stores)> {
    let (shop, stores) = (Shop::open().await?, Stores::connect().await?);
    let order = shop.place().await?;
    shop.pay(&order.order_id).await?;
    tools::audit_agrees(30).await?;
    Ok((order.order_id, stores))
}

/// The differences that the audit lists for a read model, which must be the only ones.
async fn found(read_model: &str) -> Result<Vec<Value>> {
    let verdict = tools::audit(0).await?;
    ensure!(verdict["agrees"] == json!(false), "nothing found: {verdict}");
    for model in verdict["read_models"].as_array().context("no read models")? {
        let name = model["name"].as_str().unwrap();
        let concerned = name == read_model || name.starts_with(&format!("{read_model},"));
        ensure!(concerned == (model["different"] != 0), "{name}: {model}");
    }
    let models = verdict["read_models"].as_array().unwrap();
    let model = models.iter().find(|model| model["name"] == read_model).unwrap();
    assert_eq!(model["different"], 1, "{model}");
    Ok(model["differences"].as_array().unwrap().clone())
}

fn difference<'a>(differences: &'a [Value], key: &str) -> &'a Value {
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert!(differences[0]["key"].as_str().unwrap().contains(key), "{differences:?}");
    &differences[0]
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn faults_in_redis_are_found() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (id, stores) = audited_order().await?;
    let good = stores.hash(&id).await?;
    let stranger = uuid::Uuid::new_v4().to_string();

    stores.set_hash(&id, &BTreeMap::from([("total_amount_cents".to_owned(), "1".to_owned())])).await?;
    let wrong = found("order_summary").await;
    stores.delete_hash(&id).await?;
    let missing = found("order_summary").await;
    stores.set_hash(&id, &good).await?;
    stores.set_hash(&stranger, &good).await?;
    let extra = found("order_summary").await;
    stores.delete_hash(&stranger).await?;

    let wrong = wrong?;
    let wrong = difference(&wrong, &id);
    assert_eq!((&wrong["kind"], &wrong["field"]), (&json!("field"), &json!("total_amount_cents")));
    assert_eq!((&wrong["expected"], &wrong["actual"]), (&json!(TOTAL_CENTS.to_string()), &json!("1")));
    assert_eq!(difference(&missing?, &id)["kind"], "missing");
    assert_eq!(difference(&extra?, &stranger)["kind"], "extra");
    tools::audit_agrees(0).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn faults_in_the_search_engine_are_found() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (id, stores) = audited_order().await?;
    let good = stores.document(&id).await?.context("no document")?;
    let mut bad = good.clone();
    bad.source["products"][1]["name"] = json!("Silver whistle");
    let stranger = uuid::Uuid::new_v4().to_string();

    stores.put_document(&id, &bad).await?;
    let wrong = found("customer_order_history").await;
    stores.delete_document(&id, good.version).await?;
    let missing = found("customer_order_history").await;
    stores.put_document(&id, &good).await?;
    stores.put_document(&stranger, &SearchDocument { version: 1, ..good }).await?;
    let extra = found("customer_order_history").await;
    stores.delete_document(&stranger, 1).await?;

    let wrong = wrong?;
    assert_eq!(difference(&wrong, &id)["field"], "products");
    assert_eq!(wrong[0]["actual"][1]["name"], "Silver whistle");
    assert_eq!(difference(&missing?, &id)["kind"], "missing");
    assert_eq!(difference(&extra?, &stranger)["kind"], "extra");
    tools::audit_agrees(0).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn faults_in_clickhouse_are_found() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (id, stores) = audited_order().await?;
    let rows = format!("from {REVENUE_TABLE} final where order_id = '{id}'");
    let good = stores.clickhouse(&format!("select * {rows} format Native"), Vec::new()).await?;
    let again = |replaced: &str| format!("insert into {REVENUE_TABLE} select * replace ({replaced}) {rows}");
    let delete = format!("delete from {REVENUE_TABLE} where order_id = '{id}'");

    stores.clickhouse(&again("amount_cents + 1 as amount_cents"), Vec::new()).await?;
    let wrong = found("daily_revenue").await;
    stores.clickhouse(&delete, Vec::new()).await?;
    let missing = found("daily_revenue").await;
    stores.clickhouse(&format!("insert into {REVENUE_TABLE} format Native"), good.clone()).await?;
    stores.clickhouse(&again("generateUUIDv4() as _event_id"), Vec::new()).await?;
    let extra = found("daily_revenue").await;
    stores.clickhouse(&delete, Vec::new()).await?;
    stores.clickhouse(&format!("insert into {REVENUE_TABLE} format Native"), good).await?;

    let wrong = wrong?;
    let wrong = difference(&wrong, &id);
    assert_eq!((&wrong["field"], &wrong["actual"]), (&json!("amount_cents"), &json!(TOTAL_CENTS + 1)));
    assert_eq!(difference(&missing?, &id)["kind"], "missing");
    assert_eq!(difference(&extra?, &id)["kind"], "extra");
    tools::audit_agrees(0).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn faults_in_details_and_searches_are_found() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (id, stores) = audited_order().await?;
    let was = stores.set_email(&id, "stranger@example.org").await?;
    let details = found("order_details").await;
    stores.set_email(&id, &was).await?;
    let details = details?;
    let wrong = difference(&details, &id);
    assert_eq!((&wrong["field"], &wrong["expected"]), (&json!("customer_email"), &json!(was)));

    let product = stores.document(&id).await?.context("no document")?.source["products"][0]["product_id"].clone();
    let product = product.as_str().context("no product")?;
    for (alias, key, field, planted) in
        [("order_search", &*id, "item_ids", json!([])), ("product_search", product, "rating", json!(4.5))]
    {
        let good = stores.document_in(alias, key).await?.with_context(|| format!("{alias} lacks {key}"))?;
        let mut bad = good.clone();
        bad.source[field] = planted.clone();
        stores.put_document_in(alias, key, &bad).await?;
        let wrong = found(alias).await;
        stores.put_document_in(alias, key, &good).await?;
        let wrong = wrong?;
        let wrong = difference(&wrong, key);
        assert_eq!((&wrong["field"], &wrong["actual"]), (&json!(field), &planted), "{alias}");
    }
    tools::audit_agrees(0).await
}
