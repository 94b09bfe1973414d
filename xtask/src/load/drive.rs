//! The open loop: every step leaves at its slot; see the module's head for what is measured.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    client::CommandApi,
    command::{Command, Handover},
    plan::Step,
    progress::Progress,
    report::{Report, Tally},
    setup::Catalogue,
    tpch::Input,
};

/// Commands that may be under way at once. Beyond it the schedule slips, and the slip is part of the latencies.
const IN_FLIGHT_MAX: usize = 1_000;

pub(super) async fn open_loop(
    api: &CommandApi,
    input: &Input,
    catalogue: &Catalogue,
    steps: &[Step],
    rate: f64,
    progress: &Progress,
) -> Report {
    let (observed, mut observations) = mpsc::unbounded_channel();
    let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    // the receiver of each order's latest step
    let mut chains: Vec<Option<oneshot::Receiver<Handover>>> = input.orders.iter().map(|_| None).collect();

    let mut steps_of = vec![0_u32; input.orders.len()];
    steps.iter().for_each(|step| steps_of[step.order] += 1);

    let start = Instant::now();
    let dispatch = async {
        for (slot, step) in steps.iter().enumerate() {
            let due = start + Duration::from_secs_f64(slot as f64 / rate);
            sleep_until(due).await;
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                break; // never: nobody closes the semaphore
            };
            let (done, next) = oneshot::channel();
            let before = chains[step.order].replace(next);
            let command = Command::new(step, steps_of[step.order] == 1, input, catalogue);
            let (api, observed) = (api.clone(), observed.clone());
            tokio::spawn(async move {
                let (handover, observation) = command.run(&api, before, due).await;
                // the next step may not exist
                let _ = done.send(handover);
                let _ = observed.send(observation);
                drop(permit);
            });
        }
        drop(observed);
    };
    let collect = async {
        let mut tally = Tally::default();
        while let Some(observation) = observations.recv().await {
            tally.add(observation);
            progress.advance();
        }
        tally
    };
    let ((), tally) = tokio::join!(dispatch, collect);
    tally.into_report(start.elapsed(), rate)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::{
        collections::HashMap,
        sync::{
            Mutex,
            atomic::{AtomicU64, Ordering},
        },
    };

    use axum::{Json, Router, extract::State, http::StatusCode, routing::any};
    use serde_json::{Value, json};

    use super::*;
    use crate::load::{plan::plan, setup, tpch};

    /// A service that knows no rules, but writes down what it was asked, and may stall.
    #[derive(Default)]
    struct Stub {
        ids: AtomicU64,
        /// Requests on each order, as they came.
        seen: Mutex<HashMap<String, Vec<String>>>,
        /// Held while the service stalls.
        stall: tokio::sync::Mutex<Duration>,
    }

    async fn answer(
        State(stub): State<Arc<Stub>>,
        uri: axum::http::Uri,
        Json(body): Json<Value>,
    ) -> (StatusCode, Json<Value>) {
        {
            let mut stall = stub.stall.lock().await;
            tokio::time::sleep(std::mem::take(&mut *stall)).await;
        }
        let id = stub.ids.fetch_add(1, Ordering::Relaxed).to_string();
        let path = uri.path();
        if path.ends_with("/cancel") {
            let problem = json!({"type": "https://example.com/problems/too-late", "detail": "no"});
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(problem));
        }
        let order = match path {
            "/orders" => Some(id.clone()),
            "/payments" => body["order_id"].as_str().map(str::to_owned),
            _ => path.strip_prefix("/orders/").and_then(|rest| rest.split('/').next()).map(str::to_owned),
        };
        if let Some(order) = &order {
            let what = if path == "/payments" {
                body["status"].to_string()
            } else {
                path.rsplit('/').next().unwrap().to_owned()
            };
            stub.seen.lock().unwrap().entry(order.clone()).or_default().push(what);
        }
        let answer = json!({"customer_id": id, "product_id": id, "order_id": order, "payment_id": id,
            "sequence_number": 1, "consistency_token": "t"});
        (StatusCode::CREATED, Json(answer))
    }

    async fn drive(orders: u32, rate: f64, stall: Duration) -> (Report, usize, Arc<Stub>) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let stub = Arc::new(Stub::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = Router::new().fallback(any(answer)).with_state(Arc::clone(&stub));
        tokio::spawn(async move { axum::serve(listener, service).await });

        let (api, progress) = (CommandApi::new(&url).unwrap(), Progress::start("test", 0));
        let input = tpch::generate(orders, 1);
        let catalogue = setup::create(&api, &input, &progress).await.unwrap();
        *stub.stall.lock().await = stall;
        let steps = plan(&input, 1);
        let report = open_loop(&api, &input, &catalogue, &steps, rate, &progress).await;
        (report, steps.len(), stub)
    }

    #[tokio::test]
    async fn every_command_is_accounted_for_and_an_order_is_never_overtaken() {
        let (report, steps, stub) = drive(300, 20_000.0, Duration::ZERO).await;
        assert_eq!(report.sent + report.skipped, steps as u64);
        assert_eq!(report.sent, report.ok + report.refused["too-late"]);
        assert_eq!(report.error_count(), 0);
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
        }
    }

    #[tokio::test]
    async fn a_stall_shows_in_every_command_that_it_delayed() {
        let stall = Duration::from_millis(600);
        let (report, steps, _) = drive(60, 200.0, stall).await;
        // about 0.7 s of schedule, of which the stall covers most: a closed loop would show it in one command
        assert!(steps > 100);
        assert!(report.latency_ms.p50 > 100.0, "{}", report.latency_ms);
        assert!(report.latency_ms.max >= 590.0, "{}", report.latency_ms);
    }
}
