//! On a Redis of the test's own, which is full, or may not write.

use super::fixtures::{loan, one, place, unavailable, urls_at, written};
use anyhow::{Context as _, Result, bail, ensure};
use projector::apply::{Outcome, Partition, Progress, Write};
use projector::projection::{RedisStore, Store};
use projector::sink::open;
use redis::aio::MultiplexedConnection;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Stopped when it is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let text = port.to_string();
        let options = ["--bind", "127.0.0.1", "--port", &text, "--save", "", "--appendonly", "no", "--dir", "/tmp"];
        let child = Command::new("redis-server").args(options).stdout(Stdio::null()).spawn().context("redis-server")?;
        Ok(Self { child, port })
    }

    async fn connect(&self) -> Result<MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        for _ in 0..100 {
            if let Ok(connection) = client.get_multiplexed_async_connection().await {
                return Ok(connection);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("redis-server doesn't listen on port {}", self.port)
    }
}

async fn set(connection: &mut MultiplexedConnection, name: &str, value: u64) -> Result<()> {
    Ok(redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(connection).await?)
}

async fn used_memory(connection: &mut MultiplexedConnection) -> Result<u64> {
    let text: String = redis::cmd("INFO").arg("memory").query_async(connection).await?;
    let line = text.lines().find_map(|line| line.strip_prefix("used_memory:")).context("no used_memory")?;
    Ok(line.trim().parse()?)
}

#[tokio::test]
#[ignore = "needs redis-server: ./dev test"]
async fn a_redis_that_is_full_or_may_not_write_is_unavailable() -> Result<()> {
    let server = Server::start()?;
    let mut connection = server.connect().await?;
    let store = Store::Redis(RedisStore { prefix: "full:".into(), database: 0 });
    let sink = open(&store, place("full", 1), &urls_at(server.port))?;
    sink.prepare().await?;
    written(sink.as_ref(), &[loan(0)]).await?;

    // Full in the middle of a batch: part of it landed, and no document is to blame.
    let batch: Vec<Write> = (1..2_000).map(loan).collect();
    let limit = used_memory(&mut connection).await? + (1 << 20);
    set(&mut connection, "maxmemory", limit).await?;
    unavailable(sink.write(&batch).await)?;
    unavailable(sink.write(&batch[1_900..]).await)?;
    let child = Write { parents: vec!["p".into()], ..loan(5_000) };
    unavailable(sink.write(&[child]).await)?;
    let progress = [(Partition { topic: "t".into(), number: 0 }, Progress::default())];
    unavailable(sink.save_progress(&progress).await)?;
    let used = used_memory(&mut connection).await?;
    ensure!(used < limit + (1 << 20), "{used} bytes are used of {limit}: writes go on above the limit");
    ensure!(one(sink.as_ref(), "speed-0").await?.is_some(), "what is there can be read");

    set(&mut connection, "maxmemory", 0).await?;
    let outcomes = sink.write(&batch).await?;
    ensure!(outcomes.iter().all(|o| matches!(o, Outcome::Written | Outcome::Stale)), "{outcomes:?}");
    ensure!(outcomes.contains(&Outcome::Stale) && outcomes.contains(&Outcome::Written), "all or nothing had landed");
    assert_eq!(sink.count().await?, 2_000);

    // Too few replicas.
    set(&mut connection, "min-replicas-to-write", 1).await?;
    unavailable(sink.write(&[loan(6_000)]).await)?;
    unavailable(sink.save_progress(&progress).await)?;
    set(&mut connection, "min-replicas-to-write", 0).await?;
    written(sink.as_ref(), &[loan(6_000)]).await
}
