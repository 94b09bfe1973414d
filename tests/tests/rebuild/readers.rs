//! Readers that look again and again, through the query service and directly, and compare each answer with the one before.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{eventually, shop::Shop, stores::Stores};
use tokio::task::JoinHandle;

use crate::probes::{Probe, probes};

/// So many that those whose own writes are waited for don't keep the others' rate down.
const READERS: u32 = 32;
/// Each reader asks so often: 355 a second in all, and direct reads. On schedule: one that waited long for an answer makes up for it, so that
/// the rate is the readers' and not the machine's.
const TURN: Duration = Duration::from_millis(90);
const DIRECT_TURN: Duration = Duration::from_millis(20);
/// One turn of so many follows a command of the reader's own.
const WRITE_EVERY: usize = 40;
const WRONG_MAX: usize = 20;
/// Read models whose queries must be there.
const READ_MIN: usize = 10;
/// Reads a second that are asked for.
const READS_A_SECOND_MIN: f64 = 200.0;
/// Answers of each generation that a swap must have on both sides.
pub(crate) const SIDE_MIN: u64 = 20;
const LIMIT: Duration = Duration::from_secs(30);

/// Answers of one generation.
#[derive(Default)]
struct Side {
    answers: u64,
    first: Option<Instant>,
    last: Option<Instant>,
}

/// What all readers have seen.
#[derive(Default)]
struct Seen {
    /// By read model and generation.
    sides: BTreeMap<(String, i64), Side>,
    direct: u64,
    took: Vec<Duration>,
    /// What must not be.
    wrong: Vec<String>,
}

/// Readers at work until they are stopped.
pub(crate) struct Readers {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<()>>>,
    /// The read models whose queries are asked.
    asked: Vec<&'static str>,
    began: Instant,
}

/// The newest state that a reader knows, by what it asked.
type Known = HashMap<String, i64>;

impl Readers {
    /// Begins to read these orders and all that is about their customer.
    pub(crate) async fn start(shop: &Shop, stores: &Stores, orders: &[String]) -> Result<Self> {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let mut tasks = Vec::new();
        let mut asked = Vec::new();
        for probe in probes(shop, &orders[0]) {
            let parameters: Vec<_> = probe.parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = shop.get_raw(&probe.path, &parameters).await?;
            match answer.status().is_success() {
                true => asked.push(probe.read_model),
                false => eprintln!("{} isn't read here: {}", probe.read_model, answer.text().await?),
            }
        }
        ensure!(asked.len() >= READ_MIN, "only {asked:?} can be read");
        for number in 0..READERS as usize {
            let order = orders[number % orders.len()].clone();
            let probes = probes(shop, &order).into_iter().filter(|p| asked.contains(&p.read_model)).collect();
            let reader = Reader { shop: shop.clone(), seen: Arc::clone(&seen), order, probes, known: Known::new() };
            tasks.push(tokio::spawn(reader.run(number, Arc::clone(&stop))));
        }
        let direct =
            Direct { stores: stores.clone(), seen: Arc::clone(&seen), orders: orders.to_vec(), known: Known::new() };
        tasks.push(tokio::spawn(direct.run(Arc::clone(&stop))));
        Ok(Self { seen, stop, tasks, asked, began: Instant::now() })
    }

    /// Waits until a generation was read often enough to speak of a side of a swap.
    pub(crate) async fn have_seen(&self, read_model: &str, generation: i64) -> Result<()> {
        if !self.asked.contains(&read_model) {
            return Ok(());
        }
        let key = (read_model.to_owned(), generation);
        eventually(&format!("reads of {read_model} generation {generation}"), LIMIT, || async {
            Ok((lock(&self.seen).sides.get(&key).is_some_and(|side| side.answers >= SIDE_MIN)).then_some(()))
        })
        .await
    }

    /// What was wrong so far.
    pub(crate) fn wrong(&self) -> Vec<String> {
        lock(&self.seen).wrong.clone()
    }

    /// Stops them. There must have been enough reads, none wrong; prints how many came before and after each swap.
    pub(crate) async fn verdict(mut self) -> Result<()> {
        let took = self.began.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await??;
        }
        let mut seen = lock(&self.seen);
        seen.took.sort_unstable();
        let reads = seen.took.len() as u64 + seen.direct;
        let at = |part: f64| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let index = (seen.took.len() as f64 * part) as usize;
            seen.took.get(index.min(seen.took.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        eprintln!(
            "{reads} reads in {took:.0} s, {} of them direct; p50 {:?}, p99 {:?}, slowest {:?}",
            seen.direct,
            at(0.5),
            at(0.99),
            at(1.0)
        );
        let mut before: Option<(&(String, i64), &Side)> = None;
        for (key, side) in &seen.sides {
            if let Some((former, last)) = before.filter(|(former, _)| former.0 == key.0) {
                eprintln!(
                    "  {}: {} answers of generation {}, {} of generation {}",
                    key.0, last.answers, former.1, side.answers, key.1
                );
            }
            before = Some((key, side));
        }
        ensure!(seen.wrong.is_empty(), "{} wrong reads: {:#?}", seen.wrong.len(), seen.wrong);
        #[allow(clippy::cast_precision_loss)]
        let rate = reads as f64 / took;
        ensure!(rate >= READS_A_SECOND_MIN, "only {rate:.0} reads/s");
        Ok(())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(seen: &Mutex<Seen>, what: String) {
    let mut seen = lock(seen);
    if seen.wrong.len() < WRONG_MAX {
        seen.wrong.push(what);
    }
}

/// The checker: what grows must not have fallen since this reader saw it last.
fn not_older(seen: &Mutex<Seen>, known: &mut Known, about: &str, found: i64) {
    let before = known.insert(about.to_owned(), found).unwrap_or(i64::MIN);
    if found < before {
        note(seen, format!("{about} went back from {before} to {found}"));
    }
}

struct Reader {
    shop: Shop,
    seen: Arc<Mutex<Seen>>,
    order: String,
    probes: Vec<Probe>,
    known: Known,
}

impl Reader {
    async fn run(mut self, number: usize, stop: Arc<AtomicBool>) -> Result<()> {
        let mut turns = tokio::time::interval(TURN);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let mut turn = number;
        while !stop.load(Ordering::Relaxed) {
            turns.tick().await;
            turn += 1;
            if turn.is_multiple_of(WRITE_EVERY) {
                self.own_write(turn / WRITE_EVERY).await;
            } else {
                self.ask(turn % self.probes.len(), &[]).await;
            }
        }
        Ok(())
    }

    /// A command's own effect must be there, whatever is swapped meanwhile.
    async fn own_write(&mut self, turn: usize) {
        let (answer, read_model) = if turn.is_multiple_of(2) {
            let refused = json!({"order_id": self.order, "amount_cents": tests::shop::TOTAL_CENTS, "currency": "USD", "status": "failed"});
            (self.shop.post("/payments", &refused).await, "order_summary")
        } else {
            let (account, id) = (format!("acc-{}", self.shop.customer_id), uuid::Uuid::new_v4());
            let body = json!({"command_id": id, "command_type": "DEPOSIT_FUNDS", "aggregate_id": account,
                "payload": {"amount_cents": 1, "currency": "USD"}, "created_at": "2026-05-23T10:00:00Z"});
            (self.shop.post("/v1/commands/accounts/deposit", &body).await, "account_balance")
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return note(&self.seen, format!("a command failed: {error:#}")),
        };
        let (Some(token), Some(sequence)) = (answer["consistency_token"].as_str(), answer["sequence_number"].as_i64())
        else {
            return note(&self.seen, format!("no token: {answer}"));
        };
        let Some(probe) = self.probes.iter().position(|probe| probe.read_model == read_model) else { return };
        let found = self.ask(probe, &[("consistency_token", token), ("wait_ms", "5000")]).await;
        if found.is_some_and(|found| found < sequence) {
            note(&self.seen, format!("{read_model}: a token of {sequence} was answered with {found:?}"));
        }
    }

    async fn ask(&mut self, probe: usize, more: &[(&str, &str)]) -> Option<i64> {
        let probe = &self.probes[probe];
        let mut parameters: Vec<_> = probe.parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        parameters.extend(more);
        let began = Instant::now();
        let wrong = |what: String| note(&self.seen, format!("{} {parameters:?}: {what}", probe.path));
        let answer = match self.shop.get_raw(&probe.path, &parameters).await {
            Ok(answer) => answer,
            Err(error) => {
                wrong(error.to_string());
                return None;
            }
        };
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (status, generation) = (answer.status(), header("read-model-generation"));
        let is_stale = header("read-model-freshness").is_some();
        let body = answer.text().await.unwrap_or_default();
        let took = began.elapsed();
        if is_stale {
            // It had been there, so the read model has lost it.
            wrong(format!("from the write database: {body}"));
            return None;
        }
        let value: Option<Value> = serde_json::from_str(&body).ok();
        let found = value.as_ref().filter(|_| status.is_success()).and_then(probe.grows);
        let Some(found) = found else {
            wrong(format!("{status} {body}"));
            return None;
        };
        let mut seen = lock(&self.seen);
        seen.took.push(took);
        let generation = generation.and_then(|text| text.parse().ok()).unwrap_or_default();
        let side = seen.sides.entry((probe.read_model.to_owned(), generation)).or_default();
        side.answers += 1;
        side.first.get_or_insert(began);
        side.last = Some(began);
        drop(seen);
        not_older(&self.seen, &mut self.known, &probe.about, found);
        Some(found)
    }
}

/// One who reads the stores themselves: the key, the alias, the view.
struct Direct {
    stores: Stores,
    seen: Arc<Mutex<Seen>>,
    orders: Vec<String>,
    known: Known,
}

impl Direct {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Result<()> {
        let mut turn = 0;
        while !stop.load(Ordering::Relaxed) {
            turn += 1;
            let order = self.orders[turn % self.orders.len()].clone();
            let hash = self.stores.hash(&order).await?;
            let version = hash.get("version").and_then(|v| v.parse().ok()).unwrap_or(0);
            not_older(&self.seen, &mut self.known, &format!("hash {order}, read directly"), version);
            let found = match self.stores.document(&order).await {
                Ok(found) => found.map_or(0, |document| i64::try_from(document.version).unwrap_or(0)),
                Err(error) => {
                    note(&self.seen, format!("search document {order}: {error:#}"));
                    continue;
                }
            };
            not_older(&self.seen, &mut self.known, &format!("search document {order}, read directly"), found);
            let rows = self.stores.clickhouse("select count() from daily_revenue format TSV", Vec::new()).await;
            match rows.and_then(|rows| String::from_utf8(rows)?.trim().parse().context("no number")) {
                Ok(rows) => not_older(&self.seen, &mut self.known, "rows of daily_revenue, read directly", rows),
                Err(error) => note(&self.seen, format!("daily_revenue: {error:#}")),
            }
            lock(&self.seen).direct += 3;
            tokio::time::sleep(DIRECT_TURN).await;
        }
        Ok(())
    }
}
