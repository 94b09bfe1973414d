//! Waiting until a component answers, and noticing when it dies instead.

use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process;
use crate::settings::Instance;

const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// Probes until `ready` says yes; an error names the log when the process dies or takes too long.
pub(crate) async fn wait(
    instance: &Instance,
    name: &str,
    limit: Duration,
    ready: impl AsyncFn() -> bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    let log = instance.log(name);
    loop {
        // Liveness first: a foreign process on the port must not pass for ours.
        if process::alive(instance, name).is_none() {
            bail!("{name} died; its log, {}, ends:\n{}", log.display(), process::tail(&log, 20));
        }
        if matches!(tokio::time::timeout(PROBE_LIMIT, ready()).await, Ok(true)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let seconds = limit.as_secs();
            bail!(
                "{name} does not answer after {seconds} s; its log, {}, ends:\n{}",
                log.display(),
                process::tail(&log, 20)
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether a URL answers with 2xx.
pub(crate) async fn http_ok(url: &str) -> bool {
    status(url).await.is_some_and(|status| status.is_success())
}

/// The status a URL answers with, if it answers.
pub(crate) async fn status(url: &str) -> Option<reqwest::StatusCode> {
    let client = reqwest::Client::builder().no_proxy().timeout(PROBE_LIMIT).build().ok()?;
    client.get(url).send().await.ok().map(|answer| answer.status())
}

/// Whether a port accepts connections.
pub(crate) async fn tcp(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).await.is_ok()
}

/// Whether Redis answers PING: while it loads its data it accepts connections but refuses commands.
pub(crate) async fn redis(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(&answer == b"+PONG\r\n")
    };
    ask.await.unwrap_or(false)
}
