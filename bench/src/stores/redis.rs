//! Redis: commands made ready, sent as they are, a thousand ahead of their answers.

use super::{Fed, Stores, Whose};
use crate::oracle::Document;
use crate::peer;
use anyhow::{Context as _, Result, ensure};
use redis::aio::MultiplexedConnection;
use serde_json::Value as Json;
use std::collections::HashMap;
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Of the limit's documents.
const LIMIT_DATABASE: i64 = 41;

pub(super) async fn clear(stores: &Stores) -> Result<()> {
    redis::cmd("FLUSHALL").exec_async(&mut connect(stores, 0).await?).await?;
    Ok(())
}

async fn connect(stores: &Stores, database: i64) -> Result<MultiplexedConnection> {
    let client = redis::Client::open(format!("{}/{database}", stores.urls.redis_url))?;
    let settings = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(client.get_multiplexed_async_connection_with_config(&settings).await?)
}

pub(super) async fn feed(stores: &Stores, documents: impl Iterator<Item = (String, Document)>) -> Result<Fed> {
    let mut packed = redis::cmd("SELECT").arg(LIMIT_DATABASE).get_packed_command();
    let mut count = 0;
    for (key, document) in documents {
        let mut command = redis::cmd("HSET");
        command.arg(format!("order:{key}")).arg("_seq").arg(5);
        for (name, value) in &document {
            command.arg(name).arg(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        packed.extend(command.get_packed_command());
        count += 1;
    }
    let address = stores.urls.redis_url.trim_start_matches("redis://").to_owned();
    let (mut answers, mut commands) = TcpStream::connect(address).await?.into_split();
    let began = Instant::now();
    let sending = tokio::spawn(async move {
        let sent = commands.write_all(&packed).await;
        // Closing it would end the answers.
        sent.map(|()| commands)
    });
    // A line each: `+OK` of SELECT, `:9` of each HSET.
    let (mut lines, mut buffer) = (0, vec![0; 1 << 16]);
    while lines < count + 1 {
        let read = answers.read(&mut buffer).await?;
        ensure!(read > 0 && !buffer[..read].contains(&b'-'), "Redis refused a ready-made document");
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count();
    }
    let took = began.elapsed();
    sending.await??;
    redis::cmd("FLUSHDB").exec_async(&mut connect(stores, LIMIT_DATABASE).await?).await?;
    Ok(Fed::new(count, took, "HSETs packed beforehand, one connection, answers read meanwhile"))
}

pub(super) async fn found(stores: &Stores, whose: Whose) -> Result<HashMap<String, Document>> {
    let (database, prefix) = match whose {
        // Each has a pair of databases.
        Whose::Ours(number) => (2 * i64::try_from(number)?, "order:"),
        Whose::Peers => (peer::REDIS_DATABASE, peer::REDIS_PREFIX),
    };
    let mut connection = connect(stores, database).await?;
    let (mut found, mut cursor) = (HashMap::new(), 0_u64);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(2_000);
        let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
        for (key, document) in keys.iter().zip(hashes(&mut connection, &keys).await?) {
            found.insert(key.strip_prefix(prefix).context("a key of another prefix")?.to_owned(), document);
        }
        cursor = next;
        if cursor == 0 {
            return Ok(found);
        }
    }
}

pub(super) async fn some(stores: &Stores, keys: &[String]) -> Result<HashMap<String, Document>> {
    let mut connection = connect(stores, 0).await?;
    let mut found = HashMap::new();
    for keys in keys.chunks(2_000) {
        let prefixed: Vec<String> = keys.iter().map(|key| format!("order:{key}")).collect();
        let documents = hashes(&mut connection, &prefixed).await?;
        // Of a key that isn't there Redis gives a hash without fields.
        found.extend(keys.iter().cloned().zip(documents).filter(|(_, document)| !document.is_empty()));
    }
    Ok(found)
}

/// The visible fields of each.
async fn hashes(connection: &mut MultiplexedConnection, keys: &[String]) -> Result<Vec<Document>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = redis::pipe();
    for key in keys {
        pipeline.hgetall(key);
    }
    let hashes: Vec<HashMap<String, String>> = pipeline.query_async(connection).await?;
    let visible = |hash: HashMap<String, String>| {
        let fields = hash.into_iter().filter(|(name, _)| !name.starts_with('_'));
        fields.map(|(name, text)| (name, Json::String(text))).collect()
    };
    Ok(hashes.into_iter().map(visible).collect())
}
