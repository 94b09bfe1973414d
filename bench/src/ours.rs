//! Ours: a host with a reference projection, first reading a backlog live, then replaying it into another generation.
//!
//! Everything is done as an operator does it: `projector apply`, `projector run`, `projector rebuild start`. How far it is is read
//! from the control store, as `serve` reads it. The rate counts from the first progress that is seen, so that neither starting a
//! process nor joining a group is in it, to the last, and to the last write of what a replay had put off until then.

use crate::flames::Samples;
use crate::process::{self, Env, Host};
use crate::stores::Store;
use crate::usage::{self, Meter, Usage};
use anyhow::{Context as _, Result, ensure};
use projector::control::{Control, Generation};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Events of long ago are late by months, which is no news.
const LOG: &str = "error,projector::ops::alert=off";
/// Nothing is written any more for so long: all is.
const WRITTEN_AFTER: Duration = Duration::from_secs(1);
/// Nothing moves for so long: it is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Documents that the store took.
const WRITTEN: &str = "projection_documents_written_total";

/// What was measured of one generation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Events handled.
    pub(crate) events: usize,
    /// Events a second.
    pub(crate) events_per_second: f64,
    /// Writes to the store: what folding left of the events.
    pub(crate) writes: u64,
    /// CPU seconds of the hosts.
    pub(crate) cpu_s: f64,
    /// From the command that began it until all was handled.
    pub(crate) usage: Usage,
    /// The most memory that one host had.
    pub(crate) memory_peak_mb: u64,
    /// Seconds that owners spent folding, loading and writing.
    pub(crate) fold_s: f64,
    pub(crate) load_s: f64,
    pub(crate) write_s: f64,
}

/// A control store of its own, with the projections of one measurement.
pub(crate) struct Site {
    server: String,
    database: String,
    control: Control,
    env: Env,
    files: PathBuf,
    hosts: Vec<Host>,
    ports: u16,
    /// Where flame graphs of the first host are kept.
    pub(crate) flames: Option<PathBuf>,
}

impl Site {
    /// A fresh one; `files` are all projections that it has.
    pub(crate) async fn new(control_url: &str, files: &Path, port: u16) -> Result<Self> {
        let database = format!("bench_{}", Uuid::new_v4().simple());
        let create = format!("create database {database}");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut PgConnection::connect(control_url).await?).await?;
        let url = format!("{}/{database}", control_url.rsplit_once('/').context("a URL with a database")?.0);
        let mut env = Env::from([("CONTROL_DATABASE_URL", url.clone()), ("RUST_LOG", LOG.to_owned())]);
        env.insert("PROJECTIONS_DIR", files.display().to_string());
        Ok(Self {
            server: control_url.to_owned(),
            database,
            control: Control::connect(&url).await?,
            env,
            files: files.to_owned(),
            hosts: Vec::new(),
            ports: port,
            flames: None,
        })
    }

    /// Reads the topic as the live generation does, on so many hosts.
    pub(crate) async fn live(&mut self, names: &[&str], store: Store, events: usize, hosts: u16) -> Result<Run> {
        process::finish(process::projector(&["apply", &self.files.display().to_string()], &self.env)?).await?;
        let live = self.control.live().await?;
        ensure!(names.iter().all(|name| live.iter().any(|live| live.read_model == *name)), "not all are live");
        let meter = Meter::start(store.component());
        for host in 0..hosts {
            self.hosts.push(Host::start(&self.env, self.ports + host)?);
        }
        let samples = self.sampled().await?;
        let pace = self.follow(&live, events, &mut |_| ()).await?;
        self.drawn(samples, names, "live").await?;
        self.measured(&live, pace, 0.0, &meter).await
    }

    /// Reads the topic live on one host; at each mark, a number of events handled, what was taken until then.
    pub(crate) async fn grow(&mut self, store: Store, marks: &[usize]) -> Result<Vec<Mark>> {
        process::finish(process::projector(&["apply", &self.files.display().to_string()], &self.env)?).await?;
        let live = self.control.live().await?;
        let host = Host::start(&self.env, self.ports)?;
        let pid = host.pid;
        self.hosts.push(host);
        let (meter, mut seen) = (Meter::start(store.component()), Vec::new());
        let mut see = |handled: i64| {
            let handled = usize::try_from(handled).unwrap_or(0);
            if marks.get(seen.len()).is_some_and(|mark| handled >= *mark) {
                seen.push(Mark { handled, usage: meter.read(), cpu_s: usage::cpu_s(pid) });
            }
        };
        self.follow(&live, *marks.last().context("no marks")?, &mut see).await?;
        Ok(seen)
    }

    /// Builds another generation and makes it live.
    pub(crate) async fn replay(&mut self, names: &[&str], store: Store, events: usize) -> Result<Run> {
        self.hosts.iter().for_each(|host| usage::reset_memory_peak(host.pid));
        let samples = self.sampled().await?;
        let (meter, cpu) = (Meter::start(store.component()), self.cpu_s());
        // Several at one barrier, else they would be built one after the other.
        let options = ["--together", "--from", "kafka", "--watch", "0s", "--rollback-window", "1h"];
        let arguments: Vec<&str> = ["rebuild", "start"].iter().chain(names).chain(&options).copied().collect();
        let job = tokio::spawn(process::finish(process::projector(&arguments, &self.env)?));
        let targets = loop {
            let members = self.control.members().await?.into_iter().map(|member| member.generation);
            let targets: Vec<_> = members.filter(|generation| generation.generation == 2).collect();
            if targets.len() == names.len() {
                break targets;
            }
            ensure!(!job.is_finished(), "the rebuild ended before it began");
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let mut pace = self.follow(&targets, events, &mut |_| ()).await?;
        pace.took += self.written(&targets).await?;
        self.drawn(samples, names, "replay").await?;
        let run = self.measured(&targets, pace, cpu, &meter).await?;
        job.await??;
        Ok(run)
    }

    /// Samples the first host from here on, if flame graphs are wanted.
    async fn sampled(&self) -> Result<Option<Samples>> {
        let Some(host) = self.flames.as_ref().and(self.hosts.first()) else { return Ok(None) };
        Samples::take(host.pid).await.map(Some)
    }

    async fn drawn(&self, samples: Option<Samples>, names: &[&str], what: &str) -> Result<()> {
        let (Some(samples), Some(folder)) = (samples, &self.flames) else { return Ok(()) };
        let title = format!("{}, {what}", names.join(", "));
        samples.draw(&folder.join(format!("{}-{what}.svg", names[0])), &title).await
    }

    fn cpu_s(&self) -> f64 {
        self.hosts.iter().map(|host| usage::cpu_s(host.pid)).sum()
    }

    /// Waits until so many events are handled; `see` is told how many are.
    async fn follow(&mut self, generations: &[Generation], events: usize, see: &mut dyn FnMut(i64)) -> Result<Pace> {
        let mut first: Option<(Instant, i64)> = None;
        let (mut moved, mut last) = (Instant::now(), 0);
        loop {
            let mut handled = 0;
            for generation in generations {
                let progress = self.control.progress(generation.generation_id).await?;
                handled += progress.values().map(|progress| progress.next_offset).sum::<i64>();
            }
            let now = Instant::now();
            if handled > last {
                (moved, last) = (now, handled);
                see(handled);
                let (at, before) = *first.get_or_insert((now, handled));
                if handled >= i64::try_from(events)? {
                    return Ok(Pace { counted: handled - before, took: now - at, events });
                }
            }
            self.hosts.iter_mut().try_for_each(Host::check)?;
            ensure!(now - moved < STUCK_AFTER, "{} stands still at {handled} of {events}", generations[0].id());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// How long the store still takes for what was put off.
    async fn written(&self, generations: &[Generation]) -> Result<Duration> {
        let (began, mut last) = (Instant::now(), (Duration::ZERO, 0.0));
        while began.elapsed() < last.0 + WRITTEN_AFTER {
            let written = self.figures(generations).await?.get(WRITTEN).copied().unwrap_or_default();
            if written > last.1 {
                last = (began.elapsed(), written);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(last.0)
    }

    /// What the hosts' metrics say of these generations, all hosts and labels together.
    async fn figures(&self, generations: &[Generation]) -> Result<BTreeMap<String, f64>> {
        let mut figures = BTreeMap::new();
        for host in &self.hosts {
            add_metrics(&host.listen, generations, &mut figures).await?;
        }
        Ok(figures)
    }

    async fn measured(&self, generations: &[Generation], pace: Pace, cpu_before: f64, meter: &Meter) -> Result<Run> {
        let (usage, cpu_s) = (meter.read(), self.cpu_s() - cpu_before);
        let memory = self.hosts.iter().map(|host| usage::memory_peak_mb(host.pid)).collect::<Result<Vec<_>>>()?;
        let figures = self.figures(generations).await?;
        let figure = |name: &str| figures.get(name).copied().unwrap_or_default();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let writes = figure(WRITTEN) as u64;
        Ok(Run {
            events: pace.events,
            events_per_second: pace.counted as f64 / pace.took.as_secs_f64().max(0.001),
            writes,
            cpu_s,
            usage,
            memory_peak_mb: memory.into_iter().max().unwrap_or_default(),
            fold_s: figure("projection_fold_seconds_sum"),
            load_s: figure("projection_store_load_seconds_sum"),
            write_s: figure("projection_store_write_seconds_sum"),
        })
    }

    /// Stops the hosts and drops the control store.
    pub(crate) async fn close(self) -> Result<()> {
        for host in self.hosts {
            host.stop().await?;
        }
        drop(self.control);
        let drop = format!("drop database {} with (force)", self.database);
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut PgConnection::connect(&self.server).await?).await?;
        Ok(())
    }
}

/// What was taken until so many events were handled.
pub(crate) struct Mark {
    pub(crate) handled: usize,
    pub(crate) usage: Usage,
    /// CPU seconds of the host.
    pub(crate) cpu_s: f64,
}

/// How fast events were handled between the first progress seen and the last.
struct Pace {
    counted: i64,
    took: Duration,
    events: usize,
}

/// Adds what a host says of these generations, each metric over all its labels.
async fn add_metrics(listen: &str, generations: &[Generation], into: &mut BTreeMap<String, f64>) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let page = client.get(format!("http://{listen}/metrics")).send().await?.error_for_status()?.text().await?;
    let is_of = |line: &str, generation: &Generation| {
        line.contains(&format!("read_model=\"{}\"", generation.read_model))
            && line.contains(&format!("generation=\"{}\"", generation.generation))
    };
    for line in page.lines().filter(|line| generations.iter().any(|generation| is_of(line, generation))) {
        let (Some((name, _)), Some((_, value))) = (line.split_once('{'), line.rsplit_once(' ')) else { continue };
        *into.entry(name.to_owned()).or_default() += value.parse::<f64>().unwrap_or_default();
    }
    Ok(())
}
