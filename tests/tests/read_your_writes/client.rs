//! One client of the shop: it writes, and keeps a model of what it wrote; then it reads by every endpoint, with the
//! command's token, and compares. Nobody else writes what is its own: customer, product, accounts, and a currency, by which reports and
//! dashboards show its own sums alone.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tests::{shop::text, var};
use tokio::time::sleep;

use super::tally::Tally;

/// What the answer to a read with a token must be.
pub(crate) struct Expectation {
    /// Names the endpoint in reports.
    pub(crate) endpoint: &'static str,
    pub(crate) path: String,
    /// Compares; what is wrong, in words.
    pub(crate) check: Check,
}

/// Compares an answer with what its reader knows.
pub(crate) type Check = Box<dyn Fn(&Value) -> Result<(), String> + Send + Sync>;

/// How a read says what it must hold.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Token(String),
    MinSeq(u64),
    Strong,
}

#[derive(Clone, Debug)]
struct Order {
    id: String,
    version: u64,
    status: &'static str,
    total: i64,
    quantity: i64,
}

/// One client.
pub(crate) struct Client {
    http: reqwest::Client,
    commands: String,
    queries: String,
    tally: Arc<Mutex<Tally>>,
    number: usize,
    step: u64,
    pub(crate) currency: String,
    /// A word that nothing else has.
    word: String,
    customer_id: String,
    product_id: String,
    orders: Vec<Order>,
    /// Of the orders' lines as they were placed.
    units: i64,
    placed: i64,
    placed_cents: i64,
    cancelled_cents: i64,
    reviews: i64,
    stars: i64,
    day: String,
    /// Until then a read that is told to come again does so.
    pub(crate) deadline: Instant,
}

/// How long a client waits that was told to come again.
const COMES_AGAIN_AFTER: Duration = Duration::from_millis(100);
const PRICE_CENTS: i64 = 1_250;
const STATUSES: [&str; 3] = ["pending", "confirmed", "cancelled"];

/// `expected` or what is there instead.
pub(crate) fn same(what: &str, found: &Value, expected: &Value) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what} is {found}, expected {expected}")) }
}

/// Currencies given out.
static CURRENCIES: AtomicUsize = AtomicUsize::new(0);

impl Client {
    /// Registers the customer and creates the product.
    pub(crate) async fn open(number: usize, run: &str, tally: Arc<Mutex<Tally>>, deadline: Instant) -> Result<Self> {
        // a client of another test in this process has another one
        let own = CURRENCIES.fetch_add(1, Ordering::SeqCst);
        let letter = |n: usize| char::from(b'A' + u8::try_from(n % 26).unwrap_or_default());
        let seed = run.bytes().fold(number, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let mut client = Self {
            http: reqwest::Client::new(),
            commands: var("COMMAND_API_URL")?,
            queries: var("QUERY_URL")?,
            tally,
            number,
            step: seed as u64,
            // codes that no currency has begin with Q
            currency: format!("Q{}{}", letter(own / 26), letter(own)),
            word: format!("zz{run}{number}"),
            customer_id: String::new(),
            product_id: String::new(),
            orders: Vec::new(),
            units: 0,
            placed: 0,
            placed_cents: 0,
            cancelled_cents: 0,
            reviews: 0,
            stars: 0,
            day: String::new(),
            deadline,
        };
        let customer =
            json!({"first_name": "Ann", "last_name": client.word, "email": format!("{}@example.com", client.word)});
        client.customer_id = text(&client.command("/customers", &customer).await?, "customer_id")?;
        let product = json!({"name": format!("Lantern {}", client.word), "category": "Model", "price_cents": PRICE_CENTS,
            "currency": client.currency, "stock": 1_000_000});
        client.product_id = text(&client.command("/products", &product).await?, "product_id")?;
        Ok(client)
    }

    /// A number below `n`: the same run, the same story.
    fn draw(&mut self, n: u64) -> u64 {
        self.step = self.step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.step >> 33) % n
    }

    /// Writes once, then reads what that touched by every endpoint, at once.
    pub(crate) async fn round(&mut self) -> Result<()> {
        let choice = self.draw(10);
        let (answer, order, is_review) = match choice {
            0..5 => (self.place().await?, self.orders.len() - 1, false),
            5 => (self.review().await?, 0, true),
            _ => match self.change().await? {
                Some((answer, order)) => (answer, order, false),
                None => (self.place().await?, self.orders.len() - 1, false),
            },
        };
        let token = text(&answer, "consistency_token")?;
        if is_review {
            let reads = [self.product_search(), self.product_search()];
            return self.read_all(&Ask::Token(token), reads.into_iter().collect()).await;
        }
        let sequence = answer["sequence_number"].as_u64().context("no sequence_number")?;
        let ask = match self.draw(8) {
            0 => Ask::Strong,
            _ => Ask::Token(token),
        };
        let (one, details) = (self.summary(order, false), self.details(order, false));
        let (short, viewed) = (self.summary(order, true), self.details(order, true));
        let mut reads =
            vec![one, details, self.history(), self.list(order), self.search(order), self.revenue(), self.dashboard()];
        reads.push(if self.draw(2) == 0 { self.stats() } else { self.suggest() });
        let min_seq = Ask::MinSeq(sequence);
        let (by_token, by_sequence) =
            tokio::join!(self.read_all(&ask, reads), self.read_all(&min_seq, vec![short, viewed]));
        by_token.and(by_sequence)
    }

    async fn place(&mut self) -> Result<Value> {
        let quantity = i64::try_from(1 + self.draw(3))?;
        let body = json!({"customer_id": self.customer_id, "items": [{"product_id": self.product_id, "quantity": quantity}],
            "shipping_address": {"city": "Bern", "zip": "3011"}});
        let answer = self.command("/orders", &body).await?;
        // Several days' orders would have to be told apart on the dashboard: a run across midnight begins anew.
        let day = self.today(&answer).await?;
        ensure!(self.day.is_empty() || self.day == day, "midnight came in between: run it again");
        self.day = day;
        let total = quantity * PRICE_CENTS;
        let id = text(&answer, "order_id")?;
        self.orders.push(Order { id, version: 1, status: STATUSES[0], total, quantity });
        self.units += quantity;
        self.placed += 1;
        self.placed_cents += total;
        Ok(answer)
    }

    /// The business day of an order just placed, from the write side itself.
    async fn today(&self, answer: &Value) -> Result<String> {
        if !self.day.is_empty() && self.draw_free() {
            return Ok(self.day.clone());
        }
        let id = text(answer, "order_id")?;
        let events: Value =
            self.http.get(format!("{}/v1/streams/order-{id}/events", self.commands)).send().await?.json().await?;
        let at = events["events"][0]["occurred_at"].as_str().with_context(|| format!("no occurred_at: {events}"))?;
        Ok(at.chars().take(10).collect())
    }

    /// The day is looked at now and then, not each time.
    fn draw_free(&self) -> bool {
        self.placed % 20 != 0
    }

    async fn review(&mut self) -> Result<Value> {
        let rating = i64::try_from(1 + self.draw(5))?;
        let body = json!({"rating": rating, "customer_id": self.customer_id});
        let answer = self.command(&format!("/products/{}/reviews", self.product_id), &body).await?;
        self.reviews += 1;
        self.stars += rating;
        Ok(answer)
    }

    /// Pays or cancels some pending order, if there is one.
    async fn change(&mut self) -> Result<Option<(Value, usize)>> {
        let pending: Vec<usize> = (0..self.orders.len()).filter(|n| self.orders[*n].status == STATUSES[0]).collect();
        if pending.is_empty() {
            return Ok(None);
        }
        let chosen = pending[usize::try_from(self.draw(pending.len() as u64))?];
        let order = self.orders[chosen].clone();
        let pays = self.draw(2) == 0;
        let answer = if pays {
            let body = json!({"order_id": order.id, "amount_cents": order.total, "currency": self.currency, "status": "confirmed"});
            self.command("/payments", &body).await?
        } else {
            let answer = self.command(&format!("/orders/{}/cancel", order.id), &json!({"reason": "model"})).await?;
            self.cancelled_cents += order.total;
            answer
        };
        let known = &mut self.orders[chosen];
        known.status = STATUSES[if pays { 1 } else { 2 }];
        known.version = answer["sequence_number"].as_u64().context("no sequence_number")?;
        Ok(Some((answer, chosen)))
    }

    fn summary(&self, order: usize, viewed: bool) -> Expectation {
        let order = self.orders[order].clone();
        let path = format!("/orders/{}{}", order.id, if viewed { "?view=summary" } else { "" });
        let check = move |answer: &Value| {
            same("version", &answer["version"], &json!(order.version))?;
            same("status", &answer["status"], &json!(order.status))
        };
        Expectation { endpoint: "order_summary", path, check: Box::new(check) }
    }

    fn details(&self, order: usize, viewed: bool) -> Expectation {
        let order = self.orders[order].clone();
        let path = format!("/orders/{}{}", order.id, if viewed { "?view=details" } else { "/details" });
        let check = move |answer: &Value| {
            same("version", &answer["version"], &json!(order.version))?;
            same("status", &answer["status"], &json!(order.status))?;
            same("quantity", &answer["items"][0]["quantity"], &json!(order.quantity))
        };
        Expectation { endpoint: "order_details", path, check: Box::new(check) }
    }

    fn history(&self) -> Expectation {
        let path = format!("/customers/{}/orders?size=100", self.customer_id);
        let (count, newest) = (self.orders.len(), self.orders.last().cloned());
        let check = move |answer: &Value| {
            same("total", &answer["total"], &json!(count))?;
            let Some(newest) = &newest else { return Ok(()) };
            let listed =
                answer["orders"].as_array().and_then(|all| all.iter().find(|o| o["order_id"] == newest.id.as_str()));
            same("status of the newest", &listed.ok_or("the newest isn't listed")?["status"], &json!(newest.status))
        };
        Expectation { endpoint: "customer_order_history", path, check: Box::new(check) }
    }

    fn list(&self, order: usize) -> Expectation {
        let order = self.orders[order].clone();
        let path = format!("/orders?customer_id={}&size=5", self.customer_id);
        let check = move |answer: &Value| {
            // newest change first, and this client changes nothing else meanwhile
            same("first order", &answer["orders"][0]["order_id"], &json!(order.id))?;
            same("its status", &answer["orders"][0]["status"], &json!(order.status))
        };
        Expectation { endpoint: "order_list_view", path, check: Box::new(check) }
    }

    fn search(&self, order: usize) -> Expectation {
        let status = self.orders[order].status;
        let (all, of_status) = (self.orders.len(), self.orders.iter().filter(|o| o.status == status).count());
        let path = format!("/orders/search?q={}&status={status}&size=1", self.word);
        let check = move |answer: &Value| {
            same("total", &answer["total"], &json!(of_status))?;
            let facet = answer["facets"]["status"].as_array().cloned().unwrap_or_default();
            let counts = |f: &dyn Fn(&Value) -> bool| {
                facet.iter().filter(|b| f(b)).filter_map(|b| b["count"].as_u64()).sum::<u64>()
            };
            same("facet's count", &json!(counts(&|b| b["value"] == status)), &json!(of_status))?;
            same("all facets' count", &json!(counts(&|_| true)), &json!(all))
        };
        Expectation { endpoint: "order_search", path, check: Box::new(check) }
    }

    fn suggest(&self) -> Expectation {
        let name = format!("Lantern {}", self.word);
        let path = format!("/orders/suggest?q={}", self.word);
        let check = move |answer: &Value| {
            let names = answer["suggestions"].as_array().cloned().unwrap_or_default();
            if names.contains(&json!(name)) { Ok(()) } else { Err(format!("`{name}` is not among {names:?}")) }
        };
        Expectation { endpoint: "order_suggest", path, check: Box::new(check) }
    }

    fn product_search(&self) -> Expectation {
        let path = format!("/products/search?q={}", self.word);
        let count = self.reviews;
        let check = move |answer: &Value| same("review_count", &answer["results"][0]["review_count"], &json!(count));
        Expectation { endpoint: "product_search", path, check: Box::new(check) }
    }

    fn stats(&self) -> Expectation {
        let path = format!("/products/{}/stats", self.product_id);
        let (placed, units, cents) = (self.placed, self.units, self.placed_cents);
        let check = move |answer: &Value| {
            same("purchase_count", &answer["purchase_count"], &json!(placed))?;
            same("units", &answer["units"], &json!(units))?;
            same("revenue_cents", &answer["revenue_cents"], &json!(cents))
        };
        Expectation { endpoint: "product_stats", path, check: Box::new(check) }
    }

    fn revenue(&self) -> Expectation {
        let path = format!("/reports/revenue?granularity=month&currency={}&from={}", self.currency, self.day);
        let (gross, cancelled, placed) = (self.placed_cents, self.cancelled_cents, self.placed);
        let check = move |answer: &Value| {
            let sum = |field: &str| -> i64 {
                answer["rows"].as_array().into_iter().flatten().filter_map(|row| row[field].as_i64()).sum()
            };
            same("gross_cents", &json!(sum("gross_cents")), &json!(gross))?;
            same("cancelled_cents", &json!(sum("cancelled_cents")), &json!(cancelled))?;
            same("orders", &json!(sum("orders")), &json!(placed))
        };
        Expectation { endpoint: "daily_revenue", path, check: Box::new(check) }
    }

    fn dashboard(&self) -> Expectation {
        let path = format!("/dashboard?currency={}&date={}", self.currency, self.day);
        let net = self.placed_cents - self.cancelled_cents;
        let check = move |answer: &Value| same("revenue_cents", &answer["revenue_cents"], &json!(net));
        Expectation { endpoint: "dashboard", path, check: Box::new(check) }
    }

    /// A command that must be accepted; while the write side's neighbours are disturbed, it is not.
    pub(crate) async fn command(&self, path: &str, body: &Value) -> Result<Value> {
        let answer = self.http.post(format!("{}{path}", self.commands)).json(body).send().await?;
        let status = answer.status();
        let found = answer.text().await?;
        ensure!(status.is_success(), "POST {path} {body}: {status} {found}");
        Ok(serde_json::from_str(&found)?)
    }

    /// All of these at once.
    pub(crate) async fn read_all(&self, ask: &Ask, expected: Vec<Expectation>) -> Result<()> {
        try_join_all(expected.iter().map(|one| self.read(ask, one))).await.map(drop)
    }

    /// Counts an answer that says so; any other refusal is an error.
    fn comes_again(&self, expected: &Expectation, ask: &Ask, body: &Value) -> Result<()> {
        let mut tally = self.tally.lock().unwrap();
        match body["type"].as_str() {
            Some("/problems/read-model-behind") => tally.behind += 1,
            // What has no processor to itself is too slow now and then, which is no lie either.
            Some(problem @ ("/problems/timed-out" | "/problems/write-side-unavailable")) => {
                *tally.too_slow.entry((expected.endpoint, problem.to_owned())).or_default() += 1;
            }
            _ => bail!("client {}: {} {ask:?}: {body}", self.number, expected.path),
        }
        ensure!(Instant::now() < self.deadline, "{}: still {body}", expected.path);
        Ok(())
    }

    /// Asks again while it is told to come again: that is no lie.
    async fn read(&self, ask: &Ask, expected: &Expectation) -> Result<()> {
        loop {
            let request = self.http.get(format!("{}{}", self.queries, expected.path)).query(&[("wait_ms", "5000")]);
            let request = match ask {
                Ask::Token(token) => request.header("Consistency-Token", token),
                Ask::MinSeq(sequence) => request.query(&[("min_seq", sequence.to_string())]),
                Ask::Strong => request.query(&[("consistency", "strong")]),
            };
            let answer = request.send().await.with_context(|| format!("{} {ask:?}", expected.path))?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body: Value = serde_json::from_str(&answer.text().await?)?;
            if status == 503 {
                self.comes_again(expected, ask, &body)?;
                sleep(COMES_AGAIN_AFTER).await;
                continue;
            }
            let mut tally = self.tally.lock().unwrap();
            ensure!(status.is_success() || status == 404, "{} {ask:?}: {status} {body}", expected.path);
            let waited_ms: u64 =
                headers.get("read-model-waited-ms").and_then(|ms| ms.to_str().ok()?.parse().ok()).unwrap_or(0);
            let seen = tally.reads.entry(expected.endpoint).or_default();
            seen.0 += 1;
            seen.1 += u64::from(waited_ms > 0);
            tally.of_several += u64::from(matches!(ask, Ask::Token(token) if token.len() > 180));
            // With fallbacks off there would have been no such answer.
            let stale = headers.contains_key("read-model-freshness");
            let wrong = if stale { Err("a stale answer".to_owned()) } else { (expected.check)(&body) };
            if let Err(wrong) = wrong {
                let path = &expected.path;
                tally.miss(format!("client {}: {path} {ask:?}: {status} {wrong}: {body}", self.number));
            }
            return Ok(());
        }
    }
}
