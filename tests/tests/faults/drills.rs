//! The drills of docs/operations.md, as they stand there: what is lost for good, and how everything comes back.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};
use tests::{
    eventually,
    processes::{Process, log, projector_ready},
    stores::Stores,
    tools, topics, var,
    write_side::WriteSide,
};

use crate::{
    long_form::{CONNECTOR, TOPIC, TOPICS},
    pause,
};

const SLOT: &str = "outbox_slot";
const LIMIT: Duration = Duration::from_secs(120);

/// "The slot is lost": what is committed until there is another one is in no topic.
pub(crate) async fn slot_lost(write_side: &WriteSide) -> Result<String> {
    pause(3_000).await;
    topics::stop_connector(CONNECTOR).await?;
    let projector = Process::running("projector-run")?;
    projector.terminate().await?;
    let before = write_side.events().await?;
    // Connect lets go of it a moment later.
    eventually("slot dropped", LIMIT, || async {
        sqlx::query("select pg_drop_replication_slot($1)").bind(SLOT).execute(write_side.pool()).await?;
        Ok(Some(()))
    })
    .await?;
    pause(3_000).await;
    let lost = write_side.events().await? - before;
    ensure!(lost > 0, "nothing was committed meanwhile: this proves nothing");
    let create = "select pg_create_logical_replication_slot($1, 'pgoutput')";
    sqlx::query(create).bind(SLOT).execute(write_side.pool()).await?;
    let offsets = format!("{}/connectors/{CONNECTOR}/offsets", var("CONNECT_URL")?);
    let answer = reqwest::Client::new().delete(offsets).send().await?;
    ensure!(answer.status().is_success(), "deleting the connector's offsets: {}", answer.text().await?);
    let mut sent = 0;
    for topic in TOPICS {
        sent += refilled(topic).await?;
    }
    tools::run("connectors", &["apply"]).await?;
    projector.start(&[])?;
    projector_ready().await?;
    tools::run("command-api", &["outbox", "accept"]).await?;
    Ok(format!("{lost} events were in no slot; {sent} republished"))
}

/// A topic deleted, and filled again from the event store.
async fn refilled(topic: &str) -> Result<u64> {
    topics::delete(topic).await?;
    tools::run("connectors", &["topics"]).await?;
    let sent = tools::json("projector", &["republish", topic, "--yes", "--output", "json"], LIMIT).await?;
    Ok(sent["partitions"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum())
}

/// "The write database was restored or failed over", where nothing is lost: the server goes on in another timeline. Commands fail
/// meanwhile.
pub(crate) async fn promoted(write_side: &WriteSide) -> Result<String> {
    pause(3_000).await;
    let folder: String = sqlx::query_scalar("show data_directory").fetch_one(write_side.pool()).await?;
    let former: String = sqlx::query_scalar("select outbox_epoch()").fetch_one(write_side.pool()).await?;
    let postgres = Process::running("postgres")?;
    postgres.interrupt().await?;
    fs::write(PathBuf::from(folder).join("standby.signal"), "")?;
    // By ./dev, which knows as whom it has to run.
    tools::run("xtask", &["up"]).await?;
    let url = var("WRITE_DATABASE_URL")?;
    let epoch: String = eventually(&format!("promoted, see {}", log("postgres")), LIMIT, || async {
        let mut server = PgConnection::connect(&url).await?;
        sqlx::query("select pg_promote() where pg_is_in_recovery()").execute(&mut server).await?;
        Ok(Some(sqlx::query_scalar("select outbox_epoch()").fetch_one(&mut server).await?))
    })
    .await?;
    ensure!(epoch != former, "the timeline is the same: {epoch}");
    // It may have failed while the server was away; this starts it again.
    tools::run("connectors", &["apply"]).await?;
    let stopped = stands_still(&epoch).await?;
    tools::run("projector", &["epoch", "accept", &epoch, "--reason", "standby promoted, nothing lost"]).await?;
    tools::run("command-api", &["outbox", "accept"]).await?;
    Ok(format!("from {former} to {epoch}; {stopped} read models waited for it to be accepted"))
}

/// Waits until partitions stand still for this reason; gives how many read models say so.
async fn stands_still(reason: &str) -> Result<usize> {
    eventually(
        &format!("a read model stands still because of {reason}, see {}", log("projector-run")),
        LIMIT,
        || async {
            // Its exit code says that something is late.
            let lag = tools::output("projector", &["lag", "--output", "json"], LIMIT).await?;
            let lag: Value = serde_json::from_slice(&lag.stdout).context("projector lag printed no JSON")?;
            let all = lag["read_models"].as_array().with_context(|| format!("no read models: {lag}"))?;
            let stopped =
                all.iter().filter(|one| one["state"] == "stopped" && one.to_string().contains(reason)).count();
            ensure!(stopped > 0, "{lag}");
            Ok(Some(stopped))
        },
    )
    .await
}

/// "A read model was behind for longer than Kafka keeps events": its topic is refilled.
pub(crate) async fn behind_for_too_long() -> Result<String> {
    let projector = Process::running("projector-run")?;
    projector.terminate().await?;
    pause(5_000).await;
    topics::forget_all(TOPIC).await?;
    projector.start(&[])?;
    let stopped = stands_still("deleted before they were handled").await?;
    topics::stop_connector(CONNECTOR).await?;
    projector.terminate().await?;
    let sent = refilled(TOPIC).await?;
    tools::run("connectors", &["apply"]).await?;
    projector.start(&[])?;
    Ok(format!("{stopped} read models stood still; {sent} republished"))
}

/// "The control store is gone", with nothing to restore it from.
pub(crate) async fn control_store_gone(write_side: &WriteSide) -> Result<String> {
    let (projector, serve) = (Process::running("projector-run")?, Process::running("projector-serve")?);
    projector.terminate().await?;
    serve.terminate().await?;
    empty(&var("CONTROL_DATABASE_URL")?, "public").await?;
    let removed = remove_read_models().await?;
    let epochs: Vec<String> =
        sqlx::query_scalar("select distinct epoch from events").fetch_all(write_side.pool()).await?;
    for epoch in &epochs {
        tools::run("projector", &["epoch", "accept", epoch, "--reason", "control store lost"]).await?;
    }
    tools::run("projector", &["apply"]).await?;
    projector.start(&[])?;
    serve.start(&[])?;
    projector_ready().await?;
    Ok(format!("{removed} places removed, {} epochs accepted", epochs.len()))
}

/// A database as it was made.
async fn empty(url: &str, schema: &str) -> Result<()> {
    let mut server = PgConnection::connect(url).await?;
    let sql = format!("drop schema if exists {schema} cascade; create schema {schema}");
    server.execute(sqlx::AssertSqlSafe(sql)).await?;
    Ok(server.close().await?)
}

/// All read models' places in all stores, and their progress.
async fn remove_read_models() -> Result<usize> {
    let redis = redis::Client::open(var("REDIS_URL")?)?;
    redis::cmd("FLUSHALL").exec_async(&mut redis.get_multiplexed_async_connection().await?).await?;
    empty(&var("READ_DATABASE_URL")?, "read_models").await?;
    let (http, search) = (reqwest::Client::new(), var("ELASTICSEARCH_URL")?);
    let indexes: Vec<Value> = http.get(format!("{search}/_cat/indices?format=json")).send().await?.json().await?;
    let names = indexes.iter().filter_map(|index| index["index"].as_str());
    let ours: Vec<&str> = names.filter(|name| name.contains("-g") || *name == "projector-progress").collect();
    for index in &ours {
        let answer = http.delete(format!("{search}/{index}")).send().await?;
        ensure!(answer.status().is_success(), "deleting {index}: {}", answer.text().await?);
    }
    let stores = Stores::connect().await?;
    let tables = stores.clickhouse("select name from system.tables where database = currentDatabase()", Vec::new());
    let tables = String::from_utf8(tables.await?)?;
    for table in tables.lines() {
        stores.clickhouse(&format!("drop table if exists {table}"), Vec::new()).await?;
    }
    Ok(ours.len() + tables.lines().count())
}
