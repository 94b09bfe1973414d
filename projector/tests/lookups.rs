//! What programs look up in Postgres, on a real server: the documents of another read model, and the rows of a table, key present and missing.
#![allow(clippy::unwrap_used, missing_docs)]

use projector::apply::{Batch, Delivery, Event, Finished, Outcome, Part, Partition, Question, Stored, Write};
use projector::control::{Actor, Control};
use projector::event::{Catalog, Envelope, EventRef, Raw};
use projector::expr::{Object, Value};
use projector::host::{Lookups, open};
use projector::projection::{Compiled, Source};
use projector::sink::{Sink, StoreUrls};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

const TESTS: Actor<'_> = Actor { who: "tests", why: None };

/// A control store, and members in Postgres: a read model of which a generation is live, and a table, both in a schema of this test's own.
struct Members {
    control: Control,
    catalog: Arc<Catalog>,
    urls: StoreUrls,
    sink: Arc<dyn Sink>,
    schema: String,
    server: String,
}

async fn run(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
}

fn members_in(schema: &str) -> String {
    format!(
        "name: members\nstore: {{ postgres: {{ schema: {schema} }} }}\non:\n  MemberJoined: |\n    .name = %data.last_name\n    .level = %data.level\n"
    )
}

impl Members {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = std::env::var("CONTROL_DATABASE_URL").unwrap();
        let urls = StoreUrls { postgres_read_url: std::env::var("READ_DATABASE_URL").unwrap(), ..StoreUrls::default() };
        let schema = format!("lookups_{}", Uuid::new_v4().simple());
        run(&server, &format!("create database {schema}")).await;
        let control = Control::connect(&format!("{}/{schema}", server.rsplit_once('/').unwrap().0)).await.unwrap();
        let table = format!(
            "create schema {schema}; create table {schema}.branches (id text, name text, opened timestamptz);
             insert into {schema}.branches values ('m-1', 'North', '2026-05-01T00:00:00Z'), ('m-2', null, null)"
        );
        run(&urls.postgres_read_url, &table).await;
        let catalog = Arc::new(Catalog::load(Path::new("tests/library/schemas")).unwrap());
        let topics = BTreeMap::from([("events.member".to_owned(), 3)]);
        let generation = control.create_live("members", "f", &members_in(&schema), &topics, TESTS).await.unwrap();
        let (_, sink) = open(&generation, &catalog, &urls).unwrap();
        sink.prepare().await.unwrap();
        Self { control, catalog, urls, sink, schema, server }
    }

    /// To be called at the end; a test that fails leaves its things for a look.
    async fn stop(self) {
        self.control.pool().close().await;
        run(&self.urls.postgres_read_url, &format!("drop schema {} cascade", self.schema)).await;
        run(&self.server, &format!("drop database {} with (force)", self.schema)).await;
    }

    async fn put(&self, key: &str, version: i64, level: Option<&str>) {
        let fields = level
            .map(|level| Object::from([("name".into(), Value::from("Austen")), ("level".into(), Value::from(level))]));
        let write = Write { key: key.to_owned(), version, fields: fields.map(Arc::new), ..Write::default() };
        assert_eq!(self.sink.write(&[write]).await.unwrap(), [Outcome::Written]);
    }

    /// A projection of loans that asks for `%member` by `from`.
    fn loans(&self, from: &str, fields: &str, missing: &str, program: &str) -> Loans {
        let text = format!(
            "name: loans\nstore: {{ redis: {{ prefix: 'loan:' }} }}\nlookup:\n  member: {{ {from}, fields: {fields}, key: member_id, \
             missing: {missing} }}\non:\n  Borrowed: {program}\n"
        );
        let source = Source { name: "loans.yaml".into(), text: text.into() };
        let compiled = Arc::new(Compiled::new(&source, &self.catalog).unwrap_or_else(|found| panic!("{}", found[0])));
        let lookups =
            Lookups::new(Arc::clone(&compiled), self.control.clone(), Arc::clone(&self.catalog), self.urls.clone());
        Loans { compiled, lookups }
    }
}

struct Loans {
    compiled: Arc<Compiled>,
    lookups: Lookups,
}

impl Loans {
    async fn found(&self, keys: &[&str]) -> Vec<Option<Object>> {
        let question = Question { lookup: 0, keys: keys.iter().map(|key| (*key).to_owned()).collect() };
        self.lookups.ask(&question).await.unwrap()
    }

    /// What an event of `member` comes to, from the question to the document.
    async fn fold(&self, member: &str) -> (Option<Stored>, Finished) {
        let reference =
            EventRef { epoch: "e".into(), txid: 1, tx_min: 1, snapshot: None, aggregate_id: "l-1".into(), sequence: 1 };
        let envelope = Envelope {
            id: Uuid::from_u128(1),
            event_type: "Borrowed".into(),
            schema_version: 1,
            aggregate_type: "loan".into(),
            reference,
            occurred_at: chrono::DateTime::UNIX_EPOCH,
            metadata: None,
        };
        let data = Value::Object(Object::from([("member_id".into(), Value::from(member))]));
        let delivery =
            Delivery { offset: 0, raw: Raw::default(), event: Ok(Box::new(Event { envelope, data: Some(Ok(data)) })) };
        let part = Part { deliveries: vec![delivery], ..Part::default() };
        let partition = Partition { topic: "events.loan".into(), number: 0 };
        let mut batch = Batch::new(Arc::clone(&self.compiled), vec![(partition, part)]);
        let mut told = Vec::new();
        for question in batch.questions() {
            let answer = self.lookups.ask(&question).await.unwrap();
            told.push((question, answer));
        }
        batch.told(told);
        let mut document = None;
        while !batch.is_done() {
            let writes = batch.fold(batch.keys().iter().map(|_| document.clone()).collect());
            document = writes.first().map(Write::stored).or(document);
            batch.answered(writes.iter().map(|_| Outcome::Written).collect());
        }
        (document, batch.finish())
    }

    async fn level(&self, member: &str) -> Option<String> {
        let (document, finished) = self.fold(member).await;
        assert_eq!(finished.stops.len(), 0, "{:?}", finished.stops);
        text(document?.fields.as_ref()?, "level")
    }
}

fn text(fields: &Object, name: &str) -> Option<String> {
    fields.get(name)?.as_bytes().map(|text| String::from_utf8_lossy(text).into_owned())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_read_model_in_postgres_is_looked_up_by_key() {
    let members = Members::start().await;
    members.put("m-1", 1, Some("scholar")).await;
    members.put("m-2", 1, Some("reader")).await;
    members.put("gone", 1, Some("reader")).await;
    members.put("gone", 2, None).await;

    let from = "read_model: members, cache_ms: 0";
    let loans = members.loans(from, "{ level: string }", "null", ".level = %member.level ?? \"none\"");
    let found = loans.found(&["m-2", "never", "m-1", "gone"]).await;
    let levels: Vec<_> = found.iter().map(|found| found.as_ref().and_then(|fields| text(fields, "level"))).collect();
    assert_eq!(levels, [Some("reader".to_owned()), None, Some("scholar".to_owned()), None], "each under its key");
    assert_eq!(loans.level("m-1").await.as_deref(), Some("scholar"));
    for missing in ["never", "gone"] {
        assert_eq!(loans.level(missing).await.as_deref(), Some("none"), "{missing}");
    }

    // What isn't found is waited for, and found as soon as it is there.
    let loans = members.loans(from, "{ level: string }", "wait", ".level = %member.level");
    let (document, finished) = loans.fold("late").await;
    assert_eq!(document, None);
    let reason = &finished.stops[0].1.reason;
    assert!(reason.contains("lookup `member`: nothing is found under `late`"), "{reason}");
    members.put("late", 1, Some("reader")).await;
    assert_eq!(loans.level("late").await.as_deref(), Some("reader"));

    // What changes is seen by later events.
    members.put("m-1", 2, Some("reader")).await;
    assert_eq!(loans.level("m-1").await.as_deref(), Some("reader"));
    members.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_table_is_looked_up_by_a_column() {
    let members = Members::start().await;
    let from = format!("table: {}.branches, column: id, cache_ms: 0", members.schema);
    let fields = "{ name: string?, opened: time? }";
    let loans = members.loans(&from, fields, "null", ".level = %member.name ?? \"none\"");
    let found = loans.found(&["m-2", "m-3", "m-1"]).await;
    let [Some(second), None, Some(first)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((text(first, "name").as_deref(), second.get("name")), (Some("North"), Some(&Value::Null)));
    assert!(matches!(first.get("opened"), Some(Value::Timestamp(_))), "{first:?}");
    assert_eq!(loans.level("m-1").await.as_deref(), Some("North"));
    assert_eq!(loans.level("m-3").await.as_deref(), Some("none"));
    members.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_read_model_that_is_not_live_is_waited_for() {
    let members = Members::start().await;
    members.put("m-1", 1, Some("scholar")).await;
    let loans = members.loans("read_model: absent", "{ level: string }", "wait", ".level = %member.level");
    let question = Question { lookup: 0, keys: vec!["m-1".into()] };
    let refused = loans.lookups.ask(&question).await.unwrap_err().to_string();
    assert!(refused.contains("no generation of the read model `absent` is live"), "{refused}");
    // Its first generation, at another place, with another document under the key.
    let topics = BTreeMap::from([("events.member".to_owned(), 3)]);
    let config = members_in(&members.schema).replace("name: members", "name: absent");
    let generation = members.control.create_live("absent", "f", &config, &topics, TESTS).await.unwrap();
    let (_, sink) = open(&generation, &members.catalog, &members.urls).unwrap();
    sink.prepare().await.unwrap();
    assert_eq!(loans.found(&["m-1"]).await, [None]);
    members.stop().await;
}
