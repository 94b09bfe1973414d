//! A service of its own on a database of its own, in the real Postgres.
#![allow(dead_code)] // not every test takes all of it

pub(crate) mod replay;

use std::collections::HashMap;
use std::path::Path;

use command_api::http::{Consistency, router};
use command_api::migrate::{Options, check, migrate};
use command_api::store::{Codec, Options as StoreOptions, Store};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A service that listens on a free port; its database goes with it.
pub(crate) struct Service {
    pub(crate) url: String,
    pub(crate) pool: PgPool,
    pub(crate) store: Store,
    pub(crate) database_url: String,

    http: reqwest::Client,
    database: String,
    server: String,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = std::env::var("WRITE_DATABASE_URL").expect("WRITE_DATABASE_URL");
        let database = format!("command_api_{}", uuid::Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("create database {database}"))).execute(&mut admin).await.unwrap();
        let database_url = format!("{}/{database}", server.rsplit_once('/').unwrap().0);
        // No slot: it would belong to the whole cluster, and keep the database from being dropped.
        let options = Options { connector_role: "debezium".to_owned(), ..Options::default() };
        migrate(&database_url, &options).await.unwrap();

        let options: PgConnectOptions = database_url.parse().unwrap();
        let pool =
            PgPoolOptions::new().max_connections(8).test_before_acquire(false).connect_with(options).await.unwrap();
        check(&pool).await.unwrap();
        let files = schemas::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")).unwrap();

        let ids: HashMap<(String, u32), u32> =
            (1..).zip(&files).map(|(id, f)| ((f.event.clone(), f.major), id)).collect();
        let store = Store::new(pool.clone(), Codec::new(files, &ids), StoreOptions::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, router(store.clone(), Consistency::none())).into_future());
        Self { url, pool, store, database_url, http: reqwest::Client::new(), database, server }
    }

    /// To be called at the end; a test that fails leaves its database for a look.
    pub(crate) async fn stop(self) {
        self.pool.close().await;
        let mut admin = PgConnection::connect(&self.server).await.unwrap();
        let drop = format!("drop database {} with (force)", self.database);
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.http.request(method, format!("{}{path}", self.url)).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(crate) async fn with_header(
        &self,
        method: Method,
        path: &str,
        header: (&str, &str),
        body: &Value,
    ) -> (u16, Value) {
        let request = self.http.request(method, format!("{}{path}", self.url)).header(header.0, header.1);
        let answer = request.json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(crate) async fn keyed(&self, method: Method, path: &str, key: &str, body: &Value) -> (u16, Value) {
        self.with_header(method, path, ("idempotency-key", key), body).await
    }

    /// Opens an account in USD.
    pub(crate) async fn account(&self, id: &str) {
        self.account_command("open", &format!("open-{id}"), id, json!({"currency": "USD"})).await.unwrap();
    }

    /// `Err` with status and problem if it is refused.
    pub(crate) async fn account_command(
        &self,
        verb: &str,
        command_id: &str,
        account: &str,
        payload: Value,
    ) -> Result<Value, (u16, Value)> {
        let body = command(verb, command_id, account, payload);
        let (status, answer) = self.post(&format!("/v1/commands/accounts/{verb}"), &body).await;
        if (200..300).contains(&status) { Ok(answer) } else { Err((status, answer)) }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(Method::POST, path, body).await
    }

    /// A command that must be accepted.
    pub(crate) async fn ok(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert!((200..300).contains(&status), "{path} {body}: {status} {answer}");
        answer
    }

    pub(crate) async fn customer(&self, credit_limit_cents: Option<i64>) -> String {
        let body = json!({"first_name": "Ada", "last_name": "Lamport", "email": "ada@example.com", "credit_limit_cents": credit_limit_cents});
        self.ok("/customers", &body).await["customer_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn product(&self, price_cents: i64, stock: i64) -> String {
        let body = json!({"name": "Kettle", "category": "Kitchen", "price_cents": price_cents, "currency": "USD", "stock": stock});
        self.ok("/products", &body).await["product_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        number(&self.pool, sql).await
    }

    pub(crate) async fn assert_sound(&self) {
        assert_sound(&self.pool).await;
    }
}

/// Each stream's positions are 1, 2, 3, … and the outbox has the same events with the same bytes.
pub(crate) async fn assert_sound(pool: &PgPool) {
    let gaps = "select count(*) from (select stream_id from events group by stream_id
                having min(stream_position) <> 1 or max(stream_position) <> count(*)) gaps";
    assert_eq!(number(pool, gaps).await, 0, "streams with gaps");
    let apart = "select count(*) from events e full join outbox o on o.outbox_id = e.event_id
        where (e.payload, e.txid, e.tx_min, e.epoch, e.created_at, e.stream_position, e.event_type, e.aggregate_id, e.metadata)
           is distinct from (o.payload, o.txid, o.tx_min, o.epoch, o.occurred_at, o.sequence, o.event_type, o.aggregate_id, o.metadata)";
    assert_eq!(number(pool, apart).await, 0, "events and outbox differ");
}

pub(crate) async fn number(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

pub(crate) fn order(customer: &str, product: &str, quantity: i64) -> Value {
    json!({
        "customer_id": customer,
        "items": [{"product_id": product, "quantity": quantity}],
        "shipping_address": {"city": "Zurich", "zip": "8001"},
    })
}

pub(crate) fn problem(answer: &Value) -> &str {
    answer["type"].as_str().unwrap_or_default()
}

fn command(verb: &str, command_id: &str, account: &str, payload: Value) -> Value {
    let what = if matches!(verb, "deposit" | "withdraw" | "transfer") { "FUNDS" } else { "ACCOUNT" };
    let command_type = format!("{}_{what}", verb.to_uppercase());
    json!({"command_id": command_id, "command_type": command_type, "aggregate_id": account, "payload": payload,
           "created_at": "2026-05-23T10:00:00.123Z"})
}

pub(crate) fn deposit(command_id: &str, account: &str, amount_cents: i64) -> Value {
    command("deposit", command_id, account, json!({"amount_cents": amount_cents, "currency": "USD"}))
}

pub(crate) fn withdrawal(command_id: &str, account: &str, amount_cents: i64) -> Value {
    command("withdraw", command_id, account, json!({"amount_cents": amount_cents, "currency": "USD"}))
}

pub(crate) fn transfer(command_id: &str, from: &str, to: &str, amount_cents: i64) -> Value {
    let payload = json!({"amount_cents": amount_cents, "currency": "USD", "to_account_id": to});
    command("transfer", command_id, from, payload)
}
