//! What the verbs that change generations need to reach, and how they show what they wait for.

use super::{ControlArg, SchemasArg};
use crate::control::{Control, Rebuild, State};
use crate::event::{Catalog, Decoder};
use crate::generation::{Difference, Ending, Job, Site, Status};
use crate::sink::StoreUrls;
use crate::source::{Edges, KafkaConfig};
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct SiteArgs {
    #[command(flatten)]
    pub(super) schemas: SchemasArg,
    #[command(flatten)]
    pub(super) control: ControlArg,
    #[command(flatten)]
    pub(super) kafka: KafkaConfig,
    #[command(flatten)]
    pub(super) stores: StoreUrls,
    #[command(flatten)]
    pub(super) past: PastArgs,
}

/// Where the past is read when Kafka no longer has it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PastArgs {
    /// The database with the event store, for rebuilds from there and for documents that are made anew
    #[arg(long, env = "WRITE_DATABASE_URL", hide_env_values = true)]
    pub(super) write_database_url: Option<String>,
    /// The schema registry, Confluent's API
    #[arg(long, env = "SCHEMA_REGISTRY_URL", default_value = "http://127.0.0.1:8081/apis/ccompat/v7")]
    pub(super) schema_registry_url: String,
}

impl SiteArgs {
    pub(super) async fn open(&self, by: &str) -> anyhow::Result<Site> {
        let catalog = Arc::new(Catalog::load(&self.schemas.schemas)?);
        let decoder = Decoder::new(Arc::clone(&catalog), &self.past.schema_registry_url)?;
        Ok(Site {
            control: Control::connect(&self.control.control_database_url).await?,
            catalog,
            edges: Edges::new(&self.kafka),
            decoder: Some(Arc::new(decoder)),
            event_store: self.past.write_database_url.clone(),
            stores: self.stores.clone(),
            kafka: self.kafka.clone(),
            name: format!("{by}, pid {}", std::process::id()),
            id: Uuid::now_v7(),
        })
    }
}

/// Drives a rebuild, or watches it as long as somebody else drives it, until it comes to rest. The exit code tells how.
/// `several`: others are shown beside it.
pub(super) async fn attend(site: &Site, rebuild: &Rebuild, several: bool) -> anyhow::Result<ExitCode> {
    let mut bar = Bar::new(rebuild.read_model.clone(), several);
    let ending = loop {
        if let Some(mut job) = Job::take(site.clone(), rebuild.rebuild_id).await? {
            match job.run(|status, note| bar.show(status, note)).await {
                Ending::TakenOver => continue,
                ending => break ending,
            }
        }
        let now = site.control.rebuild(rebuild.rebuild_id).await?;
        match now.outcome.as_deref() {
            Some("done") => break Ending::Live,
            Some(_) => break Ending::Aborted,
            None => bar.show(&site.status(&now).await?, now.driver.as_deref()),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    bar.end();
    let (name, now) = (&rebuild.read_model, site.control.rebuild(rebuild.rebuild_id).await?);
    if let Some(difference) = now.finding.as_ref().and_then(|f| f.get("difference")) {
        let difference: Difference = serde_json::from_value(difference.clone())?;
        difference.lines().iter().for_each(|line| println!("{name}: {line}"));
    }
    let generation = site.control.member(rebuild.generation_id).await?.generation.generation;
    Ok(match ending {
        Ending::Live if rebuild.options.repair => {
            println!("{name}: generation {generation} is live in the place of the one that was lost");
            ExitCode::SUCCESS
        }
        Ending::Live => {
            println!(
                "{name}: generation {generation} is live; the former one is fed for {} s, for a rollback",
                rebuild.options.rollback_s
            );
            ExitCode::SUCCESS
        }
        Ending::Verified => {
            println!("{name}: generation {generation} is verified; `projector rebuild promote {name}` makes it live");
            ExitCode::SUCCESS
        }
        Ending::Stopped(reason) => {
            eprintln!("{name}: stopped: {reason}");
            eprintln!("{name}: see `projector rebuild status`; `projector rebuild abort {name}` ends it");
            ExitCode::FAILURE
        }
        Ending::Aborted | Ending::TakenOver => {
            eprintln!("{name}: aborted");
            ExitCode::FAILURE
        }
    })
}

/// A line that shows how far a rebuild is: over and over on a terminal, now and then in a log.
struct Bar {
    name: String,
    began: Option<(Instant, i64)>,
    next: Instant,
    last_state: Option<State>,
    terminal: bool,
}

const WIDTH: usize = 24;

impl Bar {
    fn new(name: String, several: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !several;
        Self { name, began: None, next: Instant::now(), last_state: None, terminal }
    }

    fn show(&mut self, status: &Status, note: Option<&str>) {
        let turned = self.last_state.replace(status.target.state) != Some(status.target.state);
        if !turned && Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(5) };
        let (since, done_then) = *self.began.get_or_insert((Instant::now(), status.done));
        let note = note.map(|who| format!(" (driven by {who})")).unwrap_or_default();
        let line = format!("{}{note}", line(&self.name, status, since.elapsed(), status.done - done_then));
        // What can't be shown isn't worth an end.
        _ = if self.terminal {
            write!(std::io::stderr(), "\r\x1b[2K{line}")
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
    }

    fn end(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}

fn line(name: &str, status: &Status, elapsed: Duration, handled: i64) -> String {
    let left = (status.total - status.done).max(0);
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let (rate, part) = (
        handled as f64 / elapsed.as_secs_f64().max(0.001),
        if status.total == 0 { 1.0 } else { status.done as f64 / status.total as f64 },
    );
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the width")]
    let full = ((part * WIDTH as f64) as usize).min(WIDTH);
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let eta = if rate >= 1.0 && left > 0 { format!(", ETA {:.0} s", left as f64 / rate) } else { String::new() };
    let from_store = status.rebuild.history.is_some_and(|history| !history.finished);
    format!(
        "{name} g{} → g{} {:<11} [{}{}] {}/{} events, {rate:.0}/s{eta}, behind: live {}, new {left}{}",
        status.replaces,
        status.target.generation.generation,
        if from_store { "reading the event store" } else { status.target.state.name() },
        "#".repeat(full),
        ".".repeat(WIDTH - full),
        status.done,
        status.total,
        status.live_behind,
        if status.target.paused { ", paused" } else { "" },
    )
}
