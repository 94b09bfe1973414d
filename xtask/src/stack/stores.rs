//! The read stores: Redis, the search engine (OpenSearch, which speaks Elasticsearch's API) and ClickHouse.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use super::{Launch, download};
use crate::process;
use crate::settings::{Instance, Port};

/// Redis with an append-only file, so that a restart keeps its documents.
pub(super) fn redis(instance: &Instance) -> anyhow::Result<Launch> {
    let data = instance.dir().join("redis");
    process::create_dir(&data)?;
    let port = instance.port(Port::Redis).to_string();
    let options =
        ["--bind", "127.0.0.1", "--port", &port, "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""];
    let mut arguments: Vec<String> = options.map(str::to_owned).into();
    arguments.extend(["--databases".to_owned(), "64".to_owned(), "--dir".to_owned(), data.display().to_string()]);
    Ok(Launch { program: PathBuf::from("redis-server"), arguments, env: BTreeMap::new() })
}

/// A single OpenSearch node out of a class path.
pub(super) async fn search(instance: &Instance) -> anyhow::Result<Launch> {
    let data = instance.dir().join("search");
    process::create_dir(&data)?;
    let jars = download::jars(instance)?;
    let classpath = format!("{}:{}/search/*", download::search_classes(instance)?.display(), jars.display());
    let options =
        ["-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "--enable-native-access=ALL-UNNAMED"];
    let mut arguments: Vec<String> = options.map(str::to_owned).into();
    arguments.extend(["-Dlog4j2.disable.jmx=true".to_owned(), "-cp".to_owned(), classpath, "OsNode".to_owned()]);
    arguments.push(data.display().to_string());
    arguments.extend([Port::Search, Port::SearchTransport].map(|port| instance.port(port).to_string()));
    Ok(Launch { program: download::java_home()?.join("bin/java"), arguments, env: BTreeMap::new() })
}

/// ClickHouse's server out of libchdb.so.
pub(super) fn clickhouse(instance: &Instance) -> anyhow::Result<Launch> {
    let data = instance.dir().join("clickhouse");
    process::create_dir(&data)?;
    let arguments = vec![
        instance.root().join("compose/native/clickhouse/chserver.py").display().to_string(),
        download::chdb_library(instance)?.display().to_string(),
        data.display().to_string(),
        instance.port(Port::Clickhouse).to_string(),
        instance.port(Port::ClickhouseTcp).to_string(),
    ];
    Ok(Launch { program: PathBuf::from("python3"), arguments, env: BTreeMap::new() })
}

/// A database of its own: `default` does not outlive a restart of the library.
pub(super) async fn create_clickhouse_database(instance: &Instance) -> anyhow::Result<()> {
    let database = instance.settings().get("CLICKHOUSE_DATABASE")?;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let url = format!("{}/", instance.http(Port::Clickhouse));
    let sql = format!("CREATE DATABASE IF NOT EXISTS {database}");
    let answer = client.post(url).body(sql).send().await.context("asking ClickHouse")?;
    if !answer.status().is_success() {
        bail!("creating ClickHouse database {database}: {}", answer.text().await.unwrap_or_default());
    }
    Ok(())
}
