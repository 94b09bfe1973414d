//! Every fault in turn, each under a load of its own, and an audit after each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    ALONE,
    copies::Copies,
    eventually,
    processes::{Process, log, projector_ready},
    shop::Shop,
    stores::Stores,
    tools, topics,
    write_side::WriteSide,
};
use uuid::Uuid;

use crate::{Load, drills, group, kill_and_start, pause, poison::Poison, steps::Steps};

pub(crate) const TOPIC: &str = "events.order";
pub(crate) const TOPICS: [&str; 4] = ["events.order", "events.customer", "events.product", "events.account"];
pub(crate) const CONNECTOR: &str = "outbox";
const OUTAGE_MS: u64 = 10_000;
/// All faults together must meet as many.
const EVENTS_MIN: i64 = 20_000;
const REDIS_HELD: Duration = Duration::from_secs(60);
const MEMORY_MAX_MIB: u64 = 300;
/// What comes while it is held, on average.
const EVENTS_A_SECOND: usize = 2_000;
/// How many are written a second beforehand.
const COPIES_A_SECOND: usize = 5_000;

const fn load(seed: u64) -> Load {
    Load { orders: 500, rate: 100, seed }
}

/// Uniform in a range, another one in each run.
fn random_ms(range: std::ops::Range<u64>) -> u64 {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    range.start + random % (range.end - range.start)
}

#[tokio::test]
#[ignore = "takes a quarter of an hour: ./dev test faults"]
async fn every_fault_in_turn() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (shop, write_side) = (Shop::open().await?, WriteSide::connect().await?);
    let mut steps = Steps::new(write_side.clone());

    steps.step("projector: kill -9, 20 times", Load { orders: 2_500, rate: 150, seed: 100 }.unharmed(kills())).await?;
    let three = Load { orders: 1_500, rate: 100, seed: 114 }.unharmed(group::three_processes());
    steps.step("three processes, one killed, one added", three).await?;
    steps.step("connect: kill -9", connect_killed(&write_side)).await?;
    let kafka = async {
        pause(5_000).await;
        Process::running("kafka")?.kill().await?;
        pause(1_000).await;
        start_components().await
    };
    steps.step("kafka: kill -9", load(102).unharmed(kafka)).await?;
    for (seed, store) in (103..).zip(["redis", "search", "clickhouse"]) {
        steps.step(&format!("{store}: SIGSTOP for 10 s"), load(seed).unharmed(held(store))).await?;
    }
    for (seed, store) in (106..).zip(["redis", "search", "clickhouse"]) {
        steps.step(&format!("{store}: stopped for 10 s"), load(seed).unharmed(stopped(store))).await?;
    }
    // commands fail meanwhile, which is their right; what is committed must arrive
    let postgres = async { Ok(load(109).with(postgres_stopped()).await?.1["errors"].to_string()) };
    steps.step("postgres, all of its roles: stopped for 10 s", postgres).await?;
    steps.step("topic deleted and republished, projector stopped", load(110).unharmed(republished(false))).await?;
    steps.step("topic deleted and republished, projector running", load(111).unharmed(republished(true))).await?;

    let order_id = Uuid::new_v4();
    let mut planted = None;
    steps.poisoned = vec![order_id];
    let garbled = async {
        pause(3_000).await;
        planted = Some(Poison::plant(order_id, &shop, &write_side).await?);
        kill_and_start("projector-run", 300).await?;
        Ok("one waits behind it, others passed".to_owned())
    };
    steps.step("poison parked, projector: kill -9", load(112).unharmed(garbled)).await?;
    steps.poisoned.clear();
    let skipped = async {
        let poison = planted.context("nothing was planted")?;
        // Redis was stopped in between: an older connection is broken
        let stores = Stores::connect().await?;
        poison.skip(&stores).await?;
        poison.forget(&stores, &write_side).await?;
        Ok("what waited was applied".to_owned())
    };
    steps.step("poison skipped", skipped).await?;
    steps.step("drill: slot lost", load(113).unharmed(drills::slot_lost(&write_side))).await?;
    steps.step("drill: behind for longer than kafka keeps", load(115).unharmed(drills::behind_for_too_long())).await?;
    let promoted = async { Ok(load(116).with(drills::promoted(&write_side)).await?.0) };
    Box::pin(steps.step("drill: failed over to another timeline", promoted)).await?;
    steps.step("drill: control store gone", drills::control_store_gone(&write_side)).await?;
    steps.step("memory with redis: SIGSTOP for 60 s", memory(&shop, &write_side)).await?;
    steps.verdict(EVENTS_MIN)
}

async fn kills() -> Result<String> {
    for _ in 0..20 {
        pause(random_ms(200..3_000)).await;
        kill_and_start("projector-run", random_ms(0..500)).await?;
    }
    Ok(String::new())
}

/// What it had sent and not noted yet comes again; the slot can't be turned back further than that.
async fn connect_killed(write_side: &WriteSide) -> Result<String> {
    let kill = async {
        pause(5_000).await;
        kill_and_start("connect", 500).await
    };
    load(101).unharmed(kill).await?;
    tests::processes::connector_running().await?;
    tools::audit_agrees(120).await?;
    let again = topics::messages(&TOPICS).await? - write_side.events().await?;
    ensure!(again >= 0, "the topics lack {} events, see {}", -again, log("connect"));
    Ok(format!("{again} messages were sent again"))
}

async fn held(store: &str) -> Result<String> {
    pause(3_000).await;
    let held = Process::running(store)?.hold()?;
    pause(OUTAGE_MS).await;
    drop(held);
    Ok(String::new())
}

async fn stopped(store: &str) -> Result<String> {
    pause(3_000).await;
    Process::running(store)?.terminate().await?;
    pause(OUTAGE_MS).await;
    start_components().await
}

async fn postgres_stopped() -> Result<String> {
    pause(5_000).await;
    Process::running("postgres")?.interrupt().await?;
    pause(OUTAGE_MS).await;
    start_components().await
}

/// What isn't running of the components is started, each with its own time limit and log.
async fn start_components() -> Result<String> {
    tools::run("xtask", &["up"]).await?;
    Ok(String::new())
}

/// As docs/republish.md says; commands go on meanwhile.
async fn republished(projector_runs: bool) -> Result<String> {
    pause(3_000).await;
    topics::stop_connector(CONNECTOR).await?;
    let projector = Process::running("projector-run")?;
    if !projector_runs {
        projector.terminate().await?;
    }
    topics::make_anew(TOPIC).await?;
    let limit = Duration::from_secs(120);
    let sent = tools::json("projector", &["republish", TOPIC, "--yes", "--output", "json"], limit).await?;
    tools::run("connectors", &["apply"]).await?;
    if !projector_runs {
        projector.start(&[])?;
    }
    let sent: u64 = sent["partitions"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    ensure!(sent > 0, "nothing was sent");
    Ok(format!("{sent} republished"))
}

/// A store that doesn't answer must not fill the host with what waits for it. The events are in Kafka beforehand, so that nothing but the host
/// decides how quickly they come: no orders could be placed so fast beside twelve read models on two cores, nor could Connect send them.
async fn memory(shop: &Shop, write_side: &WriteSide) -> Result<String> {
    let copies = Copies::of(write_side, &shop.place().await?.order_id).await?;
    tools::audit_agrees(120).await?;
    let before = topics::messages(&[TOPIC]).await?;
    let projector = Process::running("projector-run")?;
    projector.terminate().await?;
    let total = EVENTS_A_SECOND * usize::try_from(REDIS_HELD.as_secs())?;
    copies.write(COPIES_A_SECOND, total).await?;
    let what = format!("{total} events in Kafka, see {}", log("connect"));
    eventually(&what, Duration::from_secs(180), || async {
        Ok((topics::messages(&[TOPIC]).await? - before >= i64::try_from(total)?).then_some(()))
    })
    .await?;
    // a process that has done nothing yet, so that the peak is this step's
    projector.start(&[])?;
    projector_ready().await?;
    let (held, began) = (Process::running("redis")?.hold()?, Instant::now());
    let limit = Duration::from_secs(120);
    eventually("events that wait", limit, || async { Ok(behind().await?.filter(|behind| *behind > 0)) }).await?;
    eventually("no more of them", limit, || async { Ok(behind().await?.filter(|behind| *behind == 0)) }).await?;
    let rate = total as f64 / began.elapsed().as_secs_f64();
    tokio::time::sleep(REDIS_HELD.saturating_sub(began.elapsed())).await;
    drop(held);
    let held_mib = projector.peak_memory_bytes()? / (1024 * 1024);
    tools::audit_agrees(240).await?;
    let peak_mib = projector.peak_memory_bytes()? / (1024 * 1024);
    let told = format!(
        "{total} events came, {rate:.0}/s; peak {held_mib} MiB resident by then, {peak_mib} MiB after catching up"
    );
    ensure!(peak_mib < MEMORY_MAX_MIB, "above {MEMORY_MAX_MIB} MiB: {told}");
    ensure!(rate >= EVENTS_A_SECOND as f64, "slower than {EVENTS_A_SECOND}/s: {told}");
    Ok(told)
}

/// How many events a read model of another store than Redis has yet to read.
async fn behind() -> Result<Option<i64>> {
    // its exit code says that something is late
    let output = tools::output("projector", &["lag", "--output", "json"], Duration::from_secs(20)).await?;
    let lag: Value = serde_json::from_slice(&output.stdout).context("lag printed no JSON")?;
    let line = lag["read_models"].as_array().into_iter().flatten().find(|line| line["read_model"] == "order_details");
    Ok(line.and_then(|line| line["behind_events"].as_i64()))
}
