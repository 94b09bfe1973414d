//! Some of the faults, each for a few seconds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tests::{
    ALONE, eventually, letters,
    processes::{Process, connector_running, projector_ready},
    shop::{Shop, text},
    stores::Stores,
    tools, var,
    write_side::WriteSide,
};
use uuid::Uuid;

use crate::{Load, kill_and_start, pause, poison::Poison};

/// How long a host may take to finish what it has begun.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// Longer than `broker.session.timeout.ms` and than a consumer's session.
const STALL_MS: u64 = 13_000;

/// Events that a read model may remember one by one: what runs at a time, and what came before a snapshot was worth it.
const KEPT_MAX: i64 = 250;

const fn load(seed: u64) -> Load {
    Load { orders: 400, rate: 100, seed }
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn the_projector_is_killed_in_the_middle_of_a_load() -> Result<()> {
    let _alone = ALONE.lock().await;
    tools::services_up().await?;
    let kills = async {
        for _ in 0..3 {
            pause(2_500).await;
            kill_and_start("projector-run", 300).await?;
        }
        Ok(())
    };
    load(11).unharmed(kills).await?;
    projector_ready().await?;
    tools::audit_agrees(60).await?;
    letters::are_of(&[]).await
}

/// What SIGTERM leaves behind is whole: whoever starts next finds nothing that was written and not noted. SIGKILL leaves such,
/// which shows that it would be seen.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn the_projector_is_asked_to_stop_in_the_middle_of_a_load() -> Result<()> {
    let _alone = ALONE.lock().await;
    tools::services_up().await?;
    let mut redone = [0, 0];
    for (redone, gracefully) in redone.iter_mut().zip([true, false]) {
        let stops = async {
            for _ in 0..3 {
                pause(2_000).await;
                let (projector, began) = (Process::running("projector-run")?, Instant::now());
                if gracefully {
                    projector.terminate().await?;
                    ensure!(began.elapsed() < STOPPED_WITHIN, "it took {:?} to stop", began.elapsed());
                } else {
                    projector.kill().await?;
                }
                projector.start(&[])?;
                projector_ready().await?;
                pause(1_000).await;
                *redone += duplicates().await?;
            }
            Ok(())
        };
        load(14 + u64::from(gracefully)).unharmed(stops).await?;
        tools::audit_agrees(60).await?;
    }
    let [stopped, killed] = redone;
    println!("events that came again: {stopped} after SIGTERM, {killed} after SIGKILL");
    ensure!(stopped == 0, "{stopped} events were redone");
    ensure!(killed > 0, "nothing was redone after kill -9 either: this test shows nothing");
    Ok(())
}

/// How many events the host has found to be handled already since it was started.
async fn duplicates() -> Result<u64> {
    const METRIC: &str = "projection_duplicates_skipped_total{";
    let text = reqwest::get(format!("{}/metrics", var("PROJECTOR_ADMIN_URL")?)).await?.text().await?;
    let values = text.lines().filter(|line| line.starts_with(METRIC)).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| Ok(value.parse::<u64>()?)).sum()
}

/// A customer gets another name, and a product comes and goes, while orders that show both are placed.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn parents_change_and_the_projector_is_killed() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let product =
        json!({"name": "Rare book", "category": "Books", "price_cents": 1_500, "currency": "USD", "stock": 1});
    let product_id = text(&shop.post("/products", &product).await?, "product_id")?;
    let order = json!({
        "customer_id": shop.customer_id,
        "items": [{"product_id": product_id, "quantity": 1}],
        "shipping_address": {"city": "Zurich", "zip": "8001"},
    });
    let orders = async {
        for _ in 0..60 {
            // the last one: now none of the orders is in stock; then all are
            shop.post("/orders", &order).await?;
            shop.post(&format!("/products/{product_id}/stock"), &json!({"delta": 1, "reason": "found one"})).await?;
            pause(50).await;
        }
        anyhow::Ok(())
    };
    let names = async {
        for n in 0..100 {
            let name = json!({"first_name": format!("Ada {n}"), "last_name": "Lamport"});
            shop.patch(&format!("/customers/{}", shop.customer_id), &name).await?;
            pause(60).await;
        }
        anyhow::Ok(())
    };
    let kills = async {
        for _ in 0..3 {
            pause(1_500).await;
            kill_and_start("projector-run", 200).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(orders, names, kills)?;
    projector_ready().await?;
    tools::audit_agrees(60).await?;
    letters::are_of(&[]).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn connect_is_killed_in_the_middle_of_a_load() -> Result<()> {
    let _alone = ALONE.lock().await;
    tools::services_up().await?;
    let kill = async {
        pause(5_000).await;
        kill_and_start("connect", 500).await
    };
    // It makes tx_min stand still for everybody.
    let mut open = PgConnection::connect(&var("CONTROL_DATABASE_URL")?).await?;
    sqlx::raw_sql("begin; select pg_current_xact_id()").execute(&mut open).await?;
    load(12).unharmed(kill).await?;
    connector_running().await?;
    tools::audit_agrees(90).await?;
    letters::are_of(&[]).await?;
    let (since, kept) = beside(&mut open).await?;
    println!("beside an open transaction: {since} events, {kept} of them remembered by one read model at most");
    ensure!(
        since > 4 * KEPT_MAX && kept <= KEPT_MAX,
        "{kept} of {since} events since the oldest transaction are remembered"
    );
    sqlx::raw_sql("rollback").execute(&mut open).await?;
    Ok(())
}

/// How many events were written since the transaction of this connection began, and how many of the newest ones the read model
/// remembers that remembers most.
async fn beside(open: &mut PgConnection) -> Result<(i64, i64)> {
    let own: i64 = sqlx::query_scalar("select pg_current_xact_id()::text::bigint").fetch_one(&mut *open).await?;
    let kept = "select max(n)::bigint from (select sum(jsonb_array_length(progress->'recent')) as n from progress group by generation_id) as of_one";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&mut *open).await?;
    let write_side = WriteSide::connect().await?;
    let since = sqlx::query_scalar("select count(*) from events where txid > $1")
        .bind(own)
        .fetch_one(write_side.pool())
        .await?;
    Ok((since, kept))
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn redis_and_search_fall_silent_while_an_event_is_garbled() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (shop, write_side) = (Shop::open().await?, WriteSide::connect().await?);
    let (redis, search) = (Process::running("redis")?, Process::running("search")?);
    let order_id = Uuid::new_v4();
    let faults = async {
        pause(2_000).await;
        let held = (redis.hold()?, search.hold()?);
        pause(5_000).await;
        drop(held);
        Poison::plant_two(order_id, &shop, &write_side).await
    };
    let poison = Load { orders: 250, ..load(13) }.unharmed(faults).await?;
    // others' events pass by it
    tools::audit_agrees(60).await?;
    letters::are_of(&[order_id]).await?;
    poison.skip_two(&write_side).await?;
    tools::audit_agrees(30).await
}

/// The only broker stands still for longer than its session, so that the cluster says of itself that it has no broker: clients
/// that forget all brokers then must be told of them again. Commands notice nothing, and everything goes on by itself. Whether a
/// client asks in the wrong moment is chance, hence three times.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn the_only_broker_stands_still_for_longer_than_its_session() -> Result<()> {
    let _alone = ALONE.lock().await;
    tools::services_up().await?;
    let kafka = Process::running("kafka")?;
    let stalls = async {
        for _ in 0..3 {
            pause(2_000).await;
            let held = kafka.hold()?;
            pause(STALL_MS).await;
            drop(held);
        }
        Ok(Instant::now())
    };
    let over = Load { orders: 750, rate: 50, seed: 15 }.unharmed(stalls).await?;
    tools::audit_agrees(60).await?;
    println!("no read model was behind {:?} after the broker went on", over.elapsed());
    let limit = Duration::from_secs(30);
    eventually("every read model has a host, and heartbeats come back", limit, || async {
        let report = tools::json("projector", &["lag", "--output", "json"], limit).await?;
        let models = report["read_models"].as_array().context("no read models")?;
        let well = models.iter().all(|one| one["state"] == "ok") && report["before_kafka"]["state"] == "ok";
        Ok(well.then_some(()))
    })
    .await?;
    letters::are_of(&[]).await
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
