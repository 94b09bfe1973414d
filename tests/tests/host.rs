//! What one host does about what is wrong around it: a topic that lost messages, what is misconfigured, a control store that is out of
//! reach; and what its log lines are.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::DateTime;
use serde_json::{Value, json};
use tests::{eventually, garden::Garden, hook::Hook, outbox::Outbox, tools, topics, var};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

const SOON: Duration = Duration::from_secs(60);

async fn grow(outbox: &mut Outbox, leaves: std::ops::RangeInclusive<i64>) -> Result<()> {
    for leaves in leaves {
        outbox.send("PlantGrew", 1, "p-1", json!({"leaves": leaves, "note": "hush-payload"})).await?;
    }
    Ok(())
}

async fn dig(outbox: &mut Outbox, metres: i64) -> Result<()> {
    outbox.send("BedDug", 1, "b-1", json!({"metres": metres, "note": ""})).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_read_model_that_lost_messages_stands_and_the_others_go_on() -> Result<()> {
    let garden = Garden::new().await?;
    let (plants, beds) = (Garden::topic(&garden.plants), Garden::topic(&garden.beds));
    topics::make(&plants).await?;
    topics::make(&beds).await?;
    garden.apply().await?;
    let (mut growing, mut digging) = (garden.outbox().await?, garden.outbox().await?);
    let host = garden.host("before", &[])?;
    grow(&mut growing, 1..=3).await?;
    dig(&mut digging, 1).await?;
    garden.handled(&garden.plants, 3).await?;
    garden.handled(&garden.beds, 1).await?;
    host.terminate().await?;

    // 3 is neither handled nor there any more: 4 to 6 are left.
    grow(&mut growing, 4..=7).await?;
    topics::forget_first_half(&plants).await?;
    let mut host = garden.host("lost", &[])?;
    let line = eventually("it is said that messages are lost", SOON, async || {
        let line = garden.line(&garden.plants).await?;
        Ok((line["state"] == "stopped").then_some(line))
    })
    .await
    .with_context(|| host.log().unwrap_or_default())?;
    let text = line["text"].as_str().context("no text")?;
    let expected = ": messages 3 to 3 were deleted before they were handled: the topic's retention";
    ensure!(text.starts_with(&format!("{plants}/")) && text.contains(expected), "{text}");
    ensure!(text.contains("from the event store") && text.contains(&format!("republish {plants}")), "{text}");
    for metres in 2..=4 {
        dig(&mut digging, metres).await?;
        garden.handled(&garden.beds, metres).await?;
    }
    garden.shows(&garden.beds, "b-1", 4).await?;
    garden.shows(&garden.plants, "p-1", 3).await?;

    // Everywhere where it is looked for.
    let token = var("ADMIN_TOKEN")?;
    let expected = [
        format!("projection_state{{read_model=\"{}\",generation=\"1\",state=\"stopped\"}} 1", garden.plants),
        "projection_alert_active{alert=\"partition-stopped\"".to_owned(),
    ];
    eventually("the metrics say so, and an alert stands", SOON, async || {
        let page = host.answers("/metrics", &token).await?;
        Ok(expected.iter().all(|line| page.contains(line)).then_some(()))
    })
    .await?;
    for path in ["/".to_owned(), format!("/read-models/{}", garden.plants)] {
        let page = host.answers(&path, &token).await?;
        ensure!(page.contains("were deleted before they were handled"), "{path}: {page}");
    }
    let (status, ..) = garden.said(&["status"], &[]).await?;
    ensure!(status.contains("were deleted before they were handled"), "{status}");
    ensure!(host.runs()?, "the host ended: {}", host.log()?);
    host.terminate().await?;

    // A refilled topic mends it.
    topics::make_anew(&plants).await?;
    let mut growing = garden.outbox().await?;
    grow(&mut growing, 1..=7).await?;
    let host = garden.host("refilled", &[])?;
    garden.shows(&garden.plants, "p-1", 7).await.with_context(|| host.log().unwrap_or_default())?;
    garden.handled(&garden.plants, 7).await?;
    // What the former host said counts for some seconds.
    eventually("nothing stands any more", SOON, async || {
        let line = garden.line(&garden.plants).await?;
        ensure!(line["state"] != "stopped", "{line:#}");
        Ok(Some(()))
    })
    .await?;
    host.terminate().await
}

/// Far more waits than a batch may have, and several batches are under way: every event counts all the same.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_backlog_in_small_batches_is_handled_whole() -> Result<()> {
    const PLANTS: i64 = 50;
    const EACH: i64 = 60;
    let garden = Garden::new().await?;
    garden.limit_plants("{ batch_max: 7 }")?;
    let plants = Garden::topic(&garden.plants);
    topics::make(&plants).await?;
    topics::make(&Garden::topic(&garden.beds)).await?;
    garden.apply().await?;
    let mut outbox = garden.outbox().await?;
    for leaves in 1..=EACH {
        for plant in 0..PLANTS {
            let data = json!({"leaves": leaves, "note": ""});
            outbox.queue("PlantGrew", 1, &format!("p-{plant}"), data, "{}").await?;
        }
    }
    outbox.flush().await?;
    let host = garden.host("backlog", &[])?;
    garden.handled(&garden.plants, PLANTS * EACH).await?;
    for plant in 0..PLANTS {
        garden.shows(&garden.plants, &format!("p-{plant}"), EACH).await?;
    }
    let line = garden.line(&garden.plants).await?;
    ensure!(line["parked"] == 0, "{line}: {}", host.log()?);
    host.terminate().await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_is_misconfigured_is_named_at_the_start() -> Result<()> {
    tools::services_up().await?;
    let garden = Garden::new().await?;
    let (plants, partitions) = (Garden::topic(&garden.plants), var("TOPIC_PARTITIONS")?);
    topics::make(&plants).await?;
    topics::make(&Garden::topic(&garden.beds)).await?;
    garden.apply().await?;
    let refused = async |expected: &[&str]| -> Result<()> {
        let (_, said, done) = garden.said(&["run"], &[]).await?;
        ensure!(!done && expected.iter().all(|text| said.contains(text)), "{expected:?} in {said}");
        ensure!(!said.contains(&garden.beds), "nothing is wrong with the other topic: {said}");
        Ok(())
    };
    topics::delete(&plants).await?;
    let gone = format!("topic `{plants}` doesn't exist, or has no partitions");
    refused(&[&gone, "`connectors apply` creates it"]).await?;
    topics::make_with(&plants, 3).await?;
    let fewer = format!("topic `{plants}` has 3 partitions, and {}-g1 was built with {partitions}", garden.plants);
    refused(&[&fewer, &format!("create it again with {partitions} partitions and refill it")]).await?;
    topics::make_anew(&plants).await?;

    // What it can start without.
    let missing = [("OUTBOX_SLOT", "none_such"), ("SCHEMA_REGISTRY_URL", "http://127.0.0.1:1")];
    let host = garden.host("without", &missing)?;
    let expected = [
        "there is no replication slot none_such",
        "nothing new reaches Kafka: name the connector's (OUTBOX_SLOT)",
        "the schema registry doesn't answer",
        "mend SCHEMA_REGISTRY_URL, or start it",
    ];
    eventually("the slot and the registry are named", SOON, async || {
        let log = host.log()?;
        let unsaid: Vec<_> = expected.iter().filter(|text| !log.contains(**text)).collect();
        ensure!(unsaid.is_empty(), "{unsaid:?} in {log}");
        Ok(Some(()))
    })
    .await?;
    host.terminate().await
}

/// A way to a server that can be shut.
struct Gate {
    port: u16,
    open: watch::Sender<bool>,
}

impl Gate {
    async fn before(server: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (port, open) = (listener.local_addr()?.port(), watch::Sender::new(true));
        let watched = open.subscribe();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, mut watched) = (server.clone(), watched.clone());
                tokio::spawn(async move {
                    if !*watched.borrow_and_update() {
                        return;
                    }
                    let Ok(mut server) = TcpStream::connect(server).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = watched.changed() => {}
                    }
                });
            }
        });
        Ok(Self { port, open })
    }
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_control_store_out_of_reach_is_told_by_each_host() -> Result<()> {
    let garden = Garden::new().await?;
    for name in [&garden.plants, &garden.beds] {
        topics::make(&Garden::topic(name)).await?;
    }
    garden.apply().await?;
    let (credentials, rest) = garden.control.split_once('@').context("a URL with a user")?;
    let (server, database) = rest.split_once('/').context("a URL with a database")?;
    let (gate, hook) = (Gate::before(server.to_owned()).await?, Hook::start().await?);
    let control = format!("{credentials}@127.0.0.1:{}/{database}", gate.port);
    let mut host = garden.host("reach", &[("CONTROL_DATABASE_URL", &control), ("ALERT_WEBHOOK_URL", &hook.url)])?;
    let mut growing = garden.outbox().await?;
    grow(&mut growing, 1..=1).await?;
    garden.handled(&garden.plants, 1).await?;
    let up = async |value: u8| {
        eventually(&format!("projection_control_store_up is {value}"), SOON, async || {
            let page = host.answers("/metrics", "").await?;
            let line = page.lines().find(|line| line.starts_with("projection_control_store_up"));
            ensure!(line.is_some_and(|line| line.ends_with(&format!(" {value}"))), "{line:?}: {}", host.log()?);
            Ok(Some(()))
        })
        .await
    };
    up(1).await?;

    gate.open.send_replace(false);
    let shut = std::time::Instant::now();
    up(0).await?;
    // What is under way goes on.
    grow(&mut growing, 2..=2).await?;
    garden.shows(&garden.plants, "p-1", 2).await?;
    let (at, told) =
        eventually("the webhook is told", SOON, async || Ok(hook.told("control-store-down", "firing", None))).await?;
    let took = at - shut;
    println!("told after {took:?}: {told}");
    ensure!((9..17).contains(&took.as_secs()), "told after {took:?}");
    let text = told["text"].as_str().context("no text")?;
    ensure!(text.starts_with(&format!("control store unreachable from host {}", garden.plants)), "{text}");
    ensure!(told["remedy"].as_str().is_some_and(|remedy| remedy.contains("CONTROL_DATABASE_URL")), "{told}");
    ensure!(host.log()?.contains("control store unreachable from host"), "the log doesn't say it");

    gate.open.send_replace(true);
    eventually("the webhook is told that it is back", SOON, async || {
        Ok(hook.told("control-store-down", "resolved", None))
    })
    .await?;
    up(1).await?;
    garden.handled(&garden.plants, 2).await?;
    let firing =
        hook.all().iter().filter(|(_, m)| m["alert"] == "control-store-down" && m["status"] == "firing").count();
    ensure!(firing == 1, "told {firing} times");
    ensure!(host.runs()?, "the host ended: {}", host.log()?);
    host.terminate().await
}

/// A URL with a password.
fn with_password(url: &str, password: &str) -> String {
    url.replacen("app@", &format!("app:{password}@"), 1)
}

/// Each line as JSON, with what docs/tracing.md promises of it.
fn lines(log: &str) -> Result<Vec<Value>> {
    let parse = |text: &str| -> Result<Value> {
        let line: Value = serde_json::from_str(text).with_context(|| format!("no JSON: {text}"))?;
        let level = line["level"].as_str().context("no level")?;
        ensure!(["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level), "{text}");
        ensure!(line["target"].is_string() && line["message"].is_string(), "no target or message: {text}");
        let time = line["timestamp"].as_str().map(DateTime::parse_from_rfc3339);
        ensure!(matches!(time, Some(Ok(_))) || (time.is_none() && line["left_out"].is_u64()), "no time: {text}");
        Ok(line)
    };
    log.lines().map(parse).collect()
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn log_lines_are_json_and_tell_no_secret() -> Result<()> {
    tools::services_up().await?;
    let garden = Garden::new().await?;
    for name in [&garden.plants, &garden.beds] {
        topics::make(&Garden::topic(name)).await?;
    }
    garden.apply().await?;
    let urls = ["WRITE_DATABASE_URL", "READ_DATABASE_URL"];
    let urls = urls.into_iter().map(|name| Ok((name, with_password(&var(name)?, "hush-password"))));
    let mut environment = urls.collect::<Result<Vec<_>>>()?;
    environment.extend(
        [
            ("CONTROL_DATABASE_URL", with_password(&garden.control, "hush-password").as_str()),
            ("LOG_FORMAT", "json"),
            ("RUST_LOG", "info,projector=debug,telemetry=debug"),
            ("ADMIN_TOKEN", "hush-admin-token-of-an-operator"),
            // Alerts that nobody takes, spans that nobody receives.
            ("OUTBOX_SLOT", "none_such"),
            ("ALERT_WEBHOOK_URL", "http://hook:hush-password@127.0.0.1:1/hook?key=hush-key"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:hush-password@127.0.0.1:1"),
        ]
        .map(|(name, value)| (name, value.to_owned())),
    );
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let host = garden.host("json", &environment)?;
    grow(&mut garden.outbox().await?, 1..=20).await?;
    garden.handled(&garden.plants, 20).await.with_context(|| host.log().unwrap_or_default())?;
    let said = ["assigned", "there is no replication slot none_such", "not told to the alert webhook"];
    eventually("the host has said what is wrong", SOON, async || {
        let log = host.log()?;
        let unsaid: Vec<_> = said.iter().filter(|text| !log.contains(**text)).collect();
        ensure!(unsaid.is_empty(), "{unsaid:?} in {log}");
        Ok(Some(()))
    })
    .await?;
    // What a host says of a request that isn't let in.
    ensure!(host.answers("/v1/log", "hush-wrong-token").await.is_err(), "a wrong token is let in");
    let log = host.log()?;
    host.terminate().await?;
    let all = lines(&log)?;
    ensure!(all.len() > 10 && all.iter().any(|line| line["level"] == "DEBUG"), "{log}");
    let assigned = all.iter().find(|line| line["message"] == "assigned").context("no partition was assigned")?;
    ensure!(assigned["generation"].is_string() && assigned["partitions"].is_u64(), "{assigned}");
    ensure!(!log.contains("hush-"), "{}", log.lines().filter(|line| line.contains("hush-")).collect::<String>());

    // What ends a command is such a line, too.
    let nowhere = "postgres://app:hush-password@127.0.0.1:1/none";
    let (_, said, done) = garden.said(&["lag"], &[("CONTROL_DATABASE_URL", nowhere), ("LOG_FORMAT", "json")]).await?;
    let last = lines(&said)?.pop().context("nothing is said")?;
    ensure!(!done && last["level"] == "ERROR", "{said}");
    ensure!(!said.contains("hush-"), "{said}");
    Ok(())
}

#[test]
fn a_line_that_is_not_as_promised_is_found() {
    let right =
        r#"{"timestamp":"2026-11-21T22:02:30.983305Z","level":"INFO","target":"projector::host","message":"running"}"#;
    assert_eq!(lines(right).unwrap().len(), 1);
    let cut = format!("{right}\nprojector: it ended");
    let (untimed, loud) = (right.replace("timestamp", "time"), right.replace("INFO", "Loud"));
    for wrong in [&cut, &untimed, &loud] {
        assert!(lines(wrong).is_err(), "{wrong}");
    }
}
