//! The queries: which, how often, about what; and whether an answer can be true.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{
    client::{Answer, Outcome, Service, Trace},
    rng::Rng,
    seen::{Placed, Seen},
    setup::Catalogue,
    tally::{Observation, Side, Verdict},
    tpch::Input,
};

/// How long who has just placed an order is willing to wait for it.
const OWN_WAIT_MS: &str = "5000";
const STATUSES: [&str; 5] = ["pending", "confirmed", "shipped", "delivered", "cancelled"];

/// Who has just placed an order looks at it: as soon as one is placed, so its latency counts from there, and not from its slot.
const OWN_ORDER: &str = "own order by token";
/// How long such a reader waits for an order to be placed.
const PLACED_WITHIN: Duration = Duration::from_secs(1);

/// Each query with how many of all are of its kind: mostly single documents, as shops and banks see it.
const MIX: [(&str, u64); 16] = [
    ("order", 26),
    (OWN_ORDER, 4),
    ("order details", 8),
    ("customer orders", 10),
    ("customer orders by text", 2),
    ("order list", 4),
    ("order search", 4),
    ("order suggest", 4),
    ("product search", 8),
    ("product stats", 3),
    ("revenue", 1),
    ("dashboard", 4),
    ("account balance", 14),
    ("account summary", 3),
    ("account transactions", 3),
    ("account statement", 2),
];

/// Who asks what.
pub(super) struct Readers {
    pub(super) service: Service,
    pub(super) seed: u64,
    customer_ids: Vec<String>,
    product_ids: Vec<String>,
    /// Product names and categories.
    products: Vec<(String, String)>,
    /// What is served of [`MIX`].
    mix: Vec<(&'static str, u64)>,
}

/// One query, to be sent.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) query: &'static str,
    path: String,
    parameters: Vec<(&'static str, String)>,
    check: Option<Check>,
    /// Where it goes on with a trace that is kept.
    trace: Option<Trace>,
}

/// What the answer must not be older than.
#[derive(Debug)]
struct Check {
    id: String,
    /// The answer's number that only grows.
    field: &'static str,
    known: i64,
}

impl Readers {
    /// Finds out which queries are served.
    ///
    /// # Errors
    /// When none is.
    pub(super) async fn new(service: Service, input: &Input, catalogue: &Catalogue, seed: u64) -> Result<Self> {
        let products = input.products.iter().map(|product| (product.name.clone(), product.category.clone())).collect();
        let (customer_ids, product_ids) = (catalogue.customer_ids.clone(), catalogue.product_ids.clone());
        let mut readers = Self { service, seed, customer_ids, product_ids, products, mix: Vec::new() };
        let (seen, mut rng) = (Seen::default(), Rng::new(seed, 4));
        for (query, weight) in MIX {
            let probe = readers.read(query, &seen, &mut rng);
            match readers.service.get(&probe.path, &probe.parameters, None).await {
                Outcome::Refused { problem, .. } if problem == "no-such-path" => {
                    eprintln!("{query}: no read model declares {}, so it isn't asked for", probe.path);
                }
                _ => readers.mix.push((query, weight)),
            }
        }
        ensure!(!readers.mix.is_empty(), "the query service serves none of the queries: `projector apply`?");
        Ok(readers)
    }

    /// The next one, by chance.
    pub(super) fn next(&self, seen: &Seen, rng: &mut Rng) -> Read {
        let all: u64 = self.mix.iter().map(|(_, weight)| weight).sum();
        let mut at = rng.below(all);
        for (query, weight) in &self.mix {
            match at.checked_sub(*weight) {
                None => return self.read(query, seen, rng),
                Some(left) => at = left,
            }
        }
        self.read(self.mix[0].0, seen, rng)
    }

    fn read(&self, query: &'static str, seen: &Seen, rng: &mut Rng) -> Read {
        let customer = &self.customer_ids[rng.below(self.customer_ids.len() as u64) as usize];
        let place = rng.below(self.products.len() as u64) as usize;
        let (name, category) = &self.products[place];
        let word = |rng: &mut Rng| {
            let words: Vec<&str> = name.split(' ').collect();
            words[rng.below(words.len() as u64) as usize].to_owned()
        };
        let account = format!("/v1/queries/accounts/acc-{customer}");
        let versioned = |id: &str, field| Some(Check { id: id.to_owned(), field, known: seen.known(query, id) });
        // Where nothing was placed yet, an order that isn't there: it is asked for before anything is counted.
        let order = |rng: &mut Rng| seen.settled(|n| rng.below(n));
        let (path, parameters, check) = match query {
            "order" | "order details" => match order(rng) {
                Some(id) => {
                    let more = if query == "order" { "" } else { "/details" };
                    let check = versioned(&id, "version");
                    (format!("/orders/{id}{more}"), vec![], check)
                }
                None if self.mix.is_empty() => {
                    let more = if query == "order" { "" } else { "/details" };
                    (format!("/orders/{}{more}", Uuid::nil()), vec![], None)
                }
                None => return self.read("customer orders", seen, rng),
            },
            OWN_ORDER => match seen.latest() {
                Some(placed) => return Read::of_own(&placed, seen),
                None if self.mix.is_empty() => (format!("/orders/{}", Uuid::nil()), vec![], None),
                None => return self.read("customer orders", seen, rng),
            },
            "customer orders" => (format!("/customers/{customer}/orders"), vec![], versioned(customer, "total")),
            "customer orders by text" => (format!("/customers/{customer}/orders"), vec![("q", word(rng))], None),
            "order list" => {
                let by_status = ("status", rng.pick(&STATUSES).to_owned());
                let parameter = if rng.chance(50) { by_status } else { ("customer_id", customer.clone()) };
                ("/orders".to_owned(), vec![parameter], None)
            }
            "order search" => {
                let mut parameters = vec![("q", word(rng))];
                if rng.chance(50) {
                    parameters.push(("status", rng.pick(&STATUSES).to_owned()));
                }
                ("/orders/search".to_owned(), parameters, None)
            }
            "order suggest" => {
                let begun: String = word(rng).chars().take(3).collect();
                ("/orders/suggest".to_owned(), vec![("q", begun)], None)
            }
            "product search" => {
                let parameter = match rng.below(3) {
                    0 => ("category", category.clone()),
                    1 => ("max_price", (50_000 + rng.below(100_000)).to_string()),
                    _ => ("q", word(rng)),
                };
                ("/products/search".to_owned(), vec![parameter], None)
            }
            "product stats" => (format!("/products/{}/stats", self.product_ids[place]), vec![], None),
            "revenue" => {
                let granularity = rng.pick(&["day", "week", "month"]);
                ("/reports/revenue".to_owned(), vec![("granularity", granularity.to_owned())], None)
            }
            "dashboard" => ("/dashboard".to_owned(), vec![], None),
            "account balance" => (format!("{account}/balance"), vec![], versioned(customer, "last_updated_sequence")),
            "account summary" => (format!("{account}/summary"), vec![], None),
            "account transactions" => (format!("{account}/transactions"), vec![], None),
            _ => (format!("{account}/statement"), vec![], None),
        };
        Read { query, path, parameters, check, trace: None }
    }
}

impl Read {
    fn of_own(placed: &Placed, seen: &Seen) -> Self {
        let known = seen.known(OWN_ORDER, &placed.order_id).max(placed.sequence);
        let check = Check { id: placed.order_id.clone(), field: "version", known };
        let parameters = vec![("consistency_token", placed.token.clone()), ("wait_ms", OWN_WAIT_MS.to_owned())];
        let (path, trace) = (format!("/orders/{}", placed.order_id), placed.trace.clone());
        Self { query: OWN_ORDER, path, parameters, check: Some(check), trace }
    }

    pub(super) async fn run(mut self, service: &Service, seen: &Arc<Seen>, mut due: Instant) -> Observation {
        if self.query == OWN_ORDER {
            match timeout(PLACED_WITHIN, seen.next_placed()).await {
                Ok(placed) => (self, due) = (Self::of_own(&placed, seen), Instant::from_std(placed.at)),
                // Orders are no longer placed: the last one again.
                Err(_) => due = Instant::now(),
            }
        }
        let sent = Instant::now();
        let outcome = service.get(&self.path, &self.parameters, self.trace.as_ref()).await;
        let answered = Instant::now();
        let verdict = match outcome {
            Outcome::Accepted(Answer { body, .. }) => self.judge(&body, seen),
            Outcome::Refused { problem, detail } => Verdict::Refused { problem, detail },
            Outcome::Failed(reason) => Verdict::Failed(reason),
        };
        let (from_slot, from_send) = (answered - due, answered - sent);
        Observation { side: Side::Query, endpoint: self.query, verdict, from_slot, from_send, append: None }
    }

    fn judge(&mut self, body: &Value, seen: &Seen) -> Verdict {
        let Some(Check { id, field, known }) = self.check.take() else { return Verdict::Accepted(None) };
        let Some(version) = body[field].as_i64() else {
            return Verdict::Failed(format!("{}: an answer without `{field}`", self.query));
        };
        match seen.answered(self.query, &id, known, version) {
            Ok(()) => Verdict::Accepted(None),
            Err(wrong) => Verdict::Failed(wrong),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn most_of_the_mix_is_single_documents() {
        assert_eq!(MIX.iter().map(|(_, weight)| weight).sum::<u64>(), 100);
    }
}
