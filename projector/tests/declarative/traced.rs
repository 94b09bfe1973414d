//! `trace` and `try`, over an event store, a control store and a read store in a database of their own.

use super::registry::{registry, schema};
use super::support::{library, projector, scratch};
use projector::control::{Actor, Control};
use projector::event::Catalog;
use projector::expr::{Object, Value};
use projector::projection::{Compiled, Source};
use projector::sink::{self, Place, StoreUrls, Write};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

const LIVE: &str = "name: traced\nstore:\n  postgres: {}\non:\n  Borrowed: |\n    .title = %data.title\n    .renewals = 0\n  Renewed: |\n    .renewals = int!(.renewals) + 1\n";

const EVENTS: &str = "
create table events (
    global_position bigserial primary key, stream_position bigint not null, event_id uuid not null default gen_random_uuid(),
    aggregate_type text not null default 'loan', aggregate_id text not null, event_type text not null,
    schema_version integer not null default 1, payload bytea not null, metadata jsonb not null default '{}',
    epoch text not null default 'first', txid bigint not null, tx_min bigint not null,
    created_at timestamptz not null default '2026-05-23T10:00:00Z')";

fn long(bytes: &mut Vec<u8>, n: i64) {
    let mut rest = ((n << 1) ^ (n >> 63)).cast_unsigned();
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    long(bytes, i64::try_from(text.len()).unwrap());
    bytes.extend(text.as_bytes());
}

fn borrowed(loan: &str, title: &str) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 1];
    text(&mut bytes, loan);
    text(&mut bytes, "m-1");
    text(&mut bytes, title);
    // Days, due, note (null), no copies.
    [14, 0, 0, 0].into_iter().for_each(|n| long(&mut bytes, n));
    bytes
}

fn renewed(loan: &str) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 2];
    text(&mut bytes, loan);
    [7, 0].into_iter().for_each(|n| long(&mut bytes, n));
    bytes
}

async fn event(database: &mut PgConnection, loan: &str, sequence: i64, event_type: &str, payload: Vec<u8>) {
    let sql = "insert into events (stream_position, aggregate_id, event_type, payload, txid, tx_min)
               select $1, $2, $3, $4, 100 + count(*), 100 + count(*) from events";
    sqlx::query(sql).bind(sequence).bind(loan).bind(event_type).bind(payload).execute(database).await.unwrap();
}

fn document(title: &str, renewals: i64) -> Option<Object> {
    Some(Object::from([("title".into(), Value::from(title)), ("renewals".into(), Value::from(renewals))]))
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_documents_history_is_shown_and_a_changed_file_is_tried() {
    let server = std::env::var("CONTROL_DATABASE_URL").unwrap();
    let name = format!("traced_{}", Uuid::new_v4().simple());
    let mut admin = PgConnection::connect(&server).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await.unwrap();
    let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
    let mut database = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(EVENTS).execute(&mut database).await.unwrap();
    event(&mut database, "l-1", 1, "Borrowed", borrowed("l-1", "Emma")).await;
    event(&mut database, "l-2", 1, "Borrowed", borrowed("l-2", "Persuasion")).await;
    event(&mut database, "l-1", 2, "Renewed", renewed("l-1")).await;

    let control = Control::connect(&url).await.unwrap();
    control
        .create_live(
            "traced",
            "f",
            LIVE,
            &BTreeMap::from([("events.loan".to_owned(), 1)]),
            Actor { who: "tests", why: None },
        )
        .await
        .unwrap();
    let catalog = Catalog::load(Path::new(&library("schemas"))).unwrap();
    let compiled = Compiled::new(&Source { name: "live".into(), text: LIVE.into() }, &catalog).unwrap();
    let urls = StoreUrls {
        redis_url: String::new(),
        elasticsearch_url: String::new(),
        clickhouse_url: String::new(),
        clickhouse_database: String::new(),
        postgres_read_url: url.clone(),
        ..StoreUrls::default()
    };
    let place = Place { read_model: "traced".into(), generation: 1, document: compiled.document.clone() };
    let store = sink::open(&compiled.projection.store, place, &urls).unwrap();
    store.prepare().await.unwrap();
    let write = |key: &str, version, fields: Option<Object>| Write {
        key: key.into(),
        version,
        fields: fields.map(Arc::new),
        ..Write::default()
    };
    store.write(&[write("l-1", 2, document("Emma", 1)), write("l-2", 1, document("Persuasion", 0))]).await.unwrap();

    let subjects = ["Borrowed", "Renewed"].map(|event| {
        let name: &'static str =
            if event == "Borrowed" { "library.loan.v1.Borrowed" } else { "library.loan.v1.Renewed" };
        (name, schema(&format!("schemas/loan/{event}.v1.avsc")))
    });
    let registry = registry(&subjects);
    let to: [&str; 8] = [
        "--write-database-url",
        &url,
        "--control-database-url",
        &url,
        "--postgres-read-url",
        &url,
        "--schema-registry-url",
        &registry,
    ];

    let ran = projector(&[&["trace", "traced", "l-1"][..], &to].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let expected = "\
2026-05-23T10:00:00.000000Z  Borrowed, loan 1 of l-1
    renewals: 0
    title: \"Emma\"
2026-05-23T10:00:00.000000Z  Renewed, loan 2 of l-1
    renewals: 0 → 1
the same is stored: {\"renewals\":1,\"title\":\"Emma\"}
";
    assert_eq!(ran.out, expected);

    let folder = scratch("try");
    std::fs::write(folder.join("traced.yaml"), LIVE.replace("int!(.renewals) + 1", "int!(.renewals) + 2")).unwrap();
    let tried = ["try", "traced", "--from-beginning", "--projections", folder.to_str().unwrap()];
    let ran = projector(&[&tried[..], &to].concat());
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("3 events (all there are) make 2 documents; 0 would be dead letters"), "{}", ran.out);
    assert!(ran.out.contains("1 are as live, 1 differ, 0 are not live"), "{}", ran.out);
    assert!(ran.out.contains("document `l-1`\n    data, field renewals: 1 → 2"), "{}", ran.out);
    let ran = projector(&[&tried[..], &["--limit", "2"], &to].concat());
    assert!(
        ran.out.contains("2 events (there are more)") && ran.out.contains("of 1 live has seen more"),
        "{}",
        ran.out
    );

    // What is stored by mistake is seen.
    store.write(&[write("l-2", 2, document("Mansfield Park", 0))]).await.unwrap();
    let ran = projector(&[&["trace", "traced", "l-2"][..], &to].concat());
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(
        ran.out.ends_with("what is stored differs: {\"renewals\":0,\"title\":\"Mansfield Park\"}\n"),
        "{}",
        ran.out
    );

    control.pool().close().await;
    drop((store, database));
    sqlx::raw_sql(AssertSqlSafe(format!("drop database {name} with (force)"))).execute(&mut admin).await.unwrap();
}
