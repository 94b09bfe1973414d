//! Accounts against the real Postgres: the contract, and races on streams that have no row to lock.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use serde_json::{Value, json};
use support::{Service, deposit, problem, transfer, withdrawal};

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn the_literal_payload_works_as_written() {
    let service = Service::start().await;
    service.account("acc-998811").await;
    let literal = r#"{"command_id":"cmd-880099-deposit","command_type":"DEPOSIT_FUNDS","aggregate_id":"acc-998811","payload":{"amount_cents":50000,"currency":"USD","reference":"Payroll deposit"},"created_at":"2026-05-23T10:00:00.123Z"}"#;
    let body: Value = serde_json::from_str(literal).unwrap();
    let answer = service.ok("/v1/commands/accounts/deposit", &body).await;
    assert_eq!(answer["aggregate_id"], "acc-998811");
    assert_eq!((&answer["last_updated_sequence"], &answer["sequence_number"]), (&json!(2), &json!(2)));
    let token = URL_SAFE_NO_PAD.decode(answer["consistency_token"].as_str().unwrap()).unwrap();
    let token: Value = serde_json::from_slice(&token).unwrap();
    assert_eq!(token["streams"], json!([["account", "acc-998811", 2]]));
    // word for word again, now below /api: the same answer, and nothing happens
    assert_eq!(service.ok("/api/v1/commands/accounts/deposit", &body).await, answer);
    let (data, metadata): (Value, Value) =
        sqlx::query_as("select data, metadata from events where event_type = 'FundsDeposited'")
            .fetch_one(&service.pool)
            .await
            .unwrap();
    assert_eq!((&data["reference"], &data["balance_after_cents"]), (&json!("Payroll deposit"), &json!(50_000)));
    assert_eq!(data["command_id"], "cmd-880099-deposit");
    assert_eq!(metadata["command_id"], "cmd-880099-deposit");
    assert_eq!(metadata["command_created_at"], "2026-05-23T10:00:00.123Z");
    service.assert_sound().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn every_rule_has_its_name_and_leaves_nothing_behind() {
    let service = Service::start().await;
    for id in ["a", "b", "shut"] {
        service.account(id).await;
    }
    service.account_command("deposit", "d1", "a", json!({"amount_cents": 100, "currency": "USD"})).await.unwrap();
    service.account_command("close", "c1", "shut", json!({"reason": "moved"})).await.unwrap();
    let events = service.number("select count(*) from events").await;
    let money = |cents: i64, currency: &str| json!({"amount_cents": cents, "currency": currency});
    let to = |account: &str| json!({"amount_cents": 10, "currency": "USD", "to_account_id": account});
    for (n, (verb, account, payload, rule)) in [
        ("withdraw", "a", money(101, "USD"), "insufficient-funds"),
        ("withdraw", "a", money(0, "USD"), "amount-not-positive"),
        ("deposit", "a", money(1, "EUR"), "currency-mismatch"),
        ("deposit", "nobody", money(1, "USD"), "unknown-account"),
        ("deposit", "shut", money(1, "USD"), "account-closed"),
        ("transfer", "a", to("a"), "transfer-to-itself"),
        ("transfer", "a", to("nobody"), "unknown-account"),
        ("transfer", "b", to("a"), "insufficient-funds"),
        ("close", "a", json!({}), "balance-not-zero"),
        ("unlock", "a", json!({}), "account-not-locked"),
        ("open", "a", json!({"currency": "USD"}), "account-exists"),
    ]
    .into_iter()
    .enumerate()
    {
        let refused = service.account_command(verb, &format!("refused-{n}"), account, payload).await.unwrap_err();
        assert_eq!((refused.0, problem(&refused.1)), (422, &*format!("/problems/{rule}")), "{verb}: {}", refused.1);
    }
    assert_eq!(service.number("select count(*) from events").await, events);

    service.account_command("lock", "l1", "a", json!({"reason": "lost card"})).await.unwrap();
    for (verb, payload) in [("deposit", money(1, "USD")), ("withdraw", money(1, "USD")), ("transfer", to("b"))] {
        let refused = service.account_command(verb, &format!("locked-{verb}"), "a", payload).await.unwrap_err();
        assert_eq!(problem(&refused.1), "/problems/account-locked");
    }
    service.account_command("unlock", "u1", "a", json!({})).await.unwrap();
    let moved = service.account_command("transfer", "t1", "a", to("b")).await.unwrap();
    assert_eq!(moved["last_updated_sequence"], 6, "opened, deposited, locked, unlocked, withdrawn, completed");
    let types: Vec<String> = sqlx::query_scalar("select event_type from events order by global_position desc limit 3")
        .fetch_all(&service.pool)
        .await
        .unwrap();
    assert_eq!(types, ["TransferCompleted", "FundsDeposited", "FundsWithdrawn"]);
    service.assert_sound().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn path_and_type_must_agree_and_faults_are_named() {
    let service = Service::start().await;
    let body = |change: (&str, Value)| {
        let mut body = deposit("c", "a", 1);
        body[change.0] = change.1;
        body
    };
    let long = "x".repeat(65);
    for (path, body, status, field) in [
        ("withdraw", deposit("c", "a", 1), 400, Some("command_type")),
        ("melt", deposit("c", "a", 1), 404, None),
        ("deposit", body(("command_type", json!("deposit"))), 400, Some("command_type")),
        ("deposit", body(("aggregate_id", json!(long))), 400, Some("aggregate_id")),
        ("deposit", body(("command_id", json!(""))), 400, Some("command_id")),
        ("deposit", body(("created_at", json!("yesterday"))), 400, Some("created_at")),
        ("deposit", body(("payload", json!({"currency": "USD"}))), 400, Some("payload.amount_cents")),
        ("deposit", body(("payload", json!({"amount_cents": 1, "currency": "usd"}))), 400, Some("payload.currency")),
        ("deposit", body(("extra", json!(1))), 400, Some("extra")),
    ] {
        let (answered, problem) = service.post(&format!("/v1/commands/accounts/{path}"), &body).await;
        assert_eq!((answered, problem["field"].as_str()), (status, field), "{problem}");
    }
    service.stop().await;
}

/// A slow machine may not have answered all within a request's time: then they are sent again, as by any client.
async fn persist(service: &Service, verb: &str, body: &Value) -> (u16, Value) {
    loop {
        let (status, answer) = service.post(&format!("/v1/commands/accounts/{verb}"), body).await;
        if !matches!(status, 409 | 503) {
            return (status, answer);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// 60 withdrawals are covered, and 1,000 are tried at once.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_thousand_withdrawals_at_once_never_overdraw() {
    let service = Service::start().await;
    service.account("hot").await;
    service.ok("/v1/commands/accounts/deposit", &deposit("d", "hot", 6_050)).await;
    let bodies: Vec<Value> = (0..1_000).map(|n| withdrawal(&format!("w{n}"), "hot", 100)).collect();
    let started = Instant::now();
    let answers = join_all(bodies.iter().map(|body| persist(&service, "withdraw", body))).await;
    println!("1,000 withdrawals on one account: {} ms", started.elapsed().as_millis());
    let won = answers.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(won, 60);
    for (status, answer) in answers.iter().filter(|(status, _)| *status != 200) {
        assert_eq!((*status, problem(answer)), (422, "/problems/insufficient-funds"), "{answer}");
    }
    assert_eq!(service.number("select count(*) from events where event_type = 'FundsWithdrawn'").await, 60);
    let balances = "select count(*) from events where (data ->> 'balance_after_cents')::bigint < 0";
    assert_eq!(service.number(balances).await, 0);
    let last = "select (data ->> 'balance_after_cents')::bigint from events order by stream_position desc limit 1";
    assert_eq!(service.number(last).await, 50);
    let twice = "select count(*) from (select data ->> 'command_id' from events group by 1 having count(*) > 1) twice";
    assert_eq!(service.number(twice).await, 0, "one event a success");
    service.assert_sound().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn crossing_transfers_neither_deadlock_nor_lose_a_cent() {
    let service = Service::start().await;
    let ids = ["a", "b", "c", "d"];
    for id in ids {
        service.account(id).await;
        service.ok("/v1/commands/accounts/deposit", &deposit(&format!("d-{id}"), id, 1_000)).await;
    }
    let bodies: Vec<Value> = (0..400)
        .map(|n| transfer(&format!("t{n}"), ids[n % 4], ids[(n + 1 + n / 4 % 3) % 4], 1 + (n as i64) % 90))
        .collect();
    let answers = join_all(bodies.iter().map(|body| persist(&service, "transfer", body))).await;
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    for (status, answer) in &answers {
        assert!(*status == 200 || problem(answer) == "/problems/insufficient-funds", "{answer}");
    }
    assert!(answers.iter().filter(|(status, _)| *status == 200).count() > 100);
    assert_eq!(service.number(deadlocks).await, 0);
    let sum = "select sum((data ->> 'balance_after_cents')::bigint)::bigint from events e
               where stream_position = (select max(stream_position) from events l
                                        where l.stream_id = e.stream_id and l.data ? 'balance_after_cents')";
    assert_eq!(service.number(sum).await, 4_000);
    let whole = "select count(*) from (
                     select data ->> 'transfer_id' from events where data ->> 'transfer_id' is not null
                     group by 1 having count(*) <> 3 or count(distinct txid) <> 1) torn";
    assert_eq!(service.number(whole).await, 0, "a transfer is three events of one transaction");
    service.assert_sound().await;
    service.stop().await;
}
