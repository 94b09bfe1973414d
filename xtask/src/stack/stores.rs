//! The read stores: Redis, the search engine (OpenSearch, which speaks Elasticsearch's API) and ClickHouse.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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
pub(super) fn search(instance: &Instance) -> anyhow::Result<Launch> {
    let jars = download::jars(instance)?;
    let classpath = format!("{}:{}/search/*", jars.join("classes").display(), jars.display());
    node(instance, "search", "512m", classpath, "OsNode", [Port::Search, Port::SearchTransport])
}

/// A single Elasticsearch 7.17 node out of a class path.
pub(super) fn elasticsearch7(instance: &Instance) -> anyhow::Result<Launch> {
    let jars = download::elasticsearch7(instance)?;
    let classpath = format!("{}:{}/lib/*", jars.join("classes").display(), jars.display());
    let ports = [Port::Elasticsearch7, Port::Elasticsearch7Transport];
    node(instance, "elasticsearch7", "256m", classpath, "EsNode", ports)
}

/// Where an instance keeps what it has in memory.
pub(super) fn memory_dir(instance: &Instance) -> PathBuf {
    instance.dir_below(MEMORY)
}

/// Where Linux has a file system in memory.
const MEMORY: &str = "/dev/shm";
/// What has to be free there.
const MEMORY_FREE: u64 = 4 << 30;

/// Makes `data` a link to `memory`, if there is room. Lucene makes and deletes dozens of files at each refresh, and ext4 without a
/// journal, as virtual machines have it, looks for each new one through all inodes that were deleted in the minutes before
/// (`recently_deleted` in the kernel's fs/ext4/ialloc.c): 14 % of two cores, and half of the time a refresh takes. Only where
/// nobody wants the index after the machine's next start. What is on disk already stays there.
fn keep_in_memory(data: &Path, memory: &Path) -> anyhow::Result<()> {
    let is_linked = data.is_symlink();
    let is_roomy = || rustix::fs::statvfs(MEMORY).is_ok_and(|of| of.f_bavail * of.f_frsize >= MEMORY_FREE);
    if !is_linked && (data.exists() || !is_roomy()) {
        return Ok(());
    }
    process::create_dir(memory)?;
    if !is_linked {
        std::os::unix::fs::symlink(memory, data).with_context(|| format!("linking {}", data.display()))?;
    }
    Ok(())
}

fn node(
    instance: &Instance,
    name: &str,
    heap: &str,
    classpath: String,
    class: &str,
    ports: [Port; 2],
) -> anyhow::Result<Launch> {
    let home = instance.dir().join(name);
    process::create_dir(&home)?;
    if instance.is_for_tests() {
        keep_in_memory(&home.join("data"), &memory_dir(instance).join(name))?;
    }
    let mut arguments = vec![format!("-Xms{heap}"), format!("-Xmx{heap}")];
    let options = ["-XX:+UseSerialGC", "--enable-native-access=ALL-UNNAMED", "-Dlog4j2.disable.jmx=true"];
    arguments.extend(options.map(str::to_owned));
    if instance.is_for_tests() && !instance.is_released() {
        // Tests are over before the second compiler has paid for itself.
        arguments.push("-XX:TieredStopAtLevel=1".to_owned());
    }
    arguments.extend(["-cp".to_owned(), classpath, class.to_owned()]);
    arguments.push(home.display().to_string());
    arguments.extend(ports.map(|port| instance.port(port).to_string()));
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
