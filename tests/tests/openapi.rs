//! Each service against its own OpenAPI document: no made-up request is answered with a server error, or otherwise than described.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use anyhow::{Result, ensure};
use tests::{schemathesis, tools, var, write_service::WriteService};

const REQUESTS_EACH: u32 = 25;
const SEED: u32 = 6;

async fn is_as_described(url: &str) -> Result<()> {
    let found = schemathesis::run(&format!("{url}/openapi.json"), REQUESTS_EACH, SEED).await?;
    ensure!(found.clean, "{url}: {}", found.report);
    Ok(())
}

/// Of whatever the other tests wrote.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn queries_are_answered_as_described() -> Result<()> {
    tools::services_up().await?;
    is_as_described(&var("QUERY_URL")?).await
}

/// On a database of its own: what is made up would show in the read models of all other tests.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn commands_are_answered_as_described() -> Result<()> {
    let service = WriteService::start().await?;
    is_as_described(&service.url).await?;
    // and it would be seen: without its database the service answers 503, which is described and is a server error all the same
    service.drop_database().await?;
    let found = schemathesis::run(&format!("{}/openapi.json", service.url), 1, SEED).await?;
    ensure!(!found.clean && found.report.contains("Server error"), "503 wasn't noticed: {}", found.report);
    service.stop().await
}
