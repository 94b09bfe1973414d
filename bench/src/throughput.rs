//! Events a second into each store, live and replaying, beside the limits and the peer.

use crate::data::Data;
use crate::machine::Machine;
use crate::oracle::{self, Document};
use crate::ours::{Run, Site};
use crate::peer;
use crate::report::{Part, Report};
use crate::stores::{Fed, Store, Stores, Whose};
use crate::topic::{self, Encoder};
use crate::usage::{Meter, Usage};
use anyhow::{Context as _, Result, ensure};
use projector::sink::StoreUrls;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Limits are the best of so many tries.
const TRIES: usize = 3;
/// Partitions of the topic.
pub(crate) const PARTITIONS: i32 = 4;

/// Where everything is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Where {
    #[arg(long, env = "KAFKA_BROKERS", hide = true)]
    pub(crate) kafka_brokers: String,
    #[arg(long, env = "SCHEMA_REGISTRY_URL", hide = true)]
    pub(crate) schema_registry_url: String,
    #[arg(long, env = "SCHEMAS_DIR", hide = true)]
    pub(crate) schemas_dir: PathBuf,
    #[arg(long, env = "PROJECTIONS_DIR", hide = true)]
    pub(crate) projections_dir: PathBuf,
    #[arg(long, env = "CONTROL_DATABASE_URL", hide = true)]
    pub(crate) control_database_url: String,
    #[command(flatten)]
    pub(crate) stores: StoreUrls,
}

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ThroughputArgs {
    /// Orders; each has five events
    #[arg(long, default_value_t = 60_000)]
    orders: usize,
    /// These stores only
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["redis", "search", "clickhouse", "postgres"])]
    stores: Vec<Store>,
    /// For the report: what else ran on the machine
    #[arg(long, default_value = "")]
    note: String,
    /// Print the figures, and leave the report as it is
    #[arg(long)]
    dry: bool,
    /// Keep flame graphs of the host in this folder (`perf` slows it down: the report is left as it is)
    #[arg(long, value_name = "FOLDER")]
    flames: Option<PathBuf>,
}

/// All that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Throughput {
    pub(crate) machine: Machine,
    pub(crate) orders: usize,
    pub(crate) events: usize,
    pub(crate) partitions: i32,
    /// Limit (a), in events a second.
    pub(crate) read_per_second: f64,
    /// The same in bytes of payload.
    pub(crate) read_bytes: u64,
    pub(crate) stores: Vec<OfStore>,
}

/// Of one store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OfStore {
    pub(crate) store: Store,
    pub(crate) projection: String,
    /// Limit (b).
    pub(crate) fed: Fed,
    pub(crate) peer: Option<Peer>,
    pub(crate) live: Ours,
    pub(crate) replay: Ours,
}

/// What the peer came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) done: peer::Done,
    pub(crate) usage: Usage,
    /// Documents that aren't right.
    pub(crate) wrong: usize,
}

/// What ours came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ours {
    pub(crate) run: Run,
    /// Documents or rows in the end.
    pub(crate) documents: usize,
    /// Those of them that aren't right.
    pub(crate) wrong: usize,
}

/// Measures, writes the report.
pub(crate) async fn run(at: &Where, args: &ThroughputArgs) -> Result<()> {
    let machine = Machine::look(&args.note)?;
    let stores = Stores::new(at.stores.clone())?;
    let data = Data::usual(args.orders);
    let events = data.events();
    eprintln!("filling {} with {events} events of {} orders", topic::TOPIC, args.orders);
    fill(at, data, PARTITIONS).await?;
    let mut limit = (f64::MIN, 0);
    for _ in 0..TRIES {
        let brokers = at.kafka_brokers.clone();
        let read = tokio::task::spawn_blocking(move || topic::read_and_drop(&brokers, PARTITIONS, events)).await??;
        let rate = events as f64 / read.0.as_secs_f64();
        eprintln!("(a) read and dropped: {rate:.0} events/s");
        limit = if rate > limit.0 { (rate, read.1) } else { limit };
    }
    let mut all = Throughput {
        machine,
        orders: args.orders,
        events,
        partitions: PARTITIONS,
        read_per_second: limit.0,
        read_bytes: limit.1,
        stores: Vec::new(),
    };
    for store in &args.stores {
        all.stores.push(measure(at, &stores, *store, data, args.flames.as_deref()).await?);
    }
    let wrong: usize = all.stores.iter().map(|of| of.live.wrong + of.replay.wrong).sum();
    Report::take(Part::Throughput(all), args.dry || args.flames.is_some())?;
    ensure!(wrong == 0, "{wrong} documents of ours aren't as they should be");
    Ok(())
}

/// Makes the topic anew and fills it with all events.
pub(crate) async fn fill(at: &Where, data: Data, partitions: i32) -> Result<()> {
    fill_with(at, data, data.timeline().into_iter(), partitions).await
}

/// Makes the topic anew and fills it with these events.
pub(crate) async fn fill_with(
    at: &Where,
    data: Data,
    events: impl Iterator<Item = (usize, usize)> + Send + 'static,
    partitions: i32,
) -> Result<()> {
    let encoder = Encoder::new(&at.schemas_dir, &at.schema_registry_url).await?;
    topic::make(&at.kafka_brokers, partitions).await?;
    let brokers = at.kafka_brokers.clone();
    tokio::task::spawn_blocking(move || topic::fill(&brokers, data, events, &encoder)).await??;
    Ok(())
}

async fn measure(at: &Where, stores: &Stores, store: Store, data: Data, flames: Option<&Path>) -> Result<OfStore> {
    let (name, events) = (store.projection(), data.events());
    let expected = oracle::expected(store, data);
    stores.clear(store).await?;
    let mut best: Option<Fed> = None;
    for _ in 0..TRIES {
        let fed = stores.feed(store, data).await?;
        eprintln!("(b) {store:?} fed: {:.0} documents/s", fed.per_second());
        best = best.into_iter().chain([fed]).min_by(|a, b| a.seconds.total_cmp(&b.seconds));
    }
    let peer = match store.peer() {
        Some(target) => Some(run_peer(stores, store, target, events, &expected).await?),
        None => None,
    };
    let mut site =
        Site::new(&at.control_database_url, &at.projections_dir.join(format!("{name}.yaml")), ADMIN_PORT).await?;
    site.flames = flames.map(Path::to_owned);
    let live = site.live(&[name], store, events, 1).await?;
    let live = checked(stores, store, live, "live", &expected).await?;
    let replay = site.replay(&[name], store, events).await?;
    let replay = checked(stores, store, replay, "replayed", &expected).await?;
    site.close().await?;
    // What it would go on merging is no load for the next one.
    stores.clear(store).await?;
    let fed = best.context("nothing was fed")?;
    Ok(OfStore { store, projection: name.to_owned(), fed, peer, live, replay })
}

/// Of the first host.
pub(crate) const ADMIN_PORT: u16 = 28_020;

/// Compares all that the store holds with what it must hold.
pub(crate) async fn checked(
    stores: &Stores,
    store: Store,
    run: Run,
    what: &str,
    expected: &HashMap<String, Document>,
) -> Result<Ours> {
    let found = stores.found(store, Whose::Ours(0)).await?;
    let documents = found.len();
    let wrong = oracle::differences(expected, found);
    eprintln!("{store:?} {what}: {:.0} events/s, {documents} documents, {} wrong", run.events_per_second, wrong.count);
    if let Some(example) = &wrong.example {
        eprintln!("    {example}");
    }
    Ok(Ours { run, documents, wrong: wrong.count })
}

/// (c), in a process of its own.
async fn run_peer(
    stores: &Stores,
    store: Store,
    target: peer::Target,
    events: usize,
    expected: &HashMap<String, Document>,
) -> Result<Peer> {
    stores.prepare_peer(target).await?;
    let meter = Meter::start(store.component());
    let name = format!("{target:?}").to_lowercase();
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .args(["peer", &name, "--events", &events.to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let usage = meter.read();
    ensure!(output.status.success(), "the peer failed: {}", String::from_utf8_lossy(&output.stderr));
    let done: peer::Done = serde_json::from_slice(&output.stdout).context("the peer's answer")?;
    let wrong = oracle::differences(expected, stores.found(store, Whose::Peers).await?);
    let rate = done.events as f64 / done.seconds;
    eprintln!("(c) {store:?} by the peer: {rate:.0} events/s, {} wrong", wrong.count);
    if let Some(example) = &wrong.example {
        eprintln!("    {example}");
    }
    Ok(Peer { done, usage, wrong: wrong.count })
}
