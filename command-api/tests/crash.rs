//! kill -9 of the service and an immediate stop of Postgres, again and again under load: what was acknowledged is there, once,
//! and nothing is there by half.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::{Json, Router};
use command_api::migrate::{Options, migrate};
use futures::future::join_all;
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::PgPool;
use support::replay::replay_gives_the_tables;
use support::{assert_sound, deposit, number, order, transfer};

const ACCOUNTS: u64 = 6;
const CLIENTS: u64 = 8;
const UP_WITHIN: Duration = Duration::from_secs(60);

/// A cluster of this test's own, as the other tests' must live on.
struct Postgres {
    home: PathBuf,
    port: u16,
    server: Option<Child>,
}

/// Postgres refuses to run as root.
fn postgres(program: &str) -> Command {
    let program = PathBuf::from(std::env::var_os("PGBIN").expect("PGBIN: start this with ./dev test")).join(program);
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut command = if root {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Postgres {
    fn create() -> Self {
        let home = PathBuf::from(format!("/var/tmp/command-api-crash-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        // Nothing to do where we are not root.
        let _ = Command::new("chown").arg("postgres").arg(&home).status();
        let data = home.join("data");
        let mut initdb = postgres("initdb");
        initdb.args(["-A", "trust", "-U", "app", "-E", "UTF8", "--locale=C.UTF-8", "-D"]).arg(&data);
        assert!(initdb.status().unwrap().success(), "initdb");
        Self { home, port: free_port(), server: None }
    }

    fn url(&self) -> String {
        format!("postgres://app@127.0.0.1:{}/postgres", self.port)
    }

    fn start(&mut self) {
        let settings = [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".into(),
            "unix_socket_directories=".into(),
            "wal_level=logical".into(),
        ];
        let mut command = postgres("postgres");
        command.arg("-D").arg(self.home.join("data"));
        for setting in settings {
            command.args(["-c", &setting]);
        }
        self.server = Some(command.spawn().unwrap());
    }

    /// As if the power had failed: no checkpoint, no goodbye.
    fn stop_immediately(&mut self) {
        let mut server = self.server.take().unwrap();
        assert!(Command::new("kill").args(["-QUIT", &server.id().to_string()]).status().unwrap().success());
        server.wait().unwrap();
    }

    async fn ready(&self) -> PgPool {
        let deadline = Instant::now() + UP_WITHIN;
        loop {
            match PgPool::connect(&self.url()).await {
                Ok(pool) => return pool,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.stop_immediately();
        }
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A registry that has everything.
async fn registry() -> String {
    let found = async || Json(json!({"subject": "any", "id": 1, "version": 1, "schema": "\"string\""}));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, Router::new().fallback(found)).into_future());
    url
}

/// Killed, if a test ends early.
struct Service(Child);

impl Service {
    fn start(database: &str, registry: &str, port: u16) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_command-api"));
        command
            .arg("serve")
            .env("WRITE_DATABASE_URL", database)
            .env("SCHEMA_REGISTRY_URL", registry)
            .env("SCHEMAS_DIR", concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas"))
            .env("COMMAND_API_LISTEN", format!("127.0.0.1:{port}"))
            .env_remove("KAFKA_BROKERS")
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a command until it is answered, with one id throughout.
async fn persist(http: &Client, url: &str, path: &str, key: &str, body: &Value) -> Value {
    let deadline = Instant::now() + UP_WITHIN;
    loop {
        let request = http.post(format!("{url}{path}")).header("idempotency-key", key).json(body);
        if let Ok(answer) = request.timeout(Duration::from_secs(5)).send().await {
            let status = answer.status().as_u16();
            let answer: Value = answer.json().await.unwrap_or_default();
            match status {
                200..=299 | 422 => return answer,
                409 | 500.. => {}
                _ => panic!("{path} {body}: {status} {answer}"),
            }
        }
        assert!(Instant::now() < deadline, "{path} is never answered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_was_acknowledged_survives_every_crash_and_happened_once() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut database = Postgres::create();
    database.start();
    database.ready().await.close().await;
    migrate(&database.url(), &Options { connector_role: "debezium".to_owned(), ..Options::default() }).await.unwrap();
    let (registry, port, http) = (registry().await, free_port(), Client::new());
    let url = format!("http://127.0.0.1:{port}");
    let mut service = Some(Service::start(&database.url(), &registry, port));
    let send = async |path: &str, key: &str, body: Value| persist(&http, &url, path, key, &body).await;
    for n in 0..ACCOUNTS {
        let open = json!({"command_id": format!("open-{n}"), "command_type": "OPEN_ACCOUNT", "aggregate_id": format!("a{n}"),
                          "payload": {"currency": "USD"}, "created_at": "2026-05-23T10:00:00Z"});
        send("/v1/commands/accounts/open", "-", open).await;
        let path = "/v1/commands/accounts/deposit";
        send(path, "-", deposit(&format!("first-{n}"), &format!("a{n}"), 100_000)).await;
    }
    let customer = send("/customers", "customer", json!({"name": "Ada", "email": "a@b"})).await;
    let product =
        json!({"name": "Kettle", "category": "Kitchen", "price_cents": 1_000, "currency": "USD", "stock": 1_000_000});
    let product = send("/products", "product", product).await;
    let placing = order(customer["customer_id"].as_str().unwrap(), product["product_id"].as_str().unwrap(), 1);

    let (over, transfers, orders) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0), AtomicU64::new(0));
    let client = async |client: u64| {
        let mut n = 0;
        while !over.load(Ordering::Relaxed) {
            n += 1;
            let key = format!("{client}-{n}");
            if n % 3 == 0 {
                assert!(send("/orders", &key, placing.clone()).await["order_id"].is_string());
                orders.fetch_add(1, Ordering::Relaxed);
            } else {
                let (from, to) = ((client + n) % ACCOUNTS, (client + n + 1 + n % (ACCOUNTS - 1)) % ACCOUNTS);
                let body = transfer(&key, &format!("a{from}"), &format!("a{to}"), 1);
                let answer = send("/v1/commands/accounts/transfer", "-", body).await;
                assert!(answer["sequence_number"].is_i64(), "{answer}");
                transfers.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let wait = || tokio::time::sleep(Duration::from_millis(700));
    let crashes = async {
        for _ in 0..3 {
            wait().await;
            // A service that starts wants its database there.
            database.ready().await.close().await;
            drop(service.take());
            service = Some(Service::start(&database.url(), &registry, port));
            wait().await;
            database.stop_immediately();
            database.start();
        }
        wait().await;
        over.store(true, Ordering::Relaxed);
    };
    let ((), _) = tokio::join!(crashes, join_all((0..CLIENTS).map(client)));

    let pool = database.ready().await;
    let (transfers, orders) = (transfers.into_inner().cast_signed(), orders.into_inner().cast_signed());
    println!("{transfers} transfers and {orders} orders across three kills of the service and three of Postgres");
    assert!(transfers > 50 && orders > 20);
    assert_eq!(number(&pool, "select count(*) from events where event_type = 'TransferCompleted'").await, transfers);
    assert_eq!(number(&pool, "select count(*) from events where event_type = 'OrderPlaced'").await, orders);
    let torn =
        "select count(*) from (select data ->> 'transfer_id' from events where data ->> 'transfer_id' is not null
                group by 1 having count(*) <> 3 or count(distinct txid) <> 1) torn";
    assert_eq!(number(&pool, torn).await, 0);
    let sum = "select sum((data ->> 'balance_after_cents')::bigint)::bigint from events e
               where stream_position = (select max(stream_position) from events l
                                        where l.stream_id = e.stream_id and l.data ? 'balance_after_cents')";
    assert_eq!(number(&pool, sum).await, 100_000 * ACCOUNTS.cast_signed());
    assert_eq!(number(&pool, "select reserved from inventory").await, orders);
    assert_sound(&pool).await;
    assert_eq!(replay_gives_the_tables(&pool).await, [1, 1, orders.cast_unsigned() as usize]);
    pool.close().await;
    drop(service);
}
