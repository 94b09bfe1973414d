//! What being watched costs: a host that reads a backlog, again and again, in turn with and without traces (1 % sampled, to a receiver that
//! takes them) and scrapes of its metrics. Events a second say it where nothing else runs on the machine; what the host's processor
//! time for an event is says it anywhere. Counters can't be switched off; what they take is measured beside it, in
//! `projector/src/host/measures.rs`.
//!
//! `./dev test --workspace --test telemetry_cost -- long_form --nocapture` prints the ratio. `EVENTS` and `RUNS` change its size, and `PROJECTOR_BINARY`
//! names a binary built otherwise than for tests; or a script that runs it under callgrind, whose counts don't drift (`WITHIN_S` then gives it
//! the time that it needs):
//!
//! ```text
//! #!/bin/sh
//! [ "$1" = run ] || exec ../target/debug/projector "$@"
//! exec valgrind --tool=callgrind --callgrind-out-file=/dev/null ../target/debug/projector "$@" 2>> counts
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use axum::{Router, body::Bytes, routing::post};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tests::{binary, garden::Garden, outbox::Outbox, own_database, topics, var};
use tokio::process::Command;
use uuid::Uuid;

/// Events of each document.
const EVENTS_EACH: u64 = 5;
/// Of each hundred traces one is kept.
const SAMPLED: u64 = 100;
const SCRAPED_EVERY: Duration = Duration::from_secs(1);
/// It and its neighbour are nobody else's.
const REDIS_DATABASE: u32 = 20;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn run_within() -> Duration {
    Duration::from_secs(number("WITHIN_S", 180))
}

/// A receiver of traces, which takes what comes.
struct Receiver {
    url: String,
    bytes: Arc<AtomicU64>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Receiver {
    async fn start() -> Result<Self> {
        let bytes = Arc::<AtomicU64>::default();
        let got = Arc::clone(&bytes);
        let take = move |body: Bytes| {
            got.fetch_add(body.len() as u64, Ordering::Relaxed);
            async {}
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = Router::new().route("/v1/traces", post(take));
        Ok(Self { url, bytes, server: tokio::spawn(async move { axum::serve(listener, app).await }) })
    }
}

/// Fills the topic of plants: each event has the trace of its command, as command-api sends it.
async fn fill(outbox: &mut Outbox, events: u64) -> Result<()> {
    let documents = (events / EVENTS_EACH).max(1);
    for n in 0..events {
        let (trace, kept) = (Uuid::new_v4().simple(), u8::from(n % SAMPLED == 0));
        let metadata = format!(r#"{{"traceparent":"00-{trace}-00f067aa0ba902b7-{kept:02}","actor":"bench"}}"#);
        let data = serde_json::json!({"leaves": n % 1_000, "note": format!("what is written of plant {n}")});
        outbox.queue("PlantGrew", 1, &format!("p-{}", n % documents), data, &metadata).await?;
    }
    outbox.flush().await
}

/// What a host did of the backlog from the first tenth on.
#[derive(Clone, Copy, Default)]
struct Read {
    events_per_s: f64,
    cpu_us_per_event: f64,
}

/// Processor time that a process has taken, in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').context("no name")?.1.split_whitespace().skip(11).take(2);
    fields.map(|ticks| Ok(ticks.parse::<u64>()?)).sum()
}

/// One host reads the backlog from its beginning, into an empty database.
async fn read(garden: &Garden, events: u64, watched: Option<&Receiver>) -> Result<Read> {
    let control = own_database("cost").await?;
    let redis = redis::Client::open(var("REDIS_URL")?)?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    for database in [REDIS_DATABASE, REDIS_DATABASE + 1] {
        redis::pipe().cmd("SELECT").arg(database).cmd("FLUSHDB").exec_async(&mut redis).await?;
    }
    let listen = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let program = std::env::var_os("PROJECTOR_BINARY").map_or_else(|| binary("projector"), PathBuf::from);
    let command = |verb: &str| {
        let mut command = Command::new(&program);
        command.arg(verb).envs(garden.environment()).env("CONTROL_DATABASE_URL", &control);
        command.env("PROJECTOR_ADMIN_LISTEN", &listen).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        command
    };
    ensure!(command("apply").status().await?.success(), "nothing is applied");
    let mut host = command("run");
    if let Some(receiver) = watched {
        host.env("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.url);
    } else {
        host.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    }
    let mut host = host.spawn()?;
    let scraping = watched.map(|_| {
        let url = format!("http://{listen}/metrics");
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SCRAPED_EVERY).await;
                if let Ok(answer) = reqwest::get(&url).await {
                    _ = answer.bytes().await;
                }
            }
        })
    });
    let mut store = PgConnection::connect(&control).await?;
    let sql = "select coalesce(sum((progress->>'next_offset')::bigint), 0)::bigint from progress";
    let (until, mut first) = (Instant::now() + run_within(), None::<(u64, Instant, u64)>);
    let pid = host.id().context("the host ended")?;
    let done = loop {
        let handled: i64 = sqlx::query_scalar(sql).fetch_one(&mut store).await?;
        let (handled, now) = (u64::try_from(handled)?, Instant::now());
        if let Some((from, since, ticks)) = first.filter(|_| handled >= events) {
            #[allow(clippy::cast_precision_loss, reason = "thousands")]
            let (done, ticks) = ((events - from) as f64, (cpu_ticks(pid)? - ticks) as f64);
            let events_per_s = done / (now - since).as_secs_f64();
            break Read { events_per_s, cpu_us_per_event: ticks * 10_000.0 / done };
        }
        if first.is_none() && handled >= events / 10 {
            first = Some((handled, now, cpu_ticks(pid)?));
        }
        ensure!(now < until, "{handled} of {events} events are handled after {:?}", run_within());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    if let Some(scraping) = scraping {
        scraping.abort();
    }
    // By its own way out, so that whatever counts its instructions gets to say how many they were.
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no pid")?;
    kill_process(process, Signal::TERM)?;
    tokio::time::timeout(run_within(), host.wait()).await.context("the host doesn't end")??;
    store.close().await?;
    let database = control.rsplit_once('/').context("no database")?.1;
    let mut admin = PgConnection::connect(&var("CONTROL_DATABASE_URL")?).await?;
    sqlx::raw_sql(AssertSqlSafe(format!("drop database {database} with (force)"))).execute(&mut admin).await?;
    Ok(done)
}

fn spread(mut ratios: Vec<f64>) -> String {
    ratios.sort_by(f64::total_cmp);
    let at = |n: usize| ratios.get(n).copied().unwrap_or_default();
    format!("median {:.3}, from {:.3} to {:.3}", at(ratios.len() / 2), at(0), at(ratios.len().saturating_sub(1)))
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn long_form_what_being_watched_costs() -> Result<()> {
    let (events, runs) = (number("EVENTS", 500_000), number("RUNS", 10));
    let garden = Garden::of_plants_in_redis(REDIS_DATABASE).await?;
    topics::make(&Garden::topic(&garden.plants)).await?;
    fill(&mut garden.outbox().await?, events).await?;
    let receiver = Receiver::start().await?;
    read(&garden, events, None).await?;
    // A pair has both, each first in every other: what changes slowly falls on both alike.
    let (mut rates, mut times) = (Vec::new(), Vec::new());
    for pair in 0..runs / 2 {
        let mut reads = [Read::default(); 2];
        let order = if pair % 2 == 0 { [true, false] } else { [false, true] };
        for watched in order {
            reads[usize::from(watched)] = read(&garden, events, watched.then_some(&receiver)).await?;
        }
        let [off, on] = reads;
        rates.push(on.events_per_s / off.events_per_s);
        times.push(on.cpu_us_per_event / off.cpu_us_per_event);
        println!(
            "watched {:.0}/s, {:.2} µs of processor time an event; not: {:.0}/s, {:.2} µs",
            on.events_per_s, on.cpu_us_per_event, off.events_per_s, off.cpu_us_per_event
        );
    }
    let received = receiver.bytes.load(Ordering::Relaxed);
    ensure!(received > 0, "no span was received: this measures nothing");
    println!("{events} events, {} pairs, watched to not; {received} bytes of spans", rates.len());
    println!("events a second: {}", spread(rates));
    println!("processor time:  {}", spread(times));
    Ok(())
}
