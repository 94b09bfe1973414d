//! Acceptance tests on the running stack, and the few helpers that they share.
//!
//! `./dev test` starts a fresh instance and sets the environment; every test here is ignored without it. The tests
//! share one set of services, so each makes customers, products and orders of its own, and those that disturb the
//! services (kill, hold back, plant faults) sit in test binaries of their own, behind [`ALONE`].

pub mod browser;
pub mod copies;
pub mod garden;
pub mod hook;
pub mod hosts;
pub mod letters;
pub mod outbox;
pub mod processes;
pub mod schemathesis;
pub mod shop;
pub mod stores;
pub mod tools;
pub mod topics;
pub mod write_service;
pub mod write_side;

use std::{
    future::Future,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

/// Held by tests that must not meet another one of their binary.
pub static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A variable that `./dev test` sets.
///
/// # Errors
/// When it isn't set: the stack isn't there.
pub fn var(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run through ./dev test"))
}

/// Makes a database of a test's own beside the instance's control store; gives its address, which ends with its name. Both begin with
/// `what`, so that it is known whose it was.
///
/// # Errors
/// When Postgres refuses.
pub async fn own_database(what: &str) -> Result<String> {
    let server = var("CONTROL_DATABASE_URL")?;
    let name = format!("{what}_{}", &Uuid::new_v4().simple().to_string()[..8]);
    let mut admin = PgConnection::connect(&server).await?;
    sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await?;
    Ok(format!("{}/{name}", server.rsplit_once('/').context("a URL with a database")?.0))
}

/// One of the project's binaries, as `cargo build` leaves it.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("debug").join(name)
}

/// Asks again until the answer is a `Some`, at most for `limit`.
///
/// # Errors
/// The last error, or that the limit passed.
pub async fn eventually<T, F, A>(what: &str, limit: Duration, mut ask: A) -> Result<T>
where
    A: FnMut() -> F,
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        // an answer that doesn't come must not outlast the limit either
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        match tokio::time::timeout(left, ask()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) if Instant::now() >= deadline => anyhow::bail!("{what}: not within {limit:?}"),
            Ok(Err(error)) if Instant::now() >= deadline => {
                return Err(error.context(format!("{what}: not within {limit:?}")));
            }
            Err(_) => anyhow::bail!("{what}: no answer within {limit:?}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
