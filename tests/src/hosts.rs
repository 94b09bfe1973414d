//! Several `projector run` that share the instance's groups, and which of them has which partition, as their metrics say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;

use crate::{
    eventually,
    processes::{Process, log},
    var,
};

const METRIC: &str = "projection_partition_next_offset{";
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A `projector run` beside the instance's own; killed when it is dropped.
#[derive(Debug)]
pub struct Host {
    /// Its name in the timeline.
    pub name: String,
    process: Process,
    url: String,
}

impl Host {
    /// Starts one with an instance name and a port of its own.
    ///
    /// # Errors
    /// When the instance's own doesn't run, or this one can't be started.
    pub fn start(name: &str) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let listen = format!("127.0.0.1:{port}");
        let instance = format!("{}-{name}", var("DEV_INSTANCE")?);
        let process = Process::running("projector-run")?.named(&format!("projector-run-{name}"));
        process.start(&[("PROJECTOR_INSTANCE_ID", &instance), ("PROJECTOR_ADMIN_LISTEN", &listen)])?;
        Ok(Self { name: name.to_owned(), process, url: format!("http://{listen}") })
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it survives.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await
    }

    /// SIGTERM, and waits until it is gone.
    ///
    /// # Errors
    /// When it doesn't end within 20 s.
    pub async fn terminate(&self) -> Result<()> {
        self.process.terminate().await
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.process.kill_and_forget();
    }
}

/// A partition of a read model: `order_summary events.order/3`.
type Owned = (String, String);
/// The hosts that say they have it, by partition.
type Owners = BTreeMap<Owned, BTreeSet<String>>;

#[derive(Debug, Default)]
struct Seen {
    hosts: Vec<(String, String)>,
    /// All that there are, from the moment when one host had everything.
    all: BTreeSet<Owned>,
    owners: Owners,
    /// Since when each partition has been nobody's.
    nobodys: BTreeMap<Owned, Instant>,
    longest: Duration,
    last: String,
}

/// Looks at the hosts ten times a second and prints what changes.
#[derive(Debug)]
pub struct Watch {
    began: Instant,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Begins with the instance's own host, `a`, which must have every partition.
    ///
    /// # Errors
    /// When it hasn't within half a minute.
    pub async fn start() -> Result<Self> {
        let (began, seen) = (Instant::now(), Arc::new(Mutex::new(Seen::default())));
        lock(&seen).hosts.push(("a".to_owned(), var("PROJECTOR_ADMIN_URL")?));
        let partitions: usize = var("TOPIC_PARTITIONS")?.parse()?;
        let what = format!("every partition owned by one host, see {}", log("projector-run"));
        let all = eventually(&what, Duration::from_secs(30), || async {
            let hosts = lock(&seen).hosts.clone();
            let owners = look(&hosts).await;
            let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
            for (read_model, partition) in owners.keys() {
                let topic = partition.split_once('/').map_or(partition.as_str(), |(topic, _)| topic);
                *counts.entry((read_model, topic)).or_default() += 1;
            }
            let whole = !counts.is_empty() && counts.values().all(|count| *count == partitions);
            Ok(whole.then(|| owners.keys().cloned().collect::<BTreeSet<_>>()))
        })
        .await?;
        lock(&seen).all = all;
        let looking = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let hosts = lock(&looking).hosts.clone();
                let owners = look(&hosts).await;
                lock(&looking).note(owners, began);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Ok(Self { began, seen, task })
    }

    /// Looks at this one too from now on.
    pub fn add(&self, host: &Host) {
        self.say(&format!("{} is started", host.name));
        lock(&self.seen).hosts.push((host.name.clone(), host.url.clone()));
    }

    /// Prints what was done, with its time.
    pub fn say(&self, what: &str) {
        eprintln!("  {:>6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Waits until exactly these hosts share every read model's partitions, as evenly as their number allows. Gives how long
    /// that took.
    ///
    /// # Errors
    /// When it isn't so within `limit`.
    pub async fn shared_by(&self, hosts: &[&str], limit: Duration) -> Result<Duration> {
        let began = Instant::now();
        let hosts: BTreeSet<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let what = format!("partitions shared by {hosts:?}, see {}", log("projector-run*"));
        eventually(&what, limit, || async { Ok(lock(&self.seen).is_shared_by(&hosts).then_some(())) })
            .await
            .with_context(|| format!("last seen: {}", lock(&self.seen).last))?;
        Ok(began.elapsed())
    }

    /// The longest time that a partition has been nobody's.
    ///
    /// # Errors
    /// When one still is.
    pub fn longest_without_owner(&self) -> Result<Duration> {
        let seen = lock(&self.seen);
        ensure!(seen.nobodys.is_empty(), "nobody has {:?}", seen.nobodys.keys());
        Ok(seen.longest)
    }
}

impl Seen {
    fn note(&mut self, owners: Owners, began: Instant) {
        let now = Instant::now();
        for partition in &self.all {
            if owners.contains_key(partition) {
                if let Some(since) = self.nobodys.remove(partition) {
                    self.longest = self.longest.max(now - since);
                }
            } else {
                self.nobodys.entry(partition.clone()).or_insert(now);
            }
        }
        self.owners = owners;
        let line = self.line();
        if line != self.last {
            eprintln!("  {:>6.1} s  {line}", began.elapsed().as_secs_f64());
            self.last = line;
        }
    }

    /// `order_summary a 4 b 4 c 4 · …`
    fn line(&self) -> String {
        let mut models: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for (read_model, partition) in &self.all {
            let owners = self.owners.get(&(read_model.clone(), partition.clone()));
            let owners = owners.into_iter().flatten().map(String::as_str).collect::<Vec<_>>();
            let counts = models.entry(read_model).or_default();
            if owners.is_empty() {
                *counts.entry("nobody").or_default() += 1;
            }
            owners.into_iter().for_each(|owner| *counts.entry(owner).or_default() += 1);
        }
        let text = |(model, counts): (&str, BTreeMap<&str, usize>)| {
            let counts: Vec<_> = counts.iter().map(|(host, count)| format!("{host} {count}")).collect();
            format!("{model}: {}", counts.join(" "))
        };
        models.into_iter().map(text).collect::<Vec<_>>().join(" · ")
    }

    fn is_shared_by(&self, hosts: &BTreeSet<String>) -> bool {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let models: BTreeSet<&str> = self.all.iter().map(|(read_model, _)| read_model.as_str()).collect();
        for model in models {
            hosts.iter().for_each(|host| _ = counts.insert((model, host), 0));
        }
        for partition in &self.all {
            let Some(owners) = self.owners.get(partition).filter(|owners| owners.len() == 1) else { return false };
            for owner in owners {
                let Some(count) = counts.get_mut(&(partition.0.as_str(), owner.as_str())) else { return false };
                *count += 1;
            }
        }
        let each = |model: &str| {
            let mine: Vec<usize> = counts.iter().filter(|((m, _), _)| *m == model).map(|(_, count)| *count).collect();
            mine.iter().max().copied().unwrap_or(0) - mine.iter().min().copied().unwrap_or(0) <= 1
        };
        counts.keys().all(|(model, _)| each(model))
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks all hosts at once; one that doesn't answer has nothing.
async fn look(hosts: &[(String, String)]) -> Owners {
    let ask = |(name, url): &(String, String)| {
        let (name, url) = (name.clone(), format!("{url}/metrics"));
        async move {
            let text = async { reqwest::get(&url).await?.text().await };
            let text = tokio::time::timeout(Duration::from_millis(500), text).await;
            (name, text.ok().and_then(Result::ok).unwrap_or_default())
        }
    };
    let mut owners = Owners::new();
    for (host, text) in futures::future::join_all(hosts.iter().map(ask)).await {
        for line in text.lines().filter_map(|line| line.strip_prefix(METRIC)) {
            let label = |name: &str| {
                let (_, rest) = line.split_once(&format!("{name}=\""))?;
                Some(rest.split_once('"')?.0.to_owned())
            };
            if let (Some(model), Some(topic), Some(number)) = (label("read_model"), label("topic"), label("partition"))
            {
                owners.entry((model, format!("{topic}/{number}"))).or_default().insert(host.clone());
            }
        }
    }
    owners
}
