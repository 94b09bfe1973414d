//! Readers that look again and again, through the query service and directly, and compare each answer with the one before.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{shop::Shop, stores::Stores};
use tokio::task::JoinHandle;

const READERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);
const WRONG_MAX: usize = 20;
/// Reads a second that are asked for, also of a machine that does other things.
const READS_A_SECOND_MIN: f64 = 40.0;

/// What all readers have seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Answers by read model and generation.
    answers: BTreeMap<(String, String), u64>,
    /// Direct reads.
    direct: u64,
    /// What must not be.
    wrong: Vec<String>,
    slowest: Duration,
}

/// Readers at work until they are stopped.
pub(crate) struct Readers {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<()>>>,
    began: Instant,
}

/// What a reader knows of an order: the newest version that it has seen.
type Known = HashMap<String, u64>;

impl Readers {
    /// Begins to read these orders.
    pub(crate) fn start(shop: &Shop, stores: &Stores, orders: Vec<String>) -> Self {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let orders = Arc::new(orders);
        let mut tasks = Vec::new();
        for number in 0..READERS {
            let reader = Reader { shop: shop.clone(), seen: Arc::clone(&seen), orders: Arc::clone(&orders) };
            let stop = Arc::clone(&stop);
            tasks.push(tokio::spawn(async move { reader.run(number, &stop).await }));
        }
        let direct = Direct { stores: stores.clone(), seen: Arc::clone(&seen), orders };
        let stopped = Arc::clone(&stop);
        tasks.push(tokio::spawn(async move { direct.run(&stopped).await }));
        Self { seen, stop, tasks, began: Instant::now() }
    }

    /// Stops them. There must have been enough reads, none wrong, and of these read models some before and some after a swap.
    pub(crate) async fn verdict(mut self, swapped: &[&str]) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await??;
        }
        let seen = self.seen.lock().unwrap();
        let (reads, took) = (seen.answers.values().sum::<u64>() + seen.direct, self.began.elapsed().as_secs_f64());
        eprintln!("{reads} reads in {took:.0} s, {} of them direct, the slowest took {:?}", seen.direct, seen.slowest);
        for ((read_model, generation), answers) in &seen.answers {
            eprintln!("  {read_model} generation {generation}: {answers} answers");
        }
        ensure!(seen.wrong.is_empty(), "{} wrong reads: {:#?}", seen.wrong.len(), seen.wrong);
        #[allow(clippy::cast_precision_loss)]
        let rate = reads as f64 / took;
        ensure!(rate >= READS_A_SECOND_MIN, "only {rate:.0} reads/s");
        for read_model in swapped {
            let generations = seen.answers.keys().filter(|(name, _)| name == read_model).count();
            ensure!(generations >= 2, "{read_model}: no reads on both sides of a swap: {:?}", seen.answers);
        }
        Ok(())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Reader {
    shop: Shop,
    seen: Arc<Mutex<Seen>>,
    orders: Arc<Vec<String>>,
}

impl Reader {
    async fn run(&self, number: usize, stop: &AtomicBool) -> Result<()> {
        let (mut summaries, mut pages, mut revenue) = (Known::new(), Known::new(), 0_i64);
        let mut turn = number;
        while !stop.load(Ordering::Relaxed) {
            turn += 1;
            let order = &self.orders[turn % self.orders.len()];
            match turn % 8 {
                0 => self.revenue(&mut revenue).await,
                1..3 => self.page(&mut pages).await,
                3 => self.own_write(order, &mut summaries).await,
                _ => self.summary(order, &[], &mut summaries).await,
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// An order's version must never fall.
    async fn summary(&self, order: &str, more: &[(&str, &str)], known: &mut Known) {
        let Some(answer) = self.ask(&format!("/orders/{order}"), more).await else { return };
        self.not_older(order, answer["version"].as_u64().unwrap_or(0), known);
    }

    fn not_older(&self, what: &str, version: u64, known: &mut Known) {
        let before = known.insert(what.to_owned(), version).unwrap_or(0);
        if version < before {
            self.wrong(format!("{what} went back from {before} to {version}"));
        }
    }

    /// A command's own effect must be there, whatever is swapped meanwhile.
    async fn own_write(&self, order: &str, known: &mut Known) {
        let refused = serde_json::json!({"order_id": order, "amount_cents": tests::shop::TOTAL_CENTS, "currency": "USD", "status": "failed"});
        let Ok(paid) = self.shop.post("/payments", &refused).await else {
            return self.wrong("a command failed".to_owned());
        };
        let (Some(token), Some(sequence)) = (paid["consistency_token"].as_str(), paid["sequence_number"].as_u64())
        else {
            return self.wrong(format!("no token: {paid}"));
        };
        self.summary(order, &[("consistency_token", token), ("wait_ms", "5000")], known).await;
        if known.get(order).is_none_or(|seen| *seen < sequence) {
            self.wrong(format!("{order}: a token of {sequence} was answered with {:?}", known.get(order)));
        }
    }

    /// A customer's orders never become fewer.
    async fn page(&self, known: &mut Known) {
        let path = format!("/customers/{}/orders", self.shop.customer_id);
        let Some(answer) = self.ask(&path, &[("size", "5")]).await else { return };
        self.not_older("the customer's orders", answer["total"].as_u64().unwrap_or(0), known);
    }

    /// What was placed only grows.
    async fn revenue(&self, before: &mut i64) {
        let Some(answer) = self.ask("/reports/revenue", &[("granularity", "month")]).await else { return };
        let rows = answer["rows"].as_array().cloned().unwrap_or_default();
        let orders: i64 = rows.iter().filter_map(|row| row["orders"].as_i64()).sum();
        if orders < *before {
            self.wrong(format!("the report went back from {before} to {orders} orders"));
        }
        *before = orders;
    }

    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let began = Instant::now();
        let answer = match self.shop.get_raw(path, parameters).await {
            Ok(answer) => answer,
            Err(error) => {
                self.wrong(format!("{path}: {error}"));
                return None;
            }
        };
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("?").to_owned();
        let (status, key) = (answer.status(), (header("read-model"), header("read-model-generation")));
        let body = answer.text().await.unwrap_or_default();
        if !status.is_success() {
            self.wrong(format!("{path} {parameters:?}: {status} {body}"));
            return None;
        }
        let mut seen = self.seen.lock().unwrap();
        *seen.answers.entry(key).or_default() += 1;
        seen.slowest = seen.slowest.max(began.elapsed());
        serde_json::from_str(&body).ok()
    }

    fn wrong(&self, what: String) {
        note(&self.seen, what);
    }
}

fn note(seen: &Mutex<Seen>, what: String) {
    let mut seen = seen.lock().unwrap();
    if seen.wrong.len() < WRONG_MAX {
        seen.wrong.push(what);
    }
}

/// One who reads the stores themselves: the key, the alias, the view.
struct Direct {
    stores: Stores,
    seen: Arc<Mutex<Seen>>,
    orders: Arc<Vec<String>>,
}

impl Direct {
    async fn run(&self, stop: &AtomicBool) -> Result<()> {
        let mut known = Known::new();
        let mut turn = 0;
        while !stop.load(Ordering::Relaxed) {
            turn += 1;
            let order = &self.orders[turn % self.orders.len()];
            let hash = self.stores.hash(order).await?;
            let version = hash.get("version").and_then(|v| v.parse().ok()).unwrap_or(0);
            self.not_older(&format!("hash {order}"), version, &mut known);
            match self.stores.document(order).await {
                Ok(found) => {
                    let version = found.map_or(0, |document| document.version);
                    self.not_older(&format!("search document {order}"), version, &mut known);
                }
                Err(error) => note(&self.seen, format!("search document {order}: {error:#}")),
            }
            let rows = self.stores.clickhouse("select count() from daily_revenue format TSV", Vec::new()).await;
            match rows.and_then(|rows| String::from_utf8(rows)?.trim().parse().context("no number")) {
                Ok(rows) => self.not_older("rows of daily_revenue", rows, &mut known),
                Err(error) => note(&self.seen, format!("daily_revenue: {error:#}")),
            }
            self.seen.lock().unwrap().direct += 3;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    fn not_older(&self, what: &str, version: u64, known: &mut Known) {
        let before = known.insert(what.to_owned(), version).unwrap_or(0);
        if version < before {
            note(&self.seen, format!("{what} went back from {before} to {version}, read directly"));
        }
    }
}
