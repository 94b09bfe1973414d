//! The console in a real browser, as an operator has it: each thing clicked, and asserted on what the page then says.
//!
//! `CONSOLE_PICTURES=docs/img` keeps pictures of what is seen on the way; the README shows them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tests::{
    ALONE,
    browser::{Browser, DESK, NIGHT, PHONE},
    eventually, letters,
    processes::Process,
    shop::Shop,
    stores::Stores,
    tools, var,
    write_side::WriteSide,
};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(15);

fn at(path: &str) -> Result<String> {
    Ok(format!("{}{path}", var("PROJECTOR_ADMIN_URL")?))
}

async fn keep_picture(browser: &mut Browser, name: &str) -> Result<()> {
    let Ok(folder) = std::env::var("CONSOLE_PICTURES") else { return Ok(()) };
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(folder);
    std::fs::create_dir_all(&folder)?;
    browser.picture(&folder.join(format!("{name}.png"))).await
}

/// A browser that is logged in.
async fn logged_in() -> Result<Browser> {
    let mut browser = Browser::open(DESK).await?;
    browser.go(&at("/")?).await?;
    browser.says(&["Log in", "Admin token"], SOON).await?;
    browser.type_into("#name", "ann").await?;
    browser.type_into("#token", &var("ADMIN_TOKEN")?).await?;
    browser.press("Enter").await?;
    browser.says(&["Read models", "Log out", "ann"], SOON).await?;
    Ok(browser)
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_stopped_store_is_said_with_who_waits_for_it_and_since_when() -> Result<()> {
    let _alone = ALONE.lock().await;
    tools::services_up().await?;
    let mut browser = logged_in().await?;
    browser.go(&at("/")?).await?;
    browser.says(&["order_summary", "Before Kafka"], SOON).await?;
    let shop = Shop::open().await?;
    let load = tools::load(1_500, 50, 71)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    Process::running("redis")?.terminate().await?;
    // The page isn't loaded again: it follows.
    let said = browser.says(&["order_summary", ": waiting for ", "redis is down", "What to do"], SOON).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let text = browser.text().await?;
    keep_picture(&mut browser, "overview").await?;
    browser.look(NIGHT).await?;
    keep_picture(&mut browser, "overview-dark").await?;
    browser.look(PHONE).await?;
    let too_wide = browser.is_too_wide().await?;
    keep_picture(&mut browser, "overview-phone").await?;
    browser.look(DESK).await?;
    tools::run("xtask", &["up"]).await?;
    println!("said {:?} after the store stopped", said?);
    ensure!(!too_wide, "a phone has to scroll sideways");
    let line = text.lines().find(|line| line.contains(": waiting for ")).context("nothing waits any more")?;
    ensure!(line.contains("order_summary"), "order_summary isn't said to wait: {line}");
    ensure!(!line.contains("order_details"), "a read model of another store is said to wait: {line}");
    load.await??;
    let back = browser.says(&["All read models are in time."], LIMIT).await?;
    println!("all is well {back:?} after the store was back and the load was over");
    drop(shop);
    tools::audit_agrees(60).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_rebuild_is_clicked_until_it_is_live_and_taken_back() -> Result<()> {
    let _alone = ALONE.lock().await;
    tools::services_up().await?;
    let shop = Shop::open().await?;
    for _ in 0..20 {
        let order = shop.place().await?;
        shop.pay(&order.order_id).await?;
    }
    tools::audit_agrees(60).await?;
    let mut browser = logged_in().await?;
    browser.click("nav a[href='/rebuilds']").await?;
    browser.says(&["No rebuild is under way.", "No former generation is kept.", "Build one anew"], SOON).await?;
    browser.choose("#start-name", "product_stats").await?;
    browser.choose("#start-verify", "all").await?;
    browser.choose("#start-promote", "manual").await?;
    browser.click("#do-0-start").await?;
    // The browser asks for the reason before anything is sent.
    ensure!(!browser.text().await?.contains("The rebuild of product_stats"), "nobody asked why");
    browser.type_into("#reason-start", "to see how it goes").await?;
    browser.click("#do-0-start").await?;
    browser.says(&["The rebuild of product_stats is under way.", "product_stats: generation 1 → 2"], SOON).await?;
    // By itself: the page isn't loaded again until somebody clicks.
    browser.says(&["verified", "documents compared: no difference."], LIMIT).await?;
    browser
        .eventually(
            "Promote is offered",
            SOON,
            "document.querySelector('#do-0-product_stats')?.innerText === 'Promote'",
        )
        .await?;
    keep_picture(&mut browser, "rebuild").await?;
    browser.type_into("#reason-product_stats", "it looks right").await?;
    browser.click("#do-0-product_stats").await?;
    browser
        .says(&["product_stats: generation 2 is live, generation 1 is kept", "No rebuild is under way."], LIMIT)
        .await?;

    browser.go(&at("/read-models/product_stats")?).await?;
    browser.says(&["Generation 2, live", "What it is made of", "events.order", "it looks right"], SOON).await?;
    keep_picture(&mut browser, "read-model").await?;

    browser.go(&at("/rebuilds")?).await?;
    browser.type_into("#reason-former-product_stats", "only a try").await?;
    // The page has changed under the hands: the click counts all the same.
    browser.value("source.onmessage({ data: live.innerHTML })").await?;
    browser.click("#do-0-former-product_stats").await?;
    browser
        .says(&["product_stats: generation 1 is live, generation 2 is kept", "No rebuild is under way."], LIMIT)
        .await?;
    browser.type_into("#reason-former-product_stats", "only a try").await?;
    browser.click("#do-1-former-product_stats").await?;
    browser.says(&["No former generation is kept."], LIMIT).await?;
    tools::audit_agrees(60).await
}

/// A dead letter whose message can't be read, in the control store.
struct Planted {
    control: PgPool,
    order_id: Uuid,
    event: Uuid,
    whole: Vec<u8>,
}

impl Planted {
    async fn plant(shop: &Shop, write_side: &WriteSide) -> Result<Self> {
        shop.place().await?;
        let mut sample = write_side.sample("OrderPlaced").await?;
        let whole = sample.payload.clone();
        sample.payload.truncate(5);
        sample.payload.extend([0xfe, 0xff, 0xff, 0x0f, 0x13]);
        let order_id = Uuid::now_v7();
        let event = write_side.append(order_id, 1, &sample).await?;
        let control = PgPoolOptions::new().max_connections(1).connect(&var("CONTROL_DATABASE_URL")?).await?;
        let planted = Self { control, order_id, event, whole };
        eventually("the event parked", SOON, || async {
            let all = planted.read_models().await?;
            Ok(all.contains(&"order_summary".to_owned()).then_some(()))
        })
        .await?;
        Ok(planted)
    }

    async fn read_models(&self) -> Result<Vec<String>> {
        let all = letters::list().await?.into_iter().filter(|l| l["dead_letter_id"] == self.event.to_string());
        Ok(all.filter_map(|letter| letter["read_model"].as_str().map(str::to_owned)).collect())
    }

    /// As if what had spoilt it were mended.
    async fn mend(&self) -> Result<()> {
        let mended = sqlx::query("update dead_letter set payload = $1 where dead_letter_id = $2");
        let mended = mended.bind(&self.whole).bind(self.event).execute(&self.control).await?;
        ensure!(mended.rows_affected() > 0, "it is gone");
        Ok(())
    }
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_dead_letter_is_retried_in_vain_then_mended_and_applied() -> Result<()> {
    let _alone = ALONE.lock().await;
    tools::services_up().await?;
    let (shop, write_side, stores) = (Shop::open().await?, WriteSide::connect().await?, Stores::connect().await?);
    let planted = Planted::plant(&shop, &write_side).await?;
    let (id, order_id) = (planted.event.to_string(), planted.order_id.to_string());
    let mut browser = logged_in().await?;
    browser.says(&["parked", "1 dead letters"], SOON).await?;
    browser.click("nav a[href='/dead-letters']").await?;
    browser.says(&["OrderPlaced", "order_summary g1", &order_id], SOON).await?;
    keep_picture(&mut browser, "dead-letters").await?;
    let link = format!("a[href='/dead-letters/{id}?read_model=order_summary']");
    // By the keyboard.
    browser.value(&format!("document.querySelector(\"{link}\").focus()")).await?;
    browser.press("Enter").await?;
    browser.says(&["OrderPlaced in order_summary", "Its data can't be read", "Retry", "Skip for good"], SOON).await?;
    browser.type_into("input[name=reason]", "perhaps it passes").await?;
    browser.click("form.act button:not(.grave)").await?;
    browser.says(&["It is still parked in order_summary", "asked by ann"], Duration::from_secs(30)).await?;
    planted.mend().await?;
    browser.type_into("input[name=reason]", "the message was mended").await?;
    browser.click("form.act button:not(.grave)").await?;
    browser.says(&["The event was applied in order_summary."], Duration::from_secs(30)).await?;
    let hash = stores.hash(&order_id).await?;
    ensure!(
        hash.get("status").is_some_and(|status| status == "pending"),
        "the page says so, the store doesn't: {hash:?}"
    );

    // All others are passed over, and nothing is left that the audit doesn't know.
    for read_model in planted.read_models().await? {
        letters::skip(&read_model, planted.event, "planted by a test").await?;
    }
    letters::are_of(&[]).await?;
    browser.says(&["No dead letters."], SOON).await?;
    stores.delete_hash(&order_id).await?;
    write_side.forget(planted.order_id).await?;
    tools::audit_agrees(60).await
}
