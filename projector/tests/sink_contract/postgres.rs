//! On a real Postgres.

use super::documents::{Text, documents};
use super::fixtures::{
    apart, fenced, loan, named, object, one, place, put, run_name, speed, tombstone, unavailable, urls, urls_at,
    written,
};
use super::outages::outages;
use super::proxy::Proxy;
use anyhow::{Result, ensure};
use chrono::Utc;
use projector::apply::{Outcome, Write};
use projector::expr::{Collection, Kind, Object, Value};
use projector::projection::{PostgresStore, Store};
use projector::sink::{Place, Sink, SinkError, StoreUrls, open};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn postgres_keeps_the_contract() -> Result<()> {
    let name = run_name();
    let result = {
        let name = name.clone();
        apart(async move { steps(&name).await }).await
    };
    let mut connection = connection().await?;
    sql(&mut connection, &format!("DROP SCHEMA IF EXISTS {name} CASCADE")).await?;
    result
}

async fn connection() -> Result<PgConnection> {
    Ok(PgConnection::connect(&urls().postgres_read_url).await?)
}

async fn sql(connection: &mut PgConnection, statements: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await?;
    Ok(())
}

/// The first column of an answer, as text.
async fn texts(connection: &mut PgConnection, statement: &str) -> Result<Vec<String>> {
    let rows = sqlx::query(AssertSqlSafe(statement)).fetch_all(connection).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Everything that a run makes is in a schema of its own.
fn config(schema: &str) -> PostgresStore {
    let indexes = vec![vec!["n".to_owned(), "at".to_owned()]];
    PostgresStore { schema: schema.to_owned(), indexes, ..PostgresStore::default() }
}

fn store_of(schema: &str) -> Store {
    Store::Postgres(PostgresStore { schema: schema.to_owned(), ..PostgresStore::default() })
}

async fn steps(name: &str) -> Result<()> {
    let store = Store::Postgres(config(name));
    let sink = open(&store, place(name, 1), &urls())?;
    let sink = sink.as_ref();
    documents(sink, Text::WithoutZeroBytes).await?;
    speed("postgres", sink, loan).await?;
    readers(name, sink).await?;
    refused(sink).await?;
    refined(name).await?;
    may_not_write(name).await?;

    let proxy = Proxy::start(&urls().postgres_read_url).await?;
    let through = open(&store, place(name, 1), &urls_at(proxy.port))?;
    outages(through.as_ref(), sink, &proxy, false).await?;
    places(name, sink).await
}

/// What people see who read the database themselves.
async fn readers(name: &str, sink: &dyn Sink) -> Result<()> {
    let mut connection = connection().await?;
    let connection = &mut connection;
    let columns = format!(
        "SELECT column_name || ' ' || data_type FROM information_schema.columns WHERE table_schema = '{name}'
         AND table_name = '{name}' ORDER BY 1"
    );
    let expected = [
        "at timestamp with time zone",
        "grid jsonb",
        "n bigint",
        "name text",
        "open boolean",
        "products jsonb",
        "rate double precision",
    ];
    assert_eq!(texts(connection, &columns).await?, expected);
    let n = format!("SELECT (n + 1)::text FROM {name}.{name} WHERE products @> '[{{\"price\": 7}}]' AND at < now()");
    assert_eq!(texts(connection, &n).await?, ["8"]);
    let index = format!("SELECT indexdef FROM pg_indexes WHERE schemaname = '{name}' AND indexdef LIKE '%(n, at)%'");
    assert_eq!(texts(connection, &index).await?.len(), 1);

    let over = Write { expires: Some(Utc::now()), ..named("unseen-over", 1) };
    written(sink, &[named("unseen-gone", 1), over]).await?;
    written(sink, &[tombstone("unseen-gone", 2)]).await?;
    let unseen = format!("SELECT name FROM {name}.{name} WHERE name LIKE 'unseen%'");
    ensure!(texts(connection, &unseen).await?.is_empty(), "neither deleted nor expired");
    Ok(())
}

/// What the server refuses is refused alone, wherever it stands in a batch.
async fn refused(sink: &dyn Sink) -> Result<()> {
    let mut batch: Vec<Write> = (0..100).map(|i| named(&format!("refused-{i}"), 1)).collect();
    batch[0].fields = Some(object(json!({ "name": "a\u{0}" })).into());
    batch[41].fields = Some(Object::from([("n".into(), Value::from("seven"))]).into());
    batch[42].fields = Some(Object::from([("surprise".into(), Value::from(1))]).into());
    batch[43].key = "zero\u{0}".into();
    // Longer than an index takes, and no compression helps.
    batch[98].key = (0..4_000_u64).map(|i| format!("{:x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    batch[99].state = Some("a\u{0}".into());
    let outcomes = sink.write(&batch).await?;
    let rejected: Vec<usize> = (0..100).filter(|&i| matches!(outcomes[i], Outcome::Rejected(_))).collect();
    assert_eq!(rejected, [0, 41, 42, 43, 98, 99], "{outcomes:?}");
    ensure!(outcomes.iter().filter(|o| **o == Outcome::Written).count() == 94, "the others land: {outcomes:?}");
    assert_eq!(sink.load(&["zero\u{0}".to_owned(), "refused-1".to_owned()]).await?[0], None);
    ensure!(sink.children("zero\u{0}", None, 1).await?.is_empty());
    Ok(())
}

/// Other types than the inferred ones, by which documents come back as they were written.
async fn refined(name: &str) -> Result<()> {
    let columns = [
        ("n", "integer"),
        ("name", "varchar(40)"),
        ("rate", "numeric(10,2)"),
        ("at", "timestamptz(0)"),
        ("products", "jsonb[]"),
        ("grid", "bigint[][]"),
    ];
    let columns = columns.map(|(field, kind)| (field.to_owned(), kind.to_owned())).into();
    let store = Store::Postgres(PostgresStore { columns, ..config(name) });
    let sink = open(&store, place("refined", 1), &urls())?;
    let sink = sink.as_ref();
    sink.prepare().await?;
    let good = put("good", 1, json!({ "name": "short", "n": 7, "rate": 5.0, "at": "2026-11-21T05:00:00Z" }));
    let listed =
        put("listed", 1, json!({ "products": [{ "price": 7, "name": "a\"}{,b" }, {}], "grid": [[1, 2], [3, 4]] }));
    let wide = put("wide", 1, json!({ "name": "wide", "n": 1_i64 << 40 }));
    let long = put("long", 1, json!({ "name": "l".repeat(41) }));
    let outcomes = sink.write(&[wide, good.clone(), long]).await?;
    ensure!(matches!(&outcomes[..], [Outcome::Rejected(_), Outcome::Written, Outcome::Rejected(_)]), "{outcomes:?}");
    assert_eq!(one(sink, "good").await?, Some(good.stored()));
    written(sink, std::slice::from_ref(&listed)).await?;
    assert_eq!(one(sink, "listed").await?, Some(listed.stored()), "lists as they were");
    let price = format!(
        "SELECT (products[1]->'price')::text || ' ' || grid[2][1] FROM {name}.refined_g1 WHERE _key = 'listed'"
    );
    assert_eq!(texts(&mut connection().await?, &price).await?, ["7 3"]);

    let unknown = PostgresStore { indexes: vec![vec!["surprise".to_owned()]], ..config(name) };
    let refused = open(&Store::Postgres(unknown), place("refined", 2), &urls()).err();
    ensure!(refused.is_some_and(|e| e.to_string().contains("`surprise`")), "an index over no field");
    let long = Kind::object(Collection::empty().with_known("l".repeat(64), Kind::bytes()));
    let refused = open(&store_of(name), Place { document: long, ..place("refined", 3) }, &urls()).err();
    ensure!(refused.is_some_and(|e| e.to_string().contains("63 bytes")), "a name that the server would cut");
    Ok(())
}

/// A server that is read-only, or held up by somebody else's lock, is no document's fault.
async fn may_not_write(name: &str) -> Result<()> {
    let store = Store::Postgres(config(name));
    let with = |setting: &str| {
        let url = format!("{}?options=-c%20{setting}", urls().postgres_read_url);
        open(&store, place(name, 1), &StoreUrls { postgres_read_url: url, ..urls() })
    };
    unavailable(with("default_transaction_read_only=on")?.write(&[named("read-only", 1)]).await)?;

    let mut connection = connection().await?;
    sql(&mut connection, &format!("BEGIN; LOCK TABLE {name}.{name}_g1 IN EXCLUSIVE MODE")).await?;
    unavailable(with("lock_timeout=200")?.write(&[named("locked", 1)]).await)?;
    sql(&mut connection, "ROLLBACK").await?;
    written(with("lock_timeout=200")?.as_ref(), &[named("locked", 1)]).await
}

/// Whose the place is.
async fn places(name: &str, sink: &dyn Sink) -> Result<()> {
    let store = Store::Postgres(config(name));
    let mut connection = connection().await?;
    let connection = &mut connection;

    // The next generation takes the view over, also with other columns; two may prepare at once.
    let next = |generation| open(&store, place(name, generation), &urls());
    let (a, b) = (next(2)?, next(2)?);
    let (first, second) = tokio::join!(a.prepare(), b.prepare());
    first.and(second)?;
    sql(connection, &format!("DROP VIEW {name}.{name}; CREATE VIEW {name}.{name} AS SELECT 1 AS other")).await?;
    a.go_live().await?;
    written(a.as_ref(), &[named("of the second", 1)]).await?;
    assert_eq!(texts(connection, &format!("SELECT name FROM {name}.{name}")).await?, ["of the second at 1"]);
    ensure!(sink.load(&["of the second".to_owned()]).await? == [None], "each generation has its own documents");

    // A table that something else made is not ours, nor is a view's name that is taken.
    sql(connection, &format!("CREATE TABLE {name}.{name}_g3 (x int)")).await?;
    fenced(next(3)?.prepare().await);
    sql(connection, &format!("COMMENT ON TABLE {name}.{name}_g3 IS '{name}-g3'")).await?;
    let narrow = next(3)?.prepare().await;
    ensure!(matches!(&narrow, Err(SinkError::Broken { reason, .. }) if reason.contains("`_key`")), "{narrow:?}");
    sql(connection, &format!("DROP VIEW {name}.{name}; CREATE TABLE {name}.{name} (x int)")).await?;
    fenced(a.go_live().await);

    // A lost table isn't made again by a write.
    sql(connection, &format!("DROP TABLE {name}.{name}_g1 CASCADE")).await?;
    let lost = sink.write(&[named("lost", 1)]).await;
    ensure!(matches!(lost, Err(SinkError::Broken { .. })), "{lost:?}");
    Ok(())
}
