//! `Prefer: wait=…` and its defaults: what the answer calls visible is there for readers who know of no token.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    ALONE, eventually,
    processes::Process,
    shop::{Shop, TOTAL_CENTS, text},
    var,
};

const ROUNDS: usize = 40;
/// One in each kind of store.
const READ_MODELS: [&str; 3] = ["order_summary", "customer_order_history", "order_list_view"];

async fn post(url: &str, path: &str, prefer: &str, body: &Value) -> Result<Value> {
    let request = reqwest::Client::new().post(format!("{url}{path}")).json(body);
    let request = if prefer.is_empty() { request } else { request.header("prefer", prefer) };
    let answer = request.send().await?;
    let (status, body): (_, Value) = (answer.status(), answer.json().await?);
    ensure!(status == 201, "{path}: {status} {body}");
    Ok(body)
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_is_called_visible_is_there_without_a_token() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let commands = var("COMMAND_API_URL")?;
    let prefer = format!("wait={}; wait_ms=5000", READ_MODELS.join(","));
    let mut longest = Duration::ZERO;
    for round in 1..=ROUNDS {
        let began = Instant::now();
        let placed = post(&commands, "/orders", &prefer, &shop.order()).await?;
        longest = longest.max(began.elapsed());
        for name in READ_MODELS {
            ensure!(placed["read_models"][name] == json!({"visible": true}), "{name}: {placed}");
        }
        let id = text(&placed, "order_id")?;
        let one = shop.get(&format!("/orders/{id}"), &[]).await?;
        ensure!(one["version"] == placed["sequence_number"], "{one}");
        let list = shop.get(&format!("/customers/{}/orders", shop.customer_id), &[("size", "5")]).await?;
        ensure!(list["orders"][0]["order_id"] == id.as_str() && list["total"] == round as u64, "{round}: {list}");
        let list = shop.get("/orders", &[("customer_id", &shop.customer_id), ("size", "1")]).await?;
        ensure!(list["orders"][0]["order_id"] == id.as_str(), "{round}: {list}");
    }
    eprintln!("{ROUNDS} commands waited for three read models, {longest:?} at most");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_late_read_model_is_named_and_the_command_has_happened() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let held = Process::running("projector-run")?.hold()?;
    let began = Instant::now();
    let prefer = "wait=order_summary, no_such_model; wait_ms=300";
    let placed = post(&var("COMMAND_API_URL")?, "/orders", prefer, &shop.order()).await;
    let waited = began.elapsed();
    drop(held);
    let placed = placed?;
    ensure!(waited >= Duration::from_millis(300) && waited < Duration::from_secs(3), "it took {waited:?}");
    let late = &placed["read_models"];
    ensure!(late["order_summary"]["reason"] == "read-model-behind", "{placed}");
    ensure!(late["no_such_model"]["reason"] == "no-such-read-model", "{placed}");
    let (id, token) = (text(&placed, "order_id")?, text(&placed, "consistency_token")?);
    shop.get(&format!("/orders/{id}"), &[("consistency_token", &token), ("wait_ms", "5000")]).await.map(drop)
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn some_commands_wait_by_configuration() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let listen = format!("127.0.0.1:{}", std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
    let hybrid = Process::running("command-api")?.named("command-api-hybrid");
    // one that prunes the outbox is enough
    let settings =
        [("COMMAND_API_LISTEN", &*listen), ("COMMAND_WAITS", "POST /payments=order_summary"), ("KAFKA_BROKERS", "")];
    hybrid.start(&settings)?;
    let outcome = async {
        let url = format!("http://{listen}");
        let ready = format!("{url}/health/ready");
        eventually("the second command-api ready", Duration::from_secs(20), || async {
            Ok(reqwest::get(&ready).await?.status().is_success().then_some(()))
        })
        .await?;
        for _ in 0..10 {
            let placed = post(&url, "/orders", "", &shop.order()).await?;
            ensure!(placed.get("read_models").is_none(), "this one doesn't wait: {placed}");
            let id = text(&placed, "order_id")?;
            let payment = json!({"order_id": id, "amount_cents": TOTAL_CENTS, "currency": "USD"});
            let paid = post(&url, "/payments", "", &payment).await?;
            ensure!(paid["read_models"] == json!({"order_summary": {"visible": true}}), "{paid}");
            let one = shop.get(&format!("/orders/{id}"), &[]).await?;
            ensure!(one["status"] == "confirmed", "{one}");
        }
        let placed = post(&url, "/orders", "", &shop.order()).await?;
        let payment = json!({"order_id": text(&placed, "order_id")?, "amount_cents": TOTAL_CENTS, "currency": "USD"});
        let paid = post(&url, "/payments", "respond-async", &payment).await?;
        ensure!(paid.get("read_models").is_none(), "{paid}");
        anyhow::Ok(())
    }
    .await;
    hybrid.terminate().await?;
    hybrid.kill_and_forget();
    outcome.context("hybrid")
}
