//! What the outbox costs a command: both ways in one run. The bound is SPEC's; the figures are printed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use support::{Service, deposit};

const PATH: &str = "/v1/commands/accounts/deposit";

fn at(sorted: &[Duration], quantile: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * quantile) as usize]
}

async fn timed(service: &Service, command_id: &str, account: &str) -> Duration {
    let body = deposit(command_id, account, 1);
    let started = Instant::now();
    service.ok(PATH, &body).await;
    started.elapsed()
}

/// Two databases, asked in turn: one writes its outbox, in the other a trigger drops the rows.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn the_outbox_costs_a_command_less_than_its_bound() {
    let (with, without) = (Service::start().await, Service::start().await);
    let drop_rows = "create function nothing() returns trigger language plpgsql as $$ begin return null; end $$;
                     create trigger none before insert on outbox for each row execute function nothing();";
    sqlx::raw_sql(drop_rows).execute(&without.pool).await.unwrap();
    for service in [&with, &without] {
        service.account("acc").await;
    }
    let (mut a, mut b) = (vec![], vec![]);
    for n in 0..600 {
        // each goes first half of the time
        let id = format!("c{n}");
        if n % 2 == 0 {
            a.push(timed(&with, &id, "acc").await);
            b.push(timed(&without, &id, "acc").await);
        } else {
            b.push(timed(&without, &id, "acc").await);
            a.push(timed(&with, &id, "acc").await);
        }
    }
    a.sort();
    b.sort();
    let (with_us, without_us) = (at(&a, 0.5).as_micros(), at(&b, 0.5).as_micros());
    println!("a deposit, median: {with_us} µs with its outbox row, {without_us} µs without");
    assert!(with_us < without_us + 5_000);
    assert_eq!(without.number("select count(*) from outbox").await, 0);
    with.stop().await;
    without.stop().await;
}
