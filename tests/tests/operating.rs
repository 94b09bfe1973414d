//! What whoever operates the platform sees while a store is down, and while nothing reaches Kafka: by the command line, the
//! metrics, and a webhook that really listens.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tests::{
    ALONE, eventually,
    hook::Hook,
    processes::{Process, connector_running, projector_ready},
    shop::Shop,
    tools, var,
};
use tokio::time::sleep;

/// How soon what is down must be said, and how soon after it is back all must be well.
const SAID_WITHIN: Duration = Duration::from_secs(3);
const GREEN_WITHIN: Duration = Duration::from_secs(5);
const DOWN_FOR: Duration = Duration::from_secs(20);

/// The instance's projector, telling its alerts to a listener of this test's.
struct Listening(Hook);

impl Listening {
    async fn start() -> Result<Self> {
        let hook = Hook::start().await?;
        let projector = Process::running("projector-run")?;
        projector.terminate().await?;
        projector.start(&[("ALERT_WEBHOOK_URL", &hook.url)])?;
        projector_ready().await?;
        Ok(Self(hook))
    }

    /// As it was before.
    async fn stop(self) -> Result<()> {
        let projector = Process::running("projector-run")?;
        projector.terminate().await?;
        projector.start(&[("ALERT_WEBHOOK_URL", "")])?;
        projector_ready().await
    }

    /// When an alert was told first.
    fn told(&self, alert: &str, status: &str, read_model: Option<&str>) -> Option<(Instant, Value)> {
        self.0.told(alert, status, read_model)
    }

    /// Nobody is told that the projector is slow since then.
    fn nobody_blames_the_projector(&self, then: Instant) -> Result<()> {
        const BLAMES: [&str; 4] = ["read-model-late", "falls-behind", "partition-stopped", "no-host"];
        let blames = |m: &Value| m["status"] == "firing" && BLAMES.iter().any(|name| m["alert"] == *name);
        let blame = self.0.all().into_iter().find(|(at, message)| *at > then && blames(message));
        ensure!(blame.is_none(), "the projector is blamed: {blame:?}");
        Ok(())
    }
}

/// `projector lag --output json`, and its exit code.
async fn lag() -> Result<(Value, Option<i32>)> {
    let output = tools::output("projector", &["lag", "--output", "json"], Duration::from_secs(20)).await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    Ok((serde_json::from_slice(&output.stdout).with_context(|| format!("{errors}"))?, output.status.code()))
}

async fn metrics() -> Result<String> {
    Ok(reqwest::get(format!("{}/metrics", var("PROJECTOR_ADMIN_URL")?)).await?.error_for_status()?.text().await?)
}

fn live(report: &Value) -> impl Iterator<Item = &Value> {
    report["read_models"].as_array().into_iter().flatten().filter(|line| line["generation_state"] == "live")
}

fn line<'a>(report: &'a Value, read_model: &str) -> Result<&'a Value> {
    live(report).find(|line| line["read_model"] == read_model).with_context(|| format!("no {read_model} in {report:#}"))
}

/// All is well: nothing is late, waits or is unknown, and rows reach Kafka.
async fn is_green() -> Result<Option<Value>> {
    let (report, code) = lag().await?;
    let well = live(&report).all(|line| line["state"] == "ok") && report["before_kafka"]["state"] == "ok";
    Ok((well && code == Some(0)).then_some(report))
}

/// And nothing was told that isn't over.
async fn quiet(limit: Duration) -> Result<()> {
    green(limit).await?;
    eventually("no alert stands", limit, || async {
        let (report, _) = lag().await?;
        let stands = report["alerts"].as_array().into_iter().flatten().any(|alert| alert["resolved_at"].is_null());
        Ok((!stands).then_some(()))
    })
    .await
}

async fn green(limit: Duration) -> Result<Value> {
    let asked = eventually("all read models ok", limit, || async {
        let green = is_green().await?;
        if green.is_none() {
            sleep(Duration::from_millis(300)).await;
        }
        Ok(green)
    });
    match asked.await {
        Ok(report) => Ok(report),
        Err(error) => Err(error.context(format!("{:#}", lag().await?.0))),
    }
}

/// Places an order every 100 ms until it is stopped; gives their ids.
fn orders(shop: &Shop) -> (tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<Result<Vec<String>>>) {
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let shop = shop.clone();
    let task = tokio::spawn(async move {
        let mut placed = Vec::new();
        while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            placed.push(shop.place().await?.order_id);
            sleep(Duration::from_millis(100)).await;
        }
        Ok(placed)
    });
    (stop, task)
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_stopped_store_is_said_within_seconds_and_so_is_its_return() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let listening = Listening::start().await?;
    quiet(Duration::from_secs(60)).await?;
    let (stop, placing) = orders(&shop);
    sleep(Duration::from_secs(3)).await;

    let redis = Process::running("redis")?;
    redis.terminate().await?;
    let (down, since) = (Instant::now(), Utc::now());
    let seen = without_redis(&listening, down, since).await;
    sleep(DOWN_FOR.saturating_sub(down.elapsed())).await;
    // As its start-up file says: it overwrites its own arguments.
    let starting = tokio::spawn(tools::run("xtask", &["up"]));
    eventually("redis answers", Duration::from_secs(60), || async {
        let client = redis::Client::open(var("REDIS_URL")?)?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let answer: String = redis::cmd("PING").query_async(&mut connection).await?;
        Ok((answer == "PONG").then_some(()))
    })
    .await?;
    let back = Instant::now();
    seen?;
    green(2 * GREEN_WITHIN).await?;
    let took = back.elapsed();
    println!("all is well {took:?} after Redis is back");
    ensure!(took < GREEN_WITHIN, "all is well only {took:?} after it is back");
    ensure!(
        !metrics().await?.contains("projection_waiting_since_timestamp_seconds{"),
        "/metrics still says that something waits"
    );
    let resolved = || listening.told("store-down", "resolved", Some("order_summary"));
    eventually("the webhook is told that it is over", GREEN_WITHIN, || async { Ok(resolved()) }).await?;

    let _ = stop.send(());
    let placed = placing.await??;
    starting.await??;
    println!("{} orders were placed meanwhile", placed.len());
    tools::audit_agrees(60).await?;
    listening.stop().await
}

/// What is seen while Redis is away since `down`.
async fn without_redis(listening: &Listening, down: Instant, since: DateTime<Utc>) -> Result<()> {
    // each of the three says that order_summary waits for Redis, and since when
    let (mut by_command, mut by_metric, mut by_webhook) = (None, None, None);
    while down.elapsed() < 3 * SAID_WITHIN && (by_command.is_none() || by_metric.is_none() || by_webhook.is_none()) {
        if by_metric.is_none() {
            let text = metrics().await?;
            let line = text.lines().find(|l| {
                l.starts_with("projection_waiting_since_timestamp_seconds{")
                    && l.contains("read_model=\"order_summary\"")
            });
            by_metric = line.map(|line| (down.elapsed(), line.to_owned()));
        }
        if by_webhook.is_none() {
            let told = listening.told("store-down", "firing", Some("order_summary"));
            by_webhook = told.map(|(at, message)| (at.saturating_duration_since(down), message));
        }
        if by_command.is_none() {
            let (report, code) = lag().await?;
            let line = line(&report, "order_summary")?;
            if line["state"] == "waiting" {
                by_command = Some((down.elapsed(), line.clone(), code, report.clone()));
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    let (took, said, code, report) = by_command.context("projector lag doesn't say that order_summary waits")?;
    println!("said by projector lag after {took:?}");
    ensure!(took < SAID_WITHIN, "projector lag says it after {took:?}");
    ensure!(code == Some(2), "exit code {code:?}");
    ensure!(
        said["waiting"]["on"] == "redis" && said["text"].as_str().is_some_and(|t| t.contains("redis is down")),
        "{said:#}"
    );
    let said_since = said["since"].as_str().context("no since")?.to_owned();
    ensure!(is_near(&said_since, since)?, "since {said_since}, it was stopped at {since}");
    let others = live(&report).filter(|line| line["store"] != "redis");
    let wrong: Vec<_> = others.filter(|line| line["state"] == "waiting").collect();
    ensure!(wrong.is_empty(), "they don't need Redis: {wrong:#?}");

    let (took, metric) = by_metric.context("/metrics doesn't say that order_summary waits")?;
    println!("said by /metrics after {took:?}: {metric}");
    ensure!(took < SAID_WITHIN && metric.contains("on=\"redis\""), "{metric} after {took:?}");
    let (took, message) = by_webhook.context("the webhook doesn't say that order_summary waits")?;
    println!("said by the webhook after {took:?}: {message}");
    ensure!(took < SAID_WITHIN, "the webhook says it after {took:?}");
    ensure!(
        message["severity"] == "critical" && message["remedy"].as_str().is_some_and(|r| !r.is_empty()),
        "{message}"
    );
    ensure!(is_near(message["since"].as_str().unwrap_or_default(), since)?, "{message}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_is_not_published_is_said_and_nobody_blames_the_projector() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let listening = Listening::start().await?;
    quiet(Duration::from_secs(60)).await?;

    let connect = Process::running("connect")?;
    connect.kill().await?;
    let (stop, placing) = orders(&shop);
    let down = Instant::now();
    let seen = without_connect(&listening, down).await;
    connect.start(&[])?;
    connector_running().await?;
    seen?;
    let _ = stop.send(());
    let placed = placing.await??;
    green(Duration::from_secs(60)).await?;
    let resolved = || listening.told("outbox-not-published", "resolved", None);
    eventually("the webhook is told that it is over", Duration::from_secs(15), || async { Ok(resolved()) }).await?;
    listening.nobody_blames_the_projector(down)?;
    println!("{} orders were placed meanwhile", placed.len());
    tools::audit_agrees(60).await?;
    listening.stop().await
}

/// What is seen while ten orders a second are placed and Connect is away since `down`.
async fn without_connect(listening: &Listening, down: Instant) -> Result<()> {
    let unpublished = |report: &Value| report["before_kafka"]["outbox"]["unpublished"].as_i64().unwrap_or_default();
    let report = eventually("the outbox is said to be late", Duration::from_secs(20), || async {
        let (report, code) = lag().await?;
        let late = ["late", "critical"].iter().any(|state| report["before_kafka"]["state"] == *state);
        Ok((late && code == Some(2)).then_some(report))
    })
    .await?;
    let (before, leg) = (unpublished(&report), &report["before_kafka"]);
    ensure!(before > 10, "{before} events, while 10 orders a second are placed: {leg:#}");
    let text = leg["text"].as_str().unwrap_or_default();
    println!("said after {:?}: {text}", down.elapsed());
    ensure!(text.contains("not published") && text.contains("nobody reads slot"), "{text}");
    ensure!(leg["connect"]["state"] == "UNREACHABLE" && leg["slot"]["active"] == false, "{leg:#}");
    let slow: Vec<_> = live(&report).filter(|line| line["state"] != "ok" && line["state"] != "unknown").collect();
    ensure!(slow.is_empty(), "{slow:#?}");

    let told = || listening.told("outbox-not-published", "firing", None);
    let (_, message) = eventually("the webhook is told", Duration::from_secs(10), || async { Ok(told()) }).await?;
    println!("{message}");
    ensure!(message["text"].as_str().is_some_and(|t| t.starts_with("outbox not published")), "{message}");
    sleep(Duration::from_secs(3)).await;
    let (report, _) = lag().await?;
    ensure!(unpublished(&report) > before, "it doesn't grow: {before}, {}", unpublished(&report));
    let text = metrics().await?;
    let active = "projection_alert_active{alert=\"outbox-not-published\"";
    ensure!(text.lines().any(|line| line.starts_with(active)), "{text}");
    listening.nobody_blames_the_projector(down)
}

/// The rules are what Prometheus takes, and a broken one isn't.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn promtool_takes_the_alert_rules() -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/prometheus/alerts.yaml");
    let check = |path: &Path| {
        let checked = std::process::Command::new("promtool").args(["check", "rules"]).arg(path).output();
        checked.context("promtool is not there: ./dev test installs Debian's package prometheus")
    };
    let checked = check(&file)?;
    let said = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    ensure!(checked.status.success(), "{said}");
    println!("{said}");
    let broken = std::env::temp_dir().join(format!("alerts-{}.yaml", std::process::id()));
    std::fs::write(&broken, std::fs::read_to_string(&file)?.replace("time() - ", "time( - "))?;
    let checked = check(&broken);
    std::fs::remove_file(&broken)?;
    ensure!(!checked?.status.success(), "promtool takes anything: this test shows nothing");
    Ok(())
}

/// Whether a time is less than 3 s from another.
fn is_near(text: &str, other: DateTime<Utc>) -> Result<bool> {
    let time = DateTime::parse_from_rfc3339(text).with_context(|| format!("`{text}` is no time"))?;
    Ok((time.to_utc() - other).num_milliseconds().abs() < 3_000)
}
