//! What a client costs command-api by being connected.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use tests::{
    ALONE,
    processes::{Process, command_api_ready},
    tools, var,
};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 500;
/// 20 KiB each; it was 900 when every connection had the routes made anew for it.
const GROWS_MAX_BYTES: u64 = 10 * 1024 * 1024;

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn connections_that_ask_nothing_cost_next_to_nothing() -> Result<()> {
    let _alone = ALONE.lock().await;
    tools::services_up().await?;
    let service = Process::running("command-api")?;
    // what it needed before would hide what it needs now
    service.terminate().await?;
    service.start(&[])?;
    command_api_ready().await?;
    let before = service.peak_memory_bytes()?;
    let address = var("COMMAND_API_LISTEN")?;
    let connections = try_join_all((0..CONNECTIONS).map(|_| TcpStream::connect(&address))).await?;
    // answered on a later one, so all those before were accepted
    command_api_ready().await?;
    let grew = service.peak_memory_bytes()?.saturating_sub(before);
    drop(connections);
    ensure!(grew < GROWS_MAX_BYTES, "{CONNECTIONS} connections took {} KiB", grew / 1024);
    Ok(())
}
