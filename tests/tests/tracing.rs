//! One command's trace, as a receiver of OTLP gets it: from the request over outbox, Debezium and Kafka to every store's write, and
//! to the query that waits. And which log lines a host prints, changed while it runs.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    ALONE, eventually,
    processes::{Process, command_api_ready, log, projector_ready},
    shop::{Shop, text},
    var,
};
use xtask::traces::{Receiver, Span};

const SOON: Duration = Duration::from_secs(60);
/// What every write is held back, so that the events of several commands come into one batch.
const HELD_MS: &str = "300";
const OFF: [(&str, &str); 3] =
    [("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("PROJECTOR_FAULT_DELAY_MS", "0"), ("OTEL_TRACES_SAMPLER_ARG", "0.01")];

/// The read models that take an `OrderPlaced`, with their stores.
const FED: [(&str, &str); 8] = [
    ("customer_order_history", "elasticsearch"),
    ("daily_revenue", "clickhouse"),
    ("dashboard", "redis"),
    ("order_details", "postgres"),
    ("order_list_view", "postgres"),
    ("order_search", "elasticsearch"),
    ("order_summary", "redis"),
    ("product_stats", "redis"),
];

/// A receiver, and the instance's services that send to it.
struct Traced {
    receiver: Receiver,
    processes: Vec<Process>,
}

impl Traced {
    async fn start() -> Result<Self> {
        let receiver = Receiver::start().await?;
        let names = ["command-api", "projector-run", "projector-serve"];
        let processes = names.into_iter().map(Process::running).collect::<Result<Vec<_>>>()?;
        let traced = Self { receiver, processes };
        // Only what is asked for is kept: a share of 0 of what nobody has decided on.
        let on = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", traced.receiver.url()),
            ("OTEL_TRACES_SAMPLER_ARG", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "200"),
            ("PROJECTOR_FAULT_DELAY_MS", HELD_MS),
        ];
        traced.restart(&on).await?;
        Ok(traced)
    }

    async fn restart(&self, variables: &[(&str, &str)]) -> Result<()> {
        for process in &self.processes {
            process.terminate().await?;
            process.start(variables)?;
        }
        command_api_ready().await?;
        projector_ready().await?;
        let queries = format!("{}/health/ready", var("QUERY_URL")?);
        eventually("projector serve ready", SOON, || async {
            Ok(reqwest::get(&queries).await?.status().is_success().then_some(()))
        })
        .await
    }

    async fn stop(self) -> Result<()> {
        self.restart(&OFF).await
    }

    fn of(&self, trace: &str) -> Vec<Span> {
        self.receiver.spans().into_iter().filter(|span| span.trace == trace).collect()
    }

    /// A trace, as soon as it is as expected; else what is wrong with it.
    async fn tree(&self, trace: &str, event_type: &str, expected: &BTreeSet<String>) -> Result<Vec<Span>> {
        eventually("the whole trace", SOON, || async {
            let spans = self.of(trace);
            let found = tree(&spans, event_type);
            let lacks: Vec<_> = expected.difference(&found).collect();
            let more: Vec<_> = found.difference(expected).collect();
            ensure!(lacks.is_empty() && more.is_empty(), "it lacks {lacks:#?}, and has {more:#?}");
            Ok(Some(spans))
        })
        .await
    }
}

/// Every span by its name and its parents', but for those of other events.
fn tree(spans: &[Span], event_type: &str) -> BTreeSet<String> {
    let by_id: BTreeMap<_, _> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    let path = |span: &Span| {
        let mut names = Vec::new();
        let mut next = Some(span);
        while let Some(span) = next {
            if span.event_type.as_deref().is_some_and(|of| of != event_type) {
                return None;
            }
            names.push(span.name.as_str());
            next = by_id.get(span.parent.as_str()).copied();
        }
        names.reverse();
        Some(names.join(" / "))
    };
    spans.iter().filter_map(path).collect()
}

/// A `traceparent` of a trace of its own, and that trace's id.
fn caller(sampled: bool) -> (String, String) {
    let trace = uuid::Uuid::new_v4().simple().to_string();
    (format!("00-{trace}-00f067aa0ba902b7-0{}", u8::from(sampled)), trace)
}

async fn place(shop: &Shop, traceparent: &str, prefer: &str) -> Result<Value> {
    let request = reqwest::Client::new().post(format!("{}/orders", var("COMMAND_API_URL")?));
    let request = request.header("traceparent", traceparent).header("prefer", prefer).json(&shop.order());
    Ok(request.send().await?.error_for_status()?.json().await?)
}

fn expected() -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = [
        "POST /orders",
        "POST /orders / transaction",
        "POST /orders / transaction / append",
        "POST /orders / transaction / commit",
        "POST /orders / wait for read models",
        "POST /orders / wait for read models / GET /freshness/{read_model}",
        "POST /orders / wait for read models / GET /freshness/{read_model} / wait",
        "POST /orders / outbox → kafka",
        "GET /orders/{id}",
        "GET /orders/{id} / wait",
    ]
    .map(str::to_owned)
    .into();
    for (read_model, store) in FED {
        paths.insert(format!("POST /orders / kafka → {read_model}"));
        paths.insert(format!("POST /orders / apply {read_model}"));
        paths.insert(format!("POST /orders / apply {read_model} / write {store}"));
        if store == "elasticsearch" {
            paths.insert(format!("POST /orders / refresh {read_model}"));
        }
    }
    paths
}

/// Each leg begins where the one before it may end, and takes no less than no time.
fn in_order(spans: &[Span]) -> Result<()> {
    let backwards: Vec<_> = spans.iter().filter(|span| span.to < span.from).collect();
    ensure!(backwards.is_empty(), "they end before they begin: {backwards:#?}");
    let one = |name: &str, parent: Option<&str>| {
        let is = |span: &&Span| {
            span.name == name
                && span.event_type.as_deref().is_none_or(|of| of == "OrderPlaced")
                && parent.is_none_or(|id| span.parent == id)
        };
        spans.iter().find(is).with_context(|| format!("no {name}"))
    };
    let command = one("POST /orders", None)?;
    let outbox = one("outbox → kafka", Some(&command.id))?;
    ensure!(command.from <= outbox.from, "the event came before its command");
    for (read_model, store) in FED {
        let kafka = one(&format!("kafka → {read_model}"), Some(&command.id))?;
        let apply = one(&format!("apply {read_model}"), Some(&command.id))?;
        let write = one(&format!("write {store}"), Some(&apply.id))?;
        let mut times = vec![outbox.from, outbox.to, kafka.from, kafka.to, apply.from, write.from, write.to, apply.to];
        if store == "elasticsearch" {
            let refresh = one(&format!("refresh {read_model}"), Some(&command.id))?;
            times.extend([refresh.from, refresh.to]);
        }
        ensure!(times.is_sorted(), "{read_model}: {times:?}");
        let services = [&kafka.service, &apply.service, &write.service];
        ensure!(services.iter().all(|service| *service == "projector-run"), "{services:?}");
    }
    ensure!(command.service == "command-api" && one("GET /orders/{id}", None)?.service == "projector-serve");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn one_trace_shows_a_commands_whole_way() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let traced = Traced::start().await?;

    let (traceparent, trace) = caller(true);
    let answer = place(&shop, &traceparent, "wait=order_summary,order_search; wait_ms=5000").await?;
    let (id, token) = (text(&answer, "order_id")?, text(&answer, "consistency_token")?);
    let query = reqwest::Client::new().get(format!("{}/orders/{id}", var("QUERY_URL")?));
    let query = query.header("traceparent", &traceparent).header("consistency-token", token);
    query.send().await?.error_for_status()?;
    let spans = traced.tree(&trace, "OrderPlaced", &expected()).await?;
    in_order(&spans)?;
    let roots: Vec<_> = spans.iter().filter(|span| span.parent == "00f067aa0ba902b7").map(|span| &span.name).collect();
    ensure!(roots.len() == 2, "the caller's span has the children {roots:?}");
    let mut legs: Vec<_> = spans.iter().collect();
    legs.sort_by_key(|span| span.from);
    for leg in legs {
        println!("{:>9.3} ms  {:<16} {}", (leg.to - leg.from) as f64 / 1e6, leg.service, leg.name);
    }

    // Several commands' events in one batch: one write, with links to each other's.
    let callers: Vec<_> = (0..6).map(|_| caller(true)).collect();
    futures::future::try_join_all(callers.iter().map(|(parent, _)| place(&shop, parent, "respond-async"))).await?;
    // Spans of one batch may arrive in several exports: until the last one has, fewer lead back.
    eventually("a batch's write, and every link leads back", SOON, || async {
        let spans: Vec<Span> = callers.iter().flat_map(|(_, trace)| traced.of(trace)).collect();
        let of_others = |write: &&Span| {
            let applied = |id: &String| {
                spans.iter().any(|s| s.id == *id && s.name.starts_with("apply ") && s.trace != write.trace)
            };
            write.name.starts_with("write ") && write.links.iter().any(applied)
        };
        let batch = spans.iter().find(of_others).context("no write has links to other traces")?;
        let back = spans.iter().filter(|span| span.name == batch.name && span.links == [batch.id.clone()]).count();
        ensure!(back == batch.links.len(), "{} links, and {back} lead back", batch.links.len());
        Ok(Some(()))
    })
    .await?;

    // What nobody keeps isn't made.
    let (unsampled, nobodys) = caller(false);
    place(&shop, &unsampled, "wait=order_summary").await?;
    let (kept, last) = caller(true);
    place(&shop, &kept, "wait=order_summary").await?;
    eventually("a later trace", SOON, || async {
        Ok(traced.of(&last).iter().any(|span| span.name == "apply order_summary").then_some(()))
    })
    .await?;
    ensure!(traced.of(&nobodys).is_empty(), "{:#?}", traced.of(&nobodys));
    let all = traced.receiver.spans();
    let known: Vec<_> = callers.iter().map(|(_, trace)| trace).chain([&trace, &last]).collect();
    let strange: Vec<_> = all.iter().filter(|span| !known.contains(&&span.trace)).collect();
    ensure!(strange.is_empty(), "nobody asked for {strange:#?}");
    traced.stop().await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn log_lines_are_chosen_while_a_host_runs() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let (url, token) = (format!("{}/v1/log", var("PROJECTOR_ADMIN_URL")?), var("ADMIN_TOKEN")?);
    let http = reqwest::Client::new();
    let shown = async || -> Result<Value> {
        Ok(http.get(&url).bearer_auth(&token).send().await?.error_for_status()?.json().await?)
    };
    let put = async |filter: &str, token: &str| -> Result<(u16, Value)> {
        let body = json!({"filter": filter, "by": "a test", "reason": "to see it"});
        let answer = http.put(&url).bearer_auth(token).json(&body).send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    };
    let lines = || std::fs::read_to_string(log("projector-run")).map(|text| text.matches("batch written").count());
    let (before, was) = (lines()?, shown().await?);
    ensure!(put("debug", "not the token, but as long").await?.0 == 401);
    ensure!(put("nonsense", &token).await?.0 == 400 && shown().await? == was, "{:?}", shown().await?);
    ensure!(put("info,projector=debug", &token).await?.0 == 200);
    eventually("debug lines", SOON, || async {
        shop.place().await?;
        Ok((lines()? > before).then_some(()))
    })
    .await?;
    let (status, now) = put(was["filter"].as_str().context("no filter")?, &token).await?;
    ensure!((status, &now) == (200, &was), "{status} {now}");
    Ok(())
}
