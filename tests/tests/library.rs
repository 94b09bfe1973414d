//! A domain that nobody thought of when the projector was written: a library. Its schemas and its read models are files in
//! tests/library; nothing else is of it. Events go in, four stores answer.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tests::{binary, eventually, outbox::Outbox, own_database, topics, var};
use tokio::process::{Child, Command};

const SOON: Duration = Duration::from_secs(60);

fn library(folder: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/library")).join(folder)
}

/// The projector with the library's files and a control store of its own.
struct Projector {
    control: String,
    admin: String,
    queries: String,
}

impl Projector {
    async fn new() -> Result<Self> {
        let control = own_database("library").await?;
        let free = || Ok::<_, anyhow::Error>(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string());
        Ok(Self { control, admin: free()?, queries: free()? })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("projector"));
        command
            .args(arguments)
            .env("CONTROL_DATABASE_URL", &self.control)
            .env("SCHEMAS_DIR", library("schemas"))
            .env("PROJECTIONS_DIR", library("projections"))
            .env("PROJECTOR_ADMIN_LISTEN", &self.admin)
            .env("QUERY_LISTEN", &self.queries)
            .env("PROJECTOR_INSTANCE_ID", "library")
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        Ok(text(&output.stdout))
    }

    fn start(&self, verb: &str) -> Result<Child> {
        Ok(self.command(&[verb]).stdout(Stdio::null()).spawn()?)
    }

    async fn ask(&self, path: &str) -> Result<Value> {
        let answer = reqwest::get(format!("http://{}{path}", self.queries)).await?;
        ensure!(answer.status().is_success(), "{path}: {}", answer.text().await?);
        Ok(answer.json().await?)
    }

    /// Waits until a query answers what is expected.
    async fn answers(&self, path: &str, expected: Value) -> Result<()> {
        eventually(&format!("{path} answers {expected}"), SOON, || async {
            let found = self.ask(path).await?;
            ensure!(found == expected, "it answers {found}");
            Ok(Some(()))
        })
        .await
    }
}

/// What `lending` looks branches up in: a table that no projector has made.
async fn branches() -> Result<()> {
    let mut connection = PgConnection::connect(&var("READ_DATABASE_URL")?).await?;
    let sql = "create schema if not exists library;
        create table if not exists library.branches (branch_id text primary key, name text not null);
        insert into library.branches values ('north', 'North') on conflict do nothing";
    sqlx::raw_sql(sql).execute(&mut connection).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_library_runs_on_files_alone() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for topic in ["events.book", "events.member", "events.loan"] {
        topics::make(topic).await?;
    }
    branches().await?;
    let mut outbox = Outbox::open(&library("schemas")).await?;
    let projector = Projector::new().await?;
    projector.run(&["check"]).await?;
    projector.run(&["apply"]).await?;
    let (mut run, mut serve) = (projector.start("run")?, projector.start("serve")?);

    // The loan first: it has to wait for its book, and for everybody's name. March 29, 00:30 in Berlin.
    let opened = 1_774_740_600_000_000_i64;
    let loan = |id: &str, branch: Value| json!({"loan_id": id, "member_id": "m-1", "book_id": "b-1", "branch_id": branch, "opened_at": opened, "due": 20_560});
    outbox.send("LoanOpened", 1, "l-1", loan("l-1", json!("north"))).await?;
    let nameless =
        json!({"member": null, "title": null, "due": "2026-04-17", "state": "open", "renewals": 0, "lendable": true});
    projector.answers("/library/loans/l-1", nameless).await?;
    let book = json!({"book_id": "b-1", "title": "Emna", "authors": ["Jane Austen"], "genre": "novel", "pages": 474});
    outbox.send("BookAcquired", 1, "b-1", book).await?;
    outbox.send("MemberJoined", 1, "m-1", json!({"member_id": "m-1", "name": "Ada King"})).await?;
    outbox.send("LoanOpened", 1, "l-2", loan("l-2", Value::Null)).await?;
    outbox.send("MemberRenamed", 1, "m-1", json!({"member_id": "m-1", "name": "Ada Lovelace"})).await?;
    outbox.send("BookRetitled", 1, "b-1", json!({"book_id": "b-1", "title": "Emma"})).await?;
    outbox.send("LoanRenewed", 1, "l-1", json!({"loan_id": "l-1", "due": 20_567})).await?;
    let returned = json!({"loan_id": "l-2", "member_id": "m-1", "returned_at": opened + 3_600_000_000_i64 * 24 * 5, "fine_cents": 150});
    outbox.send("LoanReturned", 1, "l-2", returned).await?;

    // Redis: both loans show the names of now.
    let desk = |due: &str, state: &str, renewals: i64| json!({"member": "Ada Lovelace", "title": "Emma", "due": due, "state": state, "renewals": renewals, "lendable": true});
    projector.answers("/library/loans/l-1", desk("2026-04-24", "open", 1)).await?;
    projector.answers("/library/loans/l-2", desk("2026-04-17", "returned", 0)).await?;
    // Search.
    projector.answers("/library/books?q=austen%20emma", json!({"total": 1, "titles": ["Emma"]})).await?;
    // ClickHouse: the genre was looked up on the shelf (search), the level at the members (Redis), the branch in a table; the day is Berlin's.
    let rows = json!({"rows": [
        {"genre": "novel", "branch": "North", "level": "reader", "loans": 1},
        {"genre": "novel", "branch": "elsewhere", "level": "reader", "loans": 1}]});
    projector.answers("/library/lending?from=2026-03-29", rows).await?;
    projector.answers("/library/lending?from=2026-03-30", json!({"rows": []})).await?;
    // Postgres.
    let months = json!({"months": [
        {"month": "2026-04", "loans": 0, "fines_cents": 150}, {"month": "2026-03", "loans": 2, "fines_cents": 0}]});
    projector.answers("/library/members/m-1/reading", months).await?;

    // A direct reader sees the same, under the key that the file names.
    let redis = redis::Client::open(format!("{}/14", var("REDIS_URL")?))?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    let title: String = redis::cmd("HGET").arg("loan_desk:l-1").arg("title").query_async(&mut redis).await?;
    assert_eq!(title, "Emma");
    let letters = projector.run(&["dlq", "list"]).await?;
    ensure!(!letters.contains("l-1"), "{letters}");

    run.kill().await?;
    serve.kill().await?;
    Ok(())
}
