//! API and console on a port of their own.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use projector::apply::Partition;
use projector::control::{Actor, Control, DeadLetter, DeadLetterState, aggregate_text};
use projector::event::Catalog;
use projector::generation::Site;
use projector::ops::admin::{Admin, AdminArgs};
use projector::ops::alert::Seen;
use projector::ops::lag::{BeforeKafka, BeforeKafkaArgs};
use projector::sink::StoreUrls;
use projector::source::{Edges, KafkaConfig};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub(crate) const TOKEN: &str = "a token that is long enough";
pub(crate) const HOSTILE: &str = "<script>alert(1)</script>";
const SOMEBODY: Actor<'_> = Actor { who: "tests", why: None };

pub(crate) struct Desk {
    control: Control,
    pub(crate) http: Client,
    pub(crate) url: String,
    generation_id: i64,
    served: JoinHandle<()>,
    server: String,
    database: String,
}

fn library(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/library").join(path)
}

impl Desk {
    pub(crate) async fn open(token: Option<&str>) -> Self {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = std::env::var("CONTROL_DATABASE_URL").unwrap();
        let database = format!("admin_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("create database {database}"))).execute(&mut admin).await.unwrap();
        let control = Control::connect(&format!("{}/{database}", server.rsplit_once('/').unwrap().0)).await.unwrap();
        let config = std::fs::read_to_string(library("projections/loans.yaml")).unwrap();
        let topics = BTreeMap::from([("events.loan".to_owned(), 3)]);
        let live = control.create_live("loans", "f", &config, &topics, SOMEBODY).await.unwrap();
        // Nothing listens there.
        let kafka = KafkaConfig { kafka_brokers: "127.0.0.1:9".to_owned(), instance_id: None };
        let site = Site {
            control: control.clone(),
            catalog: Arc::new(Catalog::load(&library("schemas")).unwrap()),
            stores: StoreUrls::default(),
            edges: Edges::new(&kafka),
            kafka,
            decoder: None,
            event_store: None,
            name: "tests".to_owned(),
            id: Uuid::now_v7(),
        };
        let before =
            BeforeKafka::open(None, None, &BeforeKafkaArgs { outbox_slot: "none".to_owned(), outbox_late_ms: 1 });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let args = AdminArgs { admin_token: token.map(str::to_owned), projections: library("projections") };
        let desk = Admin::new(site, before.unwrap(), Seen::default(), None, args, listen).unwrap();
        let served = tokio::spawn(async move { axum::serve(listener, desk.routes()).await.unwrap() });
        let http = Client::builder().redirect(Policy::none()).no_proxy().build().unwrap();
        let url = format!("http://{listen}");
        Self { control, http, url, generation_id: live.generation_id, served, server, database }
    }

    /// To be called at the end; a test that fails leaves its database for a look.
    pub(crate) async fn close(self) {
        self.served.abort();
        self.control.pool().close().await;
        let mut admin = PgConnection::connect(&self.server).await.unwrap();
        let drop = format!("drop database {} with (force)", self.database);
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.url)).bearer_auth(TOKEN).send().await.unwrap()
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.change("POST", path, body).await
    }

    pub(crate) async fn change(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        let answer = request.bearer_auth(TOKEN).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(crate) async fn park(&self, aggregate: &str) -> Uuid {
        let partition = Partition { topic: "events.loan".into(), number: 1 };
        let fence = self.control.claim(self.generation_id, std::slice::from_ref(&partition)).await.unwrap()[0];
        let id = Uuid::new_v4();
        let now = chrono::Utc::now();
        let letter = DeadLetter {
            dead_letter_id: id,
            generation_id: self.generation_id,
            partition,
            offset: 4,
            aggregate_id: aggregate_text(Some(aggregate.as_bytes())),
            sequence: Some(4),
            event_type: Some("Renewed".to_owned()),
            headers: Vec::new(),
            key: Some(aggregate.as_bytes().to_vec()),
            payload: None,
            reason: Some(format!("no shelf {HOSTILE}")),
            tries: 3,
            done: Vec::new(),
            state: DeadLetterState::Parked,
            parked_at: now,
            updated_at: now,
        };
        self.control.park(fence, &[letter]).await.unwrap();
        id
    }

    /// A form as a browser sends it.
    pub(crate) async fn send(&self, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Response {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let body: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let request = self.http.post(format!("{}{path}", self.url)).header("cookie", cookie);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.body(body.join("&")).send().await.unwrap()
    }

    /// A session's cookie and its forms' secret.
    pub(crate) async fn log_in(&self, name: &str) -> (String, String) {
        let answer = self.send("/login", "", &[("name", name), ("token", TOKEN)]).await;
        assert_eq!(answer.status(), 303);
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let page = self.page("/rebuilds", &cookie).await;
        let secret = page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        (cookie, secret)
    }

    pub(crate) async fn page(&self, path: &str, cookie: &str) -> String {
        let answer = self.http.get(format!("{}{path}", self.url)).header("cookie", cookie).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        answer.text().await.unwrap()
    }
}
