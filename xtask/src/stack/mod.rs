//! The real components, natively: what each needs to run, in which order they start and stop.

mod download;
mod jvm;
mod ports;
mod postgres;
pub(crate) mod ready;
mod stores;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;

use crate::process;
use crate::progress::{Board, Row};
use crate::settings::{Instance, Port};

#[cfg(test)]
pub(crate) use jvm::connector_variables;
pub(crate) use ports::check as check_ports;
#[cfg(test)]
pub(crate) use postgres::settings as postgres_settings;

/// A component: its name (of its pid file, log and status line) and the ports it listens on, the main one first.
pub(crate) struct Component {
    pub(crate) name: &'static str,
    pub(crate) ports: &'static [Port],
}

/// All components, in the order in which `status` prints them.
pub(crate) const COMPONENTS: [Component; 7] = [
    Component { name: "postgres", ports: &[Port::Postgres] },
    Component { name: "kafka", ports: &[Port::Kafka, Port::KafkaController] },
    Component { name: "registry", ports: &[Port::Registry, Port::RegistryManagement] },
    Component { name: "connect", ports: &[Port::Connect] },
    Component { name: "redis", ports: &[Port::Redis] },
    Component { name: "search", ports: &[Port::Search, Port::SearchTransport] },
    Component { name: "clickhouse", ports: &[Port::Clickhouse, Port::ClickhouseTcp] },
];

/// What only the tests need: an Elasticsearch beside OpenSearch, since the sink and the queries work on both.
const OF_TESTS: [Component; 1] =
    [Component { name: "elasticsearch7", ports: &[Port::Elasticsearch7, Port::Elasticsearch7Transport] }];

/// The components of an instance.
pub(crate) fn components(instance: &Instance) -> Vec<&'static Component> {
    COMPONENTS.iter().chain(OF_TESTS.iter().filter(|_| instance.is_for_tests())).collect()
}

/// A program to start, with all it needs.
struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
    env: BTreeMap<String, String>,
}

/// How long a component may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Starts every component that does not run yet, and waits until all answer.
pub(crate) async fn up(instance: &Instance) -> anyhow::Result<()> {
    for folder in ["log", "pid", "conf"] {
        process::create_dir(&instance.dir().join(folder))?;
    }
    // Two at a time would start everything twice.
    let _lock = process::lock(instance, "start")?;
    let components = components(instance);
    ports::check(instance, components.iter().copied())?;
    eprintln!("components of instance `{}`, logs in {}", instance.name(), instance.dir().join("log").display());
    let board = Board::new();
    download::all(instance, &board).await?;

    let mut rows: BTreeMap<&str, Row> = components.iter().map(|c| (c.name, board.row(c.name))).collect();
    // The registry keeps its schemas in Postgres, Connect its state in Kafka; all else starts at once.
    let relational = async |mut first: Row, mut second: Row| {
        start(instance, "postgres", &mut first).await?;
        start(instance, "registry", &mut second).await
    };
    let log = async |mut first: Row, mut second: Row| {
        start(instance, "kafka", &mut first).await?;
        start(instance, "connect", &mut second).await
    };
    let single = async |name: &'static str, mut row: Row| start(instance, name, &mut row).await;
    let of_tests = OF_TESTS.iter().filter_map(|c| Some((c.name, rows.remove(c.name)?))).collect::<Vec<_>>();
    let mut row = |name: &str| rows.remove(name).context("a component without a line");
    let results = tokio::join!(
        relational(row("postgres")?, row("registry")?),
        log(row("kafka")?, row("connect")?),
        single("redis", row("redis")?),
        single("search", row("search")?),
        single("clickhouse", row("clickhouse")?),
        futures::future::try_join_all(of_tests.into_iter().map(|(name, row)| single(name, row))),
    );
    let failures: Vec<String> = [results.0, results.1, results.2, results.3, results.4, results.5.map(|_| ())]
        .into_iter()
        .filter_map(Result::err)
        .map(|error| format!("{error:#}"))
        .collect();
    if !failures.is_empty() {
        bail!(
            "{}\nwhat did start keeps running: mend it and run `./dev up` again, or `./dev down`",
            failures.join("\n\n")
        );
    }
    Ok(())
}

async fn start(instance: &Instance, name: &'static str, row: &mut Row) -> anyhow::Result<()> {
    row.begin("starting");
    match launch(instance, name, row).await {
        Ok(pid) => {
            let component = components(instance).into_iter().find(|c| c.name == name).context("unknown component")?;
            row.done(&format!("ready, port {}, pid {pid}", instance.port(component.ports[0])));
            Ok(())
        }
        Err(error) => {
            row.failed(&format!("failed, see {}", instance.log(name).display()));
            Err(error.context(format!("{name} did not start")))
        }
    }
}

async fn launch(instance: &Instance, name: &str, row: &Row) -> anyhow::Result<u32> {
    let pid = match process::alive(instance, name) {
        Some(pid) => pid,
        None => {
            let launch = prepare(instance, name, row).await?;
            process::spawn(instance, name, &launch.program, &launch.arguments, &launch.env)?
        }
    };
    ready::wait(instance, name, READY_WITHIN, async || probe(instance, name).await).await?;
    if name == "postgres" {
        postgres::create_databases(instance).await?;
    }
    if name == "clickhouse" {
        stores::create_clickhouse_database(instance).await?;
    }
    Ok(pid)
}

async fn prepare(instance: &Instance, name: &str, row: &Row) -> anyhow::Result<Launch> {
    match name {
        "postgres" => postgres::prepare(instance, row).await,
        "kafka" => jvm::kafka(instance, row).await,
        "connect" => jvm::connect(instance),
        "registry" => jvm::registry(instance),
        "search" => stores::search(instance),
        "elasticsearch7" => stores::elasticsearch7(instance),
        "redis" => stores::redis(instance),
        "clickhouse" => stores::clickhouse(instance),
        other => bail!("unknown component {other}"),
    }
}

const SEARCH_IS_READY: &str = "/_cluster/health?wait_for_status=yellow&timeout=1s";

/// Whether a component answers as its clients need it to.
async fn probe(instance: &Instance, name: &str) -> bool {
    let http = async |port: Port, path: &str| ready::http_ok(&format!("{}{path}", instance.http(port))).await;
    match name {
        "postgres" => postgres::accepts(instance).await,
        "kafka" => ready::tcp(instance.port(Port::Kafka)).await,
        "registry" => http(Port::Registry, "/apis/ccompat/v7/subjects").await,
        "connect" => http(Port::Connect, "/connectors").await,
        "redis" => ready::redis(instance.port(Port::Redis)).await,
        "search" => http(Port::Search, SEARCH_IS_READY).await,
        "elasticsearch7" => http(Port::Elasticsearch7, SEARCH_IS_READY).await,
        "clickhouse" => http(Port::Clickhouse, "/ping").await,
        _ => false,
    }
}

/// Stops our services, then the components: each only after what depends on it.
pub(crate) async fn down(instance: &Instance) -> anyhow::Result<()> {
    crate::services::down(instance).await?;
    let waves: [&[&'static str]; 3] =
        [&["connect"], &["registry", "kafka", "search", "elasticsearch7", "clickhouse", "redis"], &["postgres"]];
    let board = Board::new();
    for wave in waves {
        let stops = wave.iter().map(|name| async {
            // A fast shutdown, as pg_ctl does it: a smart one would wait for its clients.
            let signal = if *name == "postgres" { Signal::INT } else { Signal::TERM };
            let mut row = process::alive(instance, name).map(|_| board.row(name));
            if let Some(row) = &mut row {
                row.begin("stopping");
            }
            process::stop(instance, name, signal, Duration::from_secs(20)).await?;
            if let Some(row) = row {
                row.done("stopped");
            }
            anyhow::Ok(())
        });
        futures::future::try_join_all(stops).await?;
    }
    Ok(())
}

/// Stops everything and deletes the instance's data; downloads stay.
pub(crate) async fn reset(instance: &Instance) -> anyhow::Result<()> {
    down(instance).await?;
    for path in [instance.dir(), postgres::fallback_dir(instance), stores::memory_dir(instance)] {
        match fs::remove_dir_all(&path) {
            Ok(()) => eprintln!("deleted {}", path.display()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("deleting {}", path.display())),
        }
    }
    Ok(())
}
