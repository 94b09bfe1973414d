//! What it costs to have more: partitions, hosts, read models on a host, lines in a document, events on one key.

use crate::data::Data;
use crate::machine::Machine;
use crate::oracle::{self, Document};
use crate::ours::{Run, Site};
use crate::report::{Part, Report};
use crate::stores::{Store, Stores, Whose};
use crate::throughput::{ADMIN_PORT, Where, fill};
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    /// 1, 2, 4 partitions, one host
    Partitions,
    /// 1, 2, 3 hosts, 4 partitions
    Hosts,
    /// 1, 5, 20 read models on one host; of these, one is replayed
    Models,
    /// Documents of 1, 4, 50, 500 lines, as many lines in all
    Lines,
    /// All events on one counter
    Hot,
}

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ScaleArgs {
    /// Orders; each has five events
    #[arg(long, default_value_t = 20_000)]
    orders: usize,
    /// What is varied
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["partitions", "hosts", "models", "lines", "hot"])]
    what: Vec<What>,
    /// For the report: what else ran on the machine
    #[arg(long, default_value = "")]
    note: String,
    /// Print the figures, and leave the report as it is
    #[arg(long)]
    dry: bool,
}

/// All that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Scale {
    pub(crate) machine: Machine,
    pub(crate) orders: usize,
    pub(crate) points: Vec<Point>,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) what: What,
    /// `2 hosts`
    pub(crate) value: String,
    pub(crate) store: Store,
    pub(crate) live: Run,
    pub(crate) replay: Run,
    /// Documents that aren't as they must be, after either.
    pub(crate) wrong: usize,
}

/// Measures, writes the report.
pub(crate) async fn run(at: &Where, args: &ScaleArgs) -> Result<()> {
    let machine = Machine::look(&args.note)?;
    let stores = Stores::new(at.stores.clone())?;
    let bench = Bench { at, stores: &stores, usual: Data::usual(args.orders) };
    let mut points = Vec::new();
    for what in &args.what {
        for point in bench.vary(*what).await? {
            let (live, replay) = (point.live.events_per_second, point.replay.events_per_second);
            eprintln!("{}: {live:.0} events/s live, {replay:.0} replayed, {} wrong", point.value, point.wrong);
            points.push(point);
        }
    }
    let wrong: usize = points.iter().map(|point| point.wrong).sum();
    Report::take(Part::Scale(Scale { machine, orders: args.orders, points }), args.dry)?;
    ensure!(wrong == 0, "{wrong} documents of ours aren't as they should be");
    Ok(())
}

struct Bench<'a> {
    at: &'a Where,
    stores: &'a Stores,
    usual: Data,
}

/// How one point differs from the usual: one host, four partitions, one read model in Redis.
struct Setting {
    value: String,
    store: Store,
    data: Data,
    partitions: i32,
    hosts: u16,
    models: usize,
    projection: PathBuf,
    hot: bool,
}

impl Bench<'_> {
    async fn vary(&self, what: What) -> Result<Vec<Point>> {
        let mut points = Vec::new();
        for setting in self.settings(what) {
            points.push(self.measure(what, &setting).await.with_context(|| setting.value.clone())?);
        }
        Ok(points)
    }

    fn settings(&self, what: What) -> Vec<Setting> {
        let usual = |value: String| Setting {
            value,
            store: Store::Redis,
            data: self.usual,
            partitions: 4,
            hosts: 1,
            models: 1,
            projection: self.reference(Store::Redis),
            hot: false,
        };
        let orders = |lines: usize| (self.usual.orders * self.usual.lines / lines).max(1);
        match what {
            What::Partitions => [1, 2, 4].map(|n| Setting { partitions: n, ..usual(count(n, "partition")) }).into(),
            What::Hosts => [1, 2, 3].map(|n| Setting { hosts: n, ..usual(count(n.into(), "host")) }).into(),
            What::Models => [1, 5, 20]
                .map(|n| Setting { models: n, ..usual(count(n.try_into().unwrap_or(i32::MAX), "read model")) })
                .into(),
            What::Lines => [1, 4, 50, 500]
                .map(|lines| Setting {
                    store: Store::Postgres,
                    projection: self.reference(Store::Postgres),
                    data: Data { orders: orders(lines), lines },
                    ..usual(format!("{} a document", count(lines.try_into().unwrap_or(i32::MAX), "line")))
                })
                .into(),
            What::Hot => vec![Setting {
                projection: Path::new(env!("CARGO_MANIFEST_DIR")).join("projections/hot_key.yaml"),
                hot: true,
                ..usual("all events on one counter".to_owned())
            }],
        }
    }

    fn reference(&self, store: Store) -> PathBuf {
        self.at.projections_dir.join(format!("{}.yaml", store.projection()))
    }

    async fn measure(&self, what: What, setting: &Setting) -> Result<Point> {
        let Setting { store, data, models, .. } = *setting;
        fill(self.at, data, setting.partitions).await?;
        self.stores.clear(store).await?;
        let folder = std::env::temp_dir().join(format!("bench-{}", std::process::id()));
        let names = copies(&setting.projection, models, &folder)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let expected = if setting.hot { hot(data) } else { oracle::expected(store, data) };
        let events = data.events() * models;
        let mut site = Site::new(&self.at.control_database_url, &folder, ADMIN_PORT).await?;
        let live = site.live(&names, store, events, setting.hosts).await?;
        let mut wrong = self.wrong(store, &names, &expected).await?;
        // One is built beside all that are live.
        let replay = site.replay(&names[..1], store, data.events()).await?;
        wrong += self.wrong(store, &names, &expected).await?;
        site.close().await?;
        std::fs::remove_dir_all(&folder)?;
        Ok(Point { what, value: setting.value.clone(), store, live, replay, wrong })
    }

    async fn wrong(&self, store: Store, names: &[&str], expected: &HashMap<String, Document>) -> Result<usize> {
        let mut wrong = 0;
        for number in 0..names.len() {
            let differences = oracle::differences(expected, self.stores.found(store, Whose::Ours(number)).await?);
            if let Some(example) = &differences.example {
                eprintln!("    {example}");
            }
            wrong += differences.count;
        }
        Ok(wrong)
    }
}

fn count(number: i32, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The one document that all events count in.
fn hot(data: Data) -> HashMap<String, Document> {
    let placed_cents: i64 = data.all().map(|order| order.placed_cents()).sum();
    let fields = [
        ("all", json!("orders")),
        ("events", json!(data.events())),
        ("orders", json!(data.orders)),
        ("placed_cents", json!(placed_cents)),
    ];
    let document = fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    HashMap::from([("orders".to_owned(), document)])
}

/// Files of the same projection under other names, each in a Redis database of its own; gives the names.
fn copies(projection: &Path, count: usize, folder: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(projection).with_context(|| projection.display().to_string())?;
    std::fs::create_dir_all(folder)?;
    let first = text.lines().find_map(|line| line.strip_prefix("name: ")).context("a projection without a name")?;
    // Two read models can't answer one query.
    let body = text.split("\nqueries:").next().unwrap_or_default();
    let copy = |number: usize| {
        let name = if number == 0 { first.to_owned() } else { format!("{first}_{number}") };
        let database = format!("prefix: \"order:\"\n    database: {}", number * 2);
        let renamed = body.replacen(&format!("name: {first}"), &format!("name: {name}"), 1);
        std::fs::write(folder.join(format!("{name}.yaml")), renamed.replace("prefix: \"order:\"", &database) + "\n")?;
        Ok(name)
    };
    (0..count).map(copy).collect()
}
