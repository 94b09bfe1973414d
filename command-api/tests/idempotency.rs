//! Retries against the real Postgres: one act, one answer.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use support::{Service, deposit, order, problem, withdrawal};

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn two_hundred_clients_that_retry_one_command_act_once() {
    let service = Service::start().await;
    service.account("acc").await;
    let body = deposit("only-once", "acc", 500);
    let client = async || loop {
        let (status, answer) = service.post("/v1/commands/accounts/deposit", &body).await;
        match status {
            200 => break answer,
            // the first is in flight: ask again
            409 => assert_eq!(problem(&answer), "/problems/command-in-flight"),
            _ => panic!("{status} {answer}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let answers: Vec<Value> = join_all((0..200).map(|_| client())).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(service.number("select count(*) from events where event_type = 'FundsDeposited'").await, 1);
    service.assert_sound().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_key_on_any_command_gives_the_first_answer_again() {
    let service = Service::start().await;
    let (customer, product) = (service.customer(None).await, service.product(1_250, 10).await);
    let body = order(&customer, &product, 2);
    let place = async |key: &str, body: &Value| service.keyed(Method::POST, "/orders", key, body).await;
    let (status, first) = place("k1", &body).await;
    assert_eq!((status, service.number("select reserved from inventory").await), (201, 2));
    assert_eq!(place("k1", &body).await, (201, first.clone()), "the item's and the order's ids are the first ones");
    assert_eq!(service.number("select reserved from inventory").await, 2);
    let (status, answer) = place("k1", &order(&customer, &product, 3)).await;
    assert_eq!((status, problem(&answer)), (422, "/problems/idempotency-key-reused"));
    assert_eq!(place("k2", &body).await.0, 201);
    assert_eq!(service.number("select reserved from inventory").await, 4);

    // what has no body is told apart by its path
    let path = format!("/orders/{}/cancel", first["order_id"].as_str().unwrap());
    let reason = json!({"reason": "no"});
    let cancelled = service.keyed(Method::POST, &path, "k3", &reason).await;
    assert_eq!(cancelled.0, 200);
    assert_eq!(service.keyed(Method::POST, &path, "k3", &reason).await, cancelled);
    assert_eq!(service.send(Method::POST, &path, &reason).await.0, 422, "without its key it is another command");
    service.assert_sound().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_refusal_is_a_first_answer_too_and_a_failure_is_none() {
    let service = Service::start().await;
    service.account("acc").await;
    let body = withdrawal("too-early", "acc", 10);
    let (status, refused) = service.post("/v1/commands/accounts/withdraw", &body).await;
    assert_eq!((status, problem(&refused)), (422, "/problems/insufficient-funds"));
    service.ok("/v1/commands/accounts/deposit", &deposit("d", "acc", 50)).await;
    assert_eq!(service.post("/v1/commands/accounts/withdraw", &body).await, (422, refused));
    service.ok("/v1/commands/accounts/withdraw", &withdrawal("later", "acc", 10)).await;

    // a lost race leaves the key free
    let rival =
        "create function lose() returns trigger language plpgsql as $$ begin raise serialization_failure; end $$;
                 create trigger rival before insert on outbox for each statement execute function lose();";
    sqlx::raw_sql(rival).execute(&service.pool).await.unwrap();
    let body = deposit("unlucky", "acc", 1);
    let (status, answer) = service.post("/v1/commands/accounts/deposit", &body).await;
    assert_eq!((status, problem(&answer)), (409, "/problems/lost-race"));
    sqlx::raw_sql("drop trigger rival on outbox").execute(&service.pool).await.unwrap();
    service.ok("/v1/commands/accounts/deposit", &body).await;
    service.stop().await;
}

/// The client is gone before it was answered, at whatever moment of the command.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn an_answer_that_never_came_is_given_to_the_retry() {
    let service = Service::start().await;
    service.account("acc").await;
    for n in 0..60_u64 {
        let body = deposit(&format!("c{n}"), "acc", 1);
        let asked = service.post("/v1/commands/accounts/deposit", &body);
        let _ = tokio::time::timeout(Duration::from_micros(n * 150), asked).await;
        let answer = loop {
            let (status, answer) = service.post("/v1/commands/accounts/deposit", &body).await;
            if status != 409 {
                assert_eq!(status, 200, "{answer}");
                break answer;
            }
        };
        assert_eq!(answer["last_updated_sequence"], n + 2);
    }
    assert_eq!(service.number("select count(*) from events where event_type = 'FundsDeposited'").await, 60);
    service.assert_sound().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn keys_expire() {
    let service = Service::start().await;
    service.account("acc").await;
    let body = deposit("c", "acc", 1);
    service.ok("/v1/commands/accounts/deposit", &body).await;
    assert_eq!(service.store.expire_keys().await.unwrap(), 0);
    let age = "update idempotency_keys set created_at = now() - interval '8 days' where key = 'command/c'";
    sqlx::query(age).execute(&service.pool).await.unwrap();
    assert_eq!(service.store.expire_keys().await.unwrap(), 1);
    assert_eq!(service.ok("/v1/commands/accounts/deposit", &body).await["last_updated_sequence"], 3);
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_client_that_knows_another_state_is_told_so() {
    let service = Service::start().await;
    service.account("acc").await;
    let product = service.product(1_250, 10).await;
    let path = format!("/products/{product}/stock");
    let body = json!({"delta": 1, "reason": "found"});
    let adjust = async |tag: &str| service.with_header(Method::POST, &path, ("if-match", tag), &body).await;
    assert_eq!(adjust("\"1\"").await.0, 200);
    let (status, answer) = adjust("\"1\"").await;
    assert_eq!((status, problem(&answer)), (412, "/problems/sequence-mismatch"));
    assert_eq!((adjust("*").await.0, adjust("\"3\"").await.0), (200, 200));
    let pay = |n: i64| deposit(&format!("d{n}"), "acc", 1);
    let path = "/v1/commands/accounts/deposit";
    assert_eq!(service.with_header(Method::POST, path, ("if-match", "\"1\""), &pay(1)).await.0, 200);
    assert_eq!(service.with_header(Method::POST, path, ("if-match", "\"1\""), &pay(2)).await.0, 412);
    let begun = json!({"name": "Ada", "email": "a@b"});
    assert_eq!(service.with_header(Method::POST, "/customers", ("if-match", "\"1\""), &begun).await.0, 412);
    service.stop().await;
}
