//! kill -9 of command-api and an immediate stop of Postgres while clients write, each with one key until it is answered.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tests::{
    ALONE, eventually,
    processes::{Process, command_api_ready, connector_running, log, projector_ready},
    shop::{Shop, TOTAL_CENTS, text},
    tools, var,
    write_side::WriteSide,
};

const CLIENTS: usize = 6;
const ACCOUNTS: usize = 4;
const CRASHES: usize = 2;
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What was answered with success.
#[derive(Default)]
struct Acknowledged {
    /// Aggregate type, id and the sequence that the answer named.
    streams: Vec<(&'static str, String, i64)>,
    orders: Vec<String>,
    transfers: Vec<String>,
}

struct Client<'a> {
    http: reqwest::Client,
    commands: String,
    shop: &'a Shop,
    accounts: &'a [String],
    acknowledged: &'a Mutex<Acknowledged>,
}

impl Client<'_> {
    /// Sends a command until it is answered, under one key.
    async fn persist(&self, path: &str, body: &Value) -> Result<Value> {
        let (key, url) = (uuid::Uuid::new_v4().to_string(), format!("{}{path}", self.commands));
        eventually(&format!("{path} answered, see {}", log("command-api")), ANSWERED_WITHIN, || async {
            let request = self.http.post(&url).header("idempotency-key", &key).json(body);
            let Ok(answer) = request.timeout(Duration::from_secs(5)).send().await else { return Ok(None) };
            let status = answer.status();
            let body: Value = answer.json().await.unwrap_or_default();
            ensure!(status.is_success() || status == 409 || status.is_server_error(), "{path}: {status} {body}");
            Ok(Some(body).filter(|_| status.is_success()))
        })
        .await
    }

    fn note(&self, kind: &'static str, id: &str, answer: &Value) -> Result<()> {
        let sequence = answer["sequence_number"].as_i64().context("no sequence")?;
        self.acknowledged.lock().unwrap().streams.push((kind, id.to_owned(), sequence));
        Ok(())
    }

    async fn run(&self, number: usize, over: &AtomicBool) -> Result<()> {
        let mut turn = number;
        while !over.load(Ordering::Relaxed) {
            turn += 1;
            if turn.is_multiple_of(2) {
                let placed = self.persist("/orders", &self.shop.order()).await?;
                let id = text(&placed, "order_id")?;
                self.note("order", &id, &placed)?;
                self.acknowledged.lock().unwrap().orders.push(id.clone());
                let payment = json!({"order_id": id, "amount_cents": TOTAL_CENTS, "currency": "USD"});
                self.note("order", &id, &self.persist("/payments", &payment).await?)?;
            } else {
                let (from, to) = (&self.accounts[turn % ACCOUNTS], &self.accounts[(turn + 1 + number) % ACCOUNTS]);
                if from == to {
                    continue;
                }
                let command_id = uuid::Uuid::new_v4().to_string();
                let body = command(
                    &command_id,
                    "TRANSFER_FUNDS",
                    from,
                    json!({"amount_cents": 1, "currency": "USD", "to_account_id": to}),
                );
                self.note("account", from, &self.persist("/v1/commands/accounts/transfer", &body).await?)?;
                self.acknowledged.lock().unwrap().transfers.push(command_id);
            }
        }
        Ok(())
    }
}

fn command(id: &str, kind: &str, account: &str, payload: Value) -> Value {
    json!({"command_id": id, "command_type": kind, "aggregate_id": account, "payload": payload, "created_at": "2026-05-23T10:00:00Z"})
}

async fn accounts(shop: &Shop) -> Result<Vec<String>> {
    let ids: Vec<String> = (0..ACCOUNTS).map(|n| format!("crash-{n}-{}", uuid::Uuid::new_v4().simple())).collect();
    for id in &ids {
        let open = command(&format!("o{id}"), "OPEN_ACCOUNT", id, json!({"currency": "USD"}));
        shop.post("/v1/commands/accounts/open", &open).await?;
        let money = json!({"amount_cents": 100_000, "currency": "USD"});
        let deposit = command(&format!("d{id}"), "DEPOSIT_FUNDS", id, money);
        shop.post("/v1/commands/accounts/deposit", &deposit).await?;
    }
    Ok(ids)
}

async fn crashes(over: &AtomicBool) -> Result<()> {
    let pause = || tokio::time::sleep(Duration::from_millis(1_500));
    let work = async {
        for _ in 0..CRASHES {
            pause().await;
            let service = Process::running("command-api")?;
            service.kill().await?;
            service.start(&[])?;
            command_api_ready().await?;
            pause().await;
            Process::running("postgres")?.quit().await?;
            tools::run("xtask", &["up"]).await?;
            command_api_ready().await?;
        }
        pause().await;
        anyhow::Ok(())
    };
    let done = work.await;
    over.store(true, Ordering::Relaxed);
    done
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_was_acknowledged_is_there_whole_and_once_and_everywhere() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let accounts = accounts(&shop).await?;
    let (over, acknowledged) = (AtomicBool::new(false), Mutex::<Acknowledged>::default());
    let client = || Client {
        http: reqwest::Client::new(),
        commands: var("COMMAND_API_URL").unwrap(),
        shop: &shop,
        accounts: &accounts,
        acknowledged: &acknowledged,
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| client()).collect();
    let writing = try_join_all(clients.iter().enumerate().map(|(number, client)| client.run(number, &over)));
    tokio::try_join!(crashes(&over), writing)?;
    connector_running().await?;
    projector_ready().await?;

    let Acknowledged { streams, orders, transfers } = acknowledged.into_inner().unwrap();
    eprintln!("{} orders, {} transfers across {CRASHES} crashes of each", orders.len(), transfers.len());
    ensure!(orders.len() > 20 && transfers.len() > 20, "too little to tell");
    let write_side = WriteSide::connect().await?;
    for (kind, id, sequence) in &streams {
        let there = write_side.has(kind, id, *sequence).await?;
        ensure!(there, "{kind} {id}: event {sequence} was acknowledged, and isn't there");
    }
    // as many as were acknowledged, so none twice, and each with all of its parts
    assert_eq!(write_side.orders_of(&shop.customer_id).await?, orders.len() as i64);
    assert_eq!(write_side.transfers(&transfers).await?, (transfers.len() as i64, 0));
    let ids: Vec<String> = orders.iter().chain(&accounts).cloned().collect();
    assert_eq!(write_side.apart_from_outbox(&ids).await?, 0, "events whose outbox row is missing or another");
    assert_eq!(write_side.balances(&accounts).await?, 100_000 * ACCOUNTS as i64);
    for id in &orders {
        replay_gives_the_tables(&write_side, id).await?;
    }
    // and everything has arrived, once
    tools::audit_agrees(120).await
}

/// An order folded from its events is what the state tables say of it.
async fn replay_gives_the_tables(write_side: &WriteSide, order_id: &str) -> Result<()> {
    let url = format!("{}/v1/streams/order-{order_id}/state", var("COMMAND_API_URL")?);
    let replayed: Value = reqwest::get(url).await?.error_for_status()?.json().await?;
    let stored = write_side.order(order_id).await?;
    for field in ["order_id", "customer_id", "status", "version", "total_amount_cents", "paid_cents", "currency"] {
        ensure!(!stored[field].is_null(), "{field} isn't in the table: {stored}");
        ensure!(replayed["state"][field] == stored[field], "{field} of {order_id}: {replayed} and {stored}");
    }
    let items = |order: &Value| order["items"].as_array().map_or(0, Vec::len);
    ensure!(items(&replayed["state"]) == items(&stored) && items(&stored) == 2, "lines of {order_id}");
    Ok(())
}
