//! Histories, states of before, snapshots, replays: on the real Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use command_api::domain::Account;
use command_api::store::streams::load;
use reqwest::Method;
use serde_json::{Value, json};
use support::{Service, deposit, order, problem, withdrawal};

async fn get(service: &Service, path: &str) -> (u16, Value) {
    service.send(Method::GET, path, &Value::Null).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_history_says_who_what_and_when_page_by_page() {
    let service = Service::start().await;
    service.account("acc").await;
    let body = deposit("d1", "acc", 700);
    let by = service.with_header(Method::POST, "/v1/commands/accounts/deposit", ("x-user-id", "ada"), &body).await;
    assert_eq!(by.0, 200);
    service.ok("/v1/commands/accounts/withdraw", &withdrawal("w1", "acc", 200)).await;
    let (status, first) = get(&service, "/v1/streams/account-acc/events?limit=2").await;
    assert_eq!((status, first["events"].as_array().unwrap().len(), &first["next_after"]), (200, 2, &json!(2)));
    let event = &first["events"][1];
    assert_eq!((&event["event_type"], &event["user_id"]), (&json!("FundsDeposited"), &json!("ada")));
    assert_eq!((&event["metadata"]["command_id"], &event["data"]["amount_cents"]), (&json!("d1"), &json!(700)));
    assert!(event["correlation_id"].is_string() && event["occurred_at"].is_string());
    let (_, second) = get(&service, "/api/v1/streams/account-acc/events?limit=2&after=2").await;
    assert_eq!((second["events"].as_array().unwrap().len(), &second["next_after"]), (1, &Value::Null));
    assert_eq!(get(&service, "/v1/streams/account-acc/events?after=9").await.1["events"], json!([]));
    for (path, status, name) in [
        ("account-nobody/events", 404, "not-found"),
        ("nonsense/state", 404, "not-found"),
        ("account-acc/events?limit=0", 400, "malformed"),
        ("account-acc/state?at=yesterday", 400, "malformed"),
        ("account-acc/state?at=4", 404, "not-then"),
        ("account-acc/state?at=2020-01-01T00:00:00Z", 404, "not-then"),
    ] {
        let (answered, answer) = get(&service, &format!("/v1/streams/{path}")).await;
        assert_eq!((answered, problem(&answer)), (status, &*format!("/problems/{name}")), "{path}");
    }
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_state_is_shown_as_it_was_at_a_position_and_at_a_time() {
    let service = Service::start().await;
    let (customer, product) = (service.customer(None).await, service.product(1_250, 10).await);
    let placed = service.ok("/orders", &order(&customer, &product, 2)).await;
    let id = placed["order_id"].as_str().unwrap();
    service.ok("/payments", &json!({"order_id": id, "amount_cents": 2_500, "currency": "USD"})).await;
    service.ok(&format!("/orders/{id}/cancel"), &json!({"reason": "no"})).await;
    let stream = format!("/v1/streams/order-{id}");
    let status = async |at: String| get(&service, &format!("{stream}/state{at}")).await.1["state"]["status"].clone();
    assert_eq!(status(String::new()).await, "cancelled");
    let (_, events) = get(&service, &format!("{stream}/events")).await;
    for (n, expected) in ["pending", "confirmed", "cancelled"].into_iter().enumerate() {
        assert_eq!(status(format!("?at={}", n + 1)).await, expected);
        let at = events["events"][n]["occurred_at"].as_str().unwrap();
        assert_eq!(status(format!("?at={at}")).await, expected, "{at}");
    }
    // the whole of it, as the table has it
    let table = "select to_jsonb(p) || to_jsonb(i) from products p join inventory i using (product_id)";
    let table: Value = sqlx::query_scalar(table).fetch_one(&service.pool).await.unwrap();
    let (_, shown) = get(&service, &format!("/v1/streams/product-{product}/state")).await;
    let (table, shown): (command_api::domain::Product, _) =
        (serde_json::from_value(table).unwrap(), serde_json::from_value(shown["state"].clone()).unwrap());
    assert_eq!(table, shown);
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_replay_stops_where_its_condition_first_holds() {
    let service = Service::start().await;
    service.account("acc").await;
    for n in 0..4 {
        service.ok("/v1/commands/accounts/deposit", &deposit(&format!("d{n}"), "acc", 100)).await;
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_command-api"));
        command.env("WRITE_DATABASE_URL", &service.database_url).arg("replay").args(arguments);
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, shown, why) = run(&["account-acc", "--until", ".after.balance_cents >= 200"]);
    assert_eq!((code, shown.matches("FundsDeposited").count()), (Some(0), 2), "{shown}{why}");
    assert!(shown.contains("balance_cents: 100 → 200") && why.contains("after position 3"), "{shown}{why}");
    let (code, shown, _) = run(&["account-acc", "--from", "3", "--to", "4", "--output", "json"]);
    let lines: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, lines.len(), &lines[0]["before"]["balance_cents"]), (Some(0), 2, &json!(100)));
    assert_eq!(run(&["account-acc", "--until", ".after.balance_cents > 999"]).0, Some(1));
    let (code, _, why) = run(&["account-acc", "--until", ".after.balance_cents"]);
    assert!(code == Some(1) && why.contains("must give true or false"), "{why}");
    assert!(run(&["account-nobody"]).2.contains("there is no stream account-nobody"));
    service.stop().await;
}

/// Written as the service writes them, but for the payload, which loading doesn't read.
const MANY: &str = "insert into events (stream_id, stream_position, event_id, aggregate_type, aggregate_id, event_type, schema_version, data, payload)
    select 'account-long', n, gen_random_uuid(), 'account', 'long', 'FundsDeposited', 1,
           jsonb_build_object('account_id', 'long', 'command_id', 'c' || n, 'amount_cents', 1, 'currency', 'USD', 'description', null,
               'reference', null, 'transfer_id', null, 'counterparty_account_id', null, 'balance_after_cents', n - 1, 'deposited_at', now()), '\\x00'
    from generate_series(2, 99999) n";

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn an_account_with_a_hundred_thousand_events_loads_fast_from_its_snapshot() {
    let service = Service::start().await;
    service.account("long").await;
    sqlx::query(MANY).execute(&service.pool).await.unwrap();
    sqlx::raw_sql("analyze events; analyze snapshots").execute(&service.pool).await.unwrap();
    let mut connection = service.pool.acquire().await.unwrap();
    let timed = async |connection: &mut sqlx::PgConnection| {
        let started = Instant::now();
        let account: Account = load(connection, "account-long", i64::MAX).await.unwrap().unwrap();
        (started.elapsed(), account)
    };
    let (without, account) = timed(&mut connection).await;
    assert_eq!((account.version, account.balance_cents), (99_999, 99_998));
    // the 100,000th event leaves a snapshot behind, off the command's path; some events follow it
    for n in 0..50 {
        service.ok("/v1/commands/accounts/deposit", &deposit(&format!("d{n}"), "long", 1)).await;
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while service.number("select count(*) from snapshots where stream_position = 100000").await == 0 {
        assert!(Instant::now() < deadline, "no snapshot");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut with = Duration::MAX;
    for _ in 0..5 {
        let (took, account) = timed(&mut connection).await;
        assert_eq!((account.version, account.balance_cents), (100_049, 100_048));
        with = with.min(took);
    }
    println!("100,000 events: {} µs from the snapshot, {} ms without", with.as_micros(), without.as_millis());
    assert!(with < Duration::from_millis(10), "{with:?}");
    // what was before the snapshot is there still, and a snapshot of another format is not used
    let before: Account = load(&mut connection, "account-long", 500).await.unwrap().unwrap();
    assert_eq!(before.balance_cents, 499);
    let spoil = r#"update snapshots set data = '{"format": 99, "state": {"balance_cents": "?"}}'"#;
    sqlx::query(spoil).execute(&service.pool).await.unwrap();
    assert_eq!(timed(&mut connection).await.1.version, 100_049);
    drop(connection);
    service.stop().await;
}
