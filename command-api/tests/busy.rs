//! What one busy account costs: itself, and all others. The figures are printed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use support::{Service, deposit};

const PATH: &str = "/v1/commands/accounts/deposit";
const COMMANDS: usize = 400;
const ROUNDS: usize = 3;

async fn deposits(service: &Service, round: usize, accounts: usize) -> Duration {
    let bodies: Vec<_> = (0..COMMANDS)
        .map(|n| deposit(&format!("{accounts}-{round}-{n}"), &format!("acc-{}", n % accounts), 1))
        .collect();
    let began = Instant::now();
    join_all(bodies.iter().map(|body| service.ok(PATH, body))).await;
    began.elapsed()
}

/// Somebody else's deposits meanwhile, one after the other.
async fn bystander(service: &Service, round: usize, over: &AtomicBool) -> Vec<Duration> {
    let mut took = vec![];
    while !over.load(Ordering::Relaxed) {
        let body = deposit(&format!("other-{round}-{}", took.len()), "other", 1);
        let began = Instant::now();
        service.ok(PATH, &body).await;
        took.push(began.elapsed());
    }
    took.sort();
    took
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_busy_account_leaves_the_others_alone() {
    let service = Service::start().await;
    for n in 0..50 {
        service.account(&format!("acc-{n}")).await;
    }
    service.account("other").await;
    for round in 0..ROUNDS {
        let began = Instant::now();
        for n in 0..100 {
            service.ok(PATH, &deposit(&format!("seq-{round}-{n}"), "acc-0", 1)).await;
        }
        let alone = began.elapsed() / 100;
        let spread = deposits(&service, round, 50).await;
        let over = AtomicBool::new(false);
        let busy = async {
            let took = deposits(&service, round, 1).await;
            over.store(true, Ordering::Relaxed);
            took
        };
        let (busy, others) = tokio::join!(busy, bystander(&service, round + 100, &over));
        println!(
            "one client {} µs each; {COMMANDS} at once over 50 accounts {} µs each, on one {} µs each; a bystander meanwhile: {} commands, median {} ms, max {} ms",
            alone.as_micros(),
            spread.as_micros() / COMMANDS as u128,
            busy.as_micros() / COMMANDS as u128,
            others.len(),
            others[others.len() / 2].as_millis(),
            others.last().unwrap().as_millis(),
        );
        // It was 5 to 9, and up to 5 s for one of them, when those who wait for the account had all connections.
        assert!(others.len() > 40, "others hardly got a turn");
    }
    service.stop().await;
}
