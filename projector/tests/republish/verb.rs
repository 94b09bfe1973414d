//! The verb, and what it and a starting host refuse.

use crate::support::{Database, PARTITIONS, create_topic, kafka, of, own_type, remove_topics, var};
use anyhow::{Context as _, Result, ensure};
use projector::control::Generation;
use projector::query::partition_of;
use projector::source::{History, KafkaConfig, TopicWriter, before_reading, bounds, held, other_than};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A Kafka Connect whose one connector routes to all topics of events.
async fn connect_with(state: &'static str) -> Result<String> {
    let answer = serde_json::json!({ "outbox": {
        "info": { "config": {
            "transforms": "outbox",
            "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
            "transforms.outbox.route.topic.replacement": "events.${routedByValue}",
        } },
        "status": { "connector": { "state": state }, "tasks": [] },
    } });
    let router = axum::Router::new().route("/connectors", axum::routing::get(async move || axum::Json(answer)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(url)
}

/// The verb's exit, its result and what it said.
async fn republish(url: &str, topic: &str, more: &[&str]) -> Result<(bool, serde_json::Value, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_projector"));
    command.args(["republish", topic, "--output", "json", "--write-database-url", url]).args(more);
    command.env("RUST_LOG", "warn").stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.success(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said))
}

async fn verb(kafka: &KafkaConfig, url: &str, topic: &str) -> Result<()> {
    let (running, stopped) = (connect_with("RUNNING").await?, connect_with("STOPPED").await?);
    let (done, _, said) = republish(url, topic, &["--yes", "--connect-url", &running]).await?;
    ensure!(!done && said.contains(&format!("topic `{topic}` doesn't exist")), "{said}");
    ensure!(said.contains("connector outbox is RUNNING and writes to this topic"), "all findings at once: {said}");
    let (done, _, said) = republish(url, topic, &["--yes", "--connect-url", "http://127.0.0.1:9"]).await?;
    ensure!(!done && said.contains("--without-connect-check goes on if you know"), "{said}");

    create_topic(kafka, topic, PARTITIONS, &[]).await?;
    let quiet = ["--connect-url", &stopped];
    let (done, _, said) = republish(url, topic, &quiet).await?;
    ensure!(!done && said.contains("add --yes"), "nobody was there to ask: {said}");
    let (done, plan, said) = republish(url, topic, &[&quiet[..], &["--dry-run"]].concat()).await?;
    ensure!(done, "{said}");
    assert_eq!((&plan["events"], &plan["refusals"]), (&1_500.into(), &serde_json::json!([])));
    let empty = bounds(kafka, topic, PARTITIONS).await?;
    ensure!(empty.values().all(|(_, end)| *end == 0), "a dry run sends nothing");

    let (done, sent, said) = republish(url, topic, &[&quiet[..], &["--yes"]].concat()).await?;
    ensure!(done, "{said}");
    let partitions = sent["partitions"].as_object().context("counts")?;
    assert_eq!(partitions.values().filter_map(serde_json::Value::as_u64).sum::<u64>(), 1_500);
    for (partition, (_, end)) in bounds(kafka, topic, PARTITIONS).await? {
        assert_eq!(partitions[&partition.to_string()].as_i64(), Some(end));
    }
    let (done, _, said) = republish(url, topic, &["--yes", "--without-connect-check"]).await?;
    ensure!(!done && said.contains("isn't empty: its partitions hold some 1500"), "{said}");
    let (done, sent, said) = republish(url, topic, &["--yes", "--without-connect-check", "--resume"]).await?;
    ensure!(done && sent["partitions"] == serde_json::json!({}), "nothing was missing: {sent} {said}");
    Ok(())
}

/// A run that was cut off after 700 events, and the one that goes on with it.
async fn resumed(kafka: &KafkaConfig, url: &str, topic: &str, shelf: &str) -> Result<()> {
    create_topic(kafka, topic, PARTITIONS, &[]).await?;
    let mut history = History::open(url, &of(shelf)).await?;
    let mut writer = TopicWriter::new(kafka, topic)?;
    let mut left = 700;
    while left > 0 {
        for event in history.events().await?.iter().take(left) {
            writer.send(event).await?;
            left -= 1;
        }
    }
    writer.settle().await?;
    // What commits since comes behind.
    let late = format!(
        "insert into events (aggregate_type, stream_id, stream_position, aggregate_id)
         select '{shelf}', 'late-' || n, 1, 'late-' || n from generate_series(1, 50) as n"
    );
    sqlx::raw_sql(AssertSqlSafe(late)).execute(&mut PgConnection::connect(url).await?).await?;
    let (done, sent, said) = republish(url, topic, &["--yes", "--without-connect-check", "--resume"]).await?;
    ensure!(done && said.contains("holds 700 of them already"), "{said}");
    let counts = sent["partitions"].as_object().context("counts")?;
    assert_eq!(counts.values().filter_map(serde_json::Value::as_u64).sum::<u64>(), 850);

    // All of it, in the order of the event store, each once.
    let all = held(kafka, topic, &bounds(kafka, topic, PARTITIONS).await?).await?;
    assert_eq!(all.values().map(|held| held.count).sum::<u64>(), 1_550);
    let mut history = History::open(url, &of(shelf)).await?;
    assert_eq!(other_than(&mut history, &all, |key| partition_of(key, PARTITIONS)).await?, None);

    // Somebody else's message is found, wherever it lies.
    let mut history = History::open(url, &of(shelf)).await?;
    let again = history.events().await?;
    writer.send(&again[0]).await?;
    writer.settle().await?;
    let (done, _, said) = republish(url, topic, &["--yes", "--without-connect-check", "--resume"]).await?;
    ensure!(!done && said.contains("isn't the beginning of what is to be sent"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the stack: ./dev test"]
async fn an_interrupted_run_is_resumed() -> Result<()> {
    let (kafka, shelf, database) = (kafka()?, own_type(), Database::create().await?);
    fill(&database, &shelf).await?;
    let topic = format!("events.{shelf}");
    let steps = {
        let (kafka, url, topic, shelf) = (kafka.clone(), database.url.clone(), topic.clone(), shelf.clone());
        tokio::spawn(async move { resumed(&kafka, &url, &topic, &shelf).await }).await
    };
    remove_topics(&kafka, &[&topic]).await?;
    database.remove().await?;
    steps.context("the steps panicked")?
}

/// 1,500 events of 100 aggregates.
async fn fill(database: &Database, shelf: &str) -> Result<()> {
    let rows = format!(
        "insert into events (aggregate_type, stream_id, stream_position, aggregate_id)
         select '{shelf}', 's-' || n % 100, n / 100 + 1, 's-' || n % 100 from generate_series(0, 1499) as n"
    );
    sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut PgConnection::connect(&database.url).await?).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the stack: ./dev test"]
async fn the_verb_fills_an_empty_topic_once_and_refuses_any_other() -> Result<()> {
    let (kafka, shelf, database) = (kafka()?, own_type(), Database::create().await?);
    fill(&database, &shelf).await?;
    let topic = format!("events.{shelf}");
    let steps = {
        let (kafka, url, topic) = (kafka.clone(), database.url.clone(), topic.clone());
        tokio::spawn(async move { verb(&kafka, &url, &topic).await }).await
    };
    remove_topics(&kafka, &[&topic]).await?;
    database.remove().await?;
    steps.context("the steps panicked")?
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the stack: ./dev test"]
async fn a_host_is_told_everything_that_is_wrong_with_its_topics() -> Result<()> {
    let (kafka, connect) = (kafka()?, var("CONNECT_URL")?);
    let topic = format!("events.{}", own_type());
    let generation = |partitions: i32| Generation {
        generation_id: 1,
        read_model: "shelves".to_owned(),
        generation: 1,
        state: "live".to_owned(),
        fingerprint: String::new(),
        config: String::new(),
        topics: [(topic.clone(), partitions)].into(),
    };
    let missing = before_reading(&kafka, Some(&connect), &[generation(3)], None).await;
    let wrong = [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")];
    create_topic(&kafka, &topic, 3, &wrong).await?;
    let several = before_reading(&kafka, Some(&connect), &[generation(4)], None).await;
    remove_topics(&kafka, &[&topic]).await?;
    assert_eq!(missing.unwrap_err().0.len(), 1);
    let several = several.unwrap_err();
    assert_eq!(several.0.len(), 3, "{several}");
    ensure!(several.to_string().contains("has 3 partitions, and shelves-g1 was built with 4"), "{several}");

    let right = format!("events.{}", own_type());
    create_topic(&kafka, &right, 3, &[]).await?;
    let live = Generation { topics: [(right.clone(), 3)].into(), ..generation(3) };
    // Connect may be down: a host doesn't wait for it.
    let checked = before_reading(&kafka, Some("http://127.0.0.1:9"), std::slice::from_ref(&live), None).await;
    let with_connect = before_reading(&kafka, Some(&connect), &[live], None).await;
    remove_topics(&kafka, &[&right]).await?;
    checked.and(with_connect).map_err(Into::into)
}

/// Kafka comes up behind the first attempt's end: here as a door to the real one that opens late.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the stack: ./dev test"]
async fn kafka_is_waited_for() -> Result<()> {
    let real = kafka()?.kafka_brokers;
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let late = KafkaConfig { kafka_brokers: door.to_string(), instance_id: None };
    let waiting = tokio::spawn(async move { before_reading(&late, None, &[], None).await });
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    ensure!(!waiting.is_finished(), "it must wait for as long as it takes");
    let listener = tokio::net::TcpListener::bind(door).await?;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let Ok(mut broker) = tokio::net::TcpStream::connect(&real).await else { return };
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut broker).await });
        }
    });
    Ok(tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .context("it doesn't notice that kafka is back")???)
}
