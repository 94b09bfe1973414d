#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::State,
    http::{Method, StatusCode},
    routing::any,
};
use serde_json::{Value, json};

use super::*;
use crate::load::{client::Service, plan::plan, read::Readers, setup, tpch};

/// A service that knows no rules, but writes down what it was asked, and may stall.
#[derive(Default)]
struct Stub {
    ids: AtomicU64,
    /// Requests on each order, as they came.
    seen: Mutex<HashMap<String, Vec<String>>>,
    /// Queries by their first part.
    queries: AtomicU64,
    /// Held while the service stalls.
    stall: tokio::sync::Mutex<Duration>,
    /// What every document's version is; it counts down where that isn't 0.
    version: AtomicI64,
    /// Answers nothing at all.
    silent: std::sync::atomic::AtomicBool,
}

async fn answer(
    State(stub): State<Arc<Stub>>,
    method: Method,
    uri: axum::http::Uri,
    body: Option<Json<Value>>,
) -> (StatusCode, Json<Value>) {
    {
        let mut stall = stub.stall.lock().await;
        tokio::time::sleep(std::mem::take(&mut *stall)).await;
    }
    if stub.silent.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let path = uri.path();
    if method == Method::GET {
        stub.queries.fetch_add(1, Ordering::Relaxed);
        if path.ends_with("/statement") {
            return (StatusCode::NOT_FOUND, Json(json!({"type": "/problems/no-such-path"})));
        }
        let version = match stub.version.load(Ordering::Relaxed) {
            0 => 5,
            _ => stub.version.fetch_sub(1, Ordering::Relaxed),
        };
        return (StatusCode::OK, Json(json!({"version": version, "last_updated_sequence": version, "total": version})));
    }
    let id = stub.ids.fetch_add(1, Ordering::Relaxed).to_string();
    if path.ends_with("/cancel") {
        let problem = json!({"type": "https://example.com/problems/too-late", "detail": "no"});
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(problem));
    }
    let body = body.map_or(Value::Null, |Json(body)| body);
    let order = match path {
        "/orders" => Some(id.clone()),
        "/payments" => body["order_id"].as_str().map(str::to_owned),
        _ => path.strip_prefix("/orders/").and_then(|rest| rest.split('/').next()).map(str::to_owned),
    };
    if let Some(order) = &order {
        let what =
            if path == "/payments" { body["status"].to_string() } else { path.rsplit('/').next().unwrap().to_owned() };
        stub.seen.lock().unwrap().entry(order.clone()).or_default().push(what);
    }
    let answer = json!({"customer_id": id, "product_id": id, "order_id": order, "payment_id": id, "item_id": "added",
        "sequence_number": 1, "consistency_token": "t"});
    (StatusCode::CREATED, Json(answer))
}

async fn listen(stub: &Arc<Stub>) -> Service {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = Router::new().fallback(any(answer)).with_state(Arc::clone(stub));
    tokio::spawn(async move { axum::serve(listener, service).await });
    Service::new(&url).unwrap()
}

async fn ready(stub: &Arc<Stub>, orders: u32, rate: f64, reads_per_write: u32) -> Ready {
    let commands = listen(stub).await;
    let input = tpch::generate(orders, 1);
    let catalogue = setup::create(&commands, &input, &Progress::start("test", 0)).await.unwrap();
    let steps = plan(&input, 1);
    let readers = match reads_per_write {
        0 => None,
        _ => Some(Readers::new(commands.clone(), &input, &catalogue, 1).await.unwrap()),
    };
    Ready { commands, input, catalogue, steps, readers, schedule: Schedule { rate, reads_per_write } }
}

async fn drive(ready: &Ready) -> Report {
    open_loop(ready, &Progress::start("test", 0)).await
}

#[tokio::test]
async fn every_command_is_accounted_for_and_an_order_is_never_overtaken() {
    let stub = Arc::<Stub>::default();
    let ready = ready(&stub, 300, 20_000.0, 0).await;
    let report = drive(&ready).await;
    assert_eq!(report.sent + report.skipped, ready.steps.len() as u64);
    assert_eq!(report.sent, report.ok + report.refused["too-late"]);
    assert_eq!((report.error_count(), report.queries.is_none()), (0, true));
    assert!(report.sample.unwrap().stays_pending);
    let seen = stub.seen.lock().unwrap();
    assert_eq!(seen.len(), 300);
    for (order, requests) in seen.iter() {
        assert_eq!(requests[0], "orders", "{order}: {requests:?}");
        let place = |what: &str| requests.iter().position(|request| request == what);
        if let Some(ship) = place("ship") {
            assert!(place("\"confirmed\"").unwrap() < ship, "{order}: {requests:?}");
            assert!(place("deliver").is_none_or(|deliver| ship < deliver), "{order}: {requests:?}");
        }
        if let Some(removed) = place("added") {
            assert!(place("items").unwrap() < removed, "{order}: {requests:?}");
        }
    }
}

#[tokio::test]
async fn a_stall_shows_in_every_command_that_it_delayed() {
    let stub = Arc::<Stub>::default();
    let ready = ready(&stub, 60, 200.0, 0).await;
    *stub.stall.lock().await = Duration::from_millis(600);
    let report = drive(&ready).await;
    // about 0.8 s of schedule, of which the stall covers most: a closed loop would show it in one command
    assert!(ready.steps.len() > 100);
    let latency = report.commands.unwrap().latency_ms;
    assert!(latency.p50 > 100.0 && latency.max >= 590.0, "{latency}");
}

#[tokio::test]
async fn queries_come_between_commands_in_the_ratio_that_was_asked_for() {
    let stub = Arc::<Stub>::default();
    let ready = ready(&stub, 60, 20_000.0, 5).await;
    let asked_before = stub.queries.load(Ordering::Relaxed);
    let report = drive(&ready).await;
    let queries = report.queries.as_ref().unwrap();
    assert_eq!(queries.sent, 5 * ready.steps.len() as u64);
    assert_eq!(stub.queries.load(Ordering::Relaxed) - asked_before, queries.sent);
    assert!(report.endpoints.iter().filter(|endpoint| endpoint.side == "query").count() > 8);
    let unserved = report.endpoints.iter().any(|endpoint| endpoint.name == "account statement");
    assert!(!unserved, "what isn't served isn't asked for");
    assert_eq!(report.error_count(), 0, "{:?}", report.errors);
}

#[tokio::test]
async fn an_answer_that_is_older_than_one_before_is_an_error() {
    let stub = Arc::<Stub>::default();
    let ready = ready(&stub, 20, 2_000.0, 20).await;
    stub.version.store(1_000_000, Ordering::Relaxed);
    let report = drive(&ready).await;
    assert!(report.errors.keys().any(|reason| reason.contains("went back from")), "{:?}", report.errors);
}

#[tokio::test]
async fn a_service_that_never_answers_does_not_hold_the_schedule_up() {
    let stub = Arc::<Stub>::default();
    let mut ready = ready(&stub, 300, 100_000.0, 20).await;
    ready.schedule.rate = 100_000.0;
    ready.commands = Service::with_timeout("http://127.0.0.1:9", Duration::from_millis(300)).unwrap();
    ready.readers.as_mut().unwrap().service = {
        stub.silent.store(true, Ordering::Relaxed);
        listen(&stub).await.timing_out_after(Duration::from_millis(300)).unwrap()
    };
    let report = drive(&ready).await;
    let slots = ready.schedule.slots(ready.steps.len()) as u64;
    assert_eq!((report.ok, report.error_count() + report.skipped), (0, slots));
    assert!(report.errors.keys().any(|reason| reason.starts_with("not sent")), "{:?}", report.errors);
    // Where requests waited for each other, it would take 300 ms for each few thousand of them.
    assert!(report.elapsed_s < 4.0, "{} s", report.elapsed_s);
}
