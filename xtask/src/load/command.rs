//! One command, sent: what it asks, what it hands over to the next one on its order, what was observed.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{sync::oneshot, time::Instant};

use super::{
    client::{self, Answer, Outcome, Request, Service, Trace},
    plan::{Action, Step},
    report::Sample,
    seen::Seen,
    setup::Catalogue,
    tally::{Observation, Side, Verdict},
    tpch::Input,
};

/// Of so many orders one is traced, up to the queries of who waits for it; services that send their spans nowhere don't mind.
const TRACED_ONE_IN: usize = 10;

/// What a step leaves to the next one of its order; `None` once a step failed: what follows would only be refused.
pub(super) type Handover = Option<Alive>;

/// What later steps need of the answers so far.
#[derive(Debug, Clone)]
pub(super) struct Alive {
    order_id: String,
    /// The line that was added last.
    item_id: Option<String>,
}

/// A step with all that its task needs, owned.
pub(super) struct Command {
    action: Action,
    /// Whose order it is; empty where it isn't one.
    customer_id: String,
    /// Of a line that joins the order.
    added_product_id: Option<String>,
    /// What can be asked without knowing any answer.
    prepared: Option<Request>,
    /// Whether it is all that happens to its order.
    alone: bool,
}

impl Command {
    pub(super) fn new(step: &Step, alone: bool, input: &Input, catalogue: &Catalogue) -> Self {
        let customer_id = step.order.map(|order| catalogue.customer_ids[input.orders[order].customer].clone());
        let prepared = prepared(step, input, catalogue);
        let added_product_id = match step.action {
            Action::AddItem { product, .. } => Some(catalogue.product_ids[product].clone()),
            _ => None,
        };
        let (action, customer_id) = (step.action.clone(), customer_id.unwrap_or_default());
        Self { action, customer_id, added_product_id, prepared, alone }
    }

    pub(super) fn verb(&self) -> &'static str {
        self.action.verb()
    }

    /// Waits for the step before, sends, and measures from `due`, the slot in the schedule.
    pub(super) async fn run(
        self,
        api: &Service,
        seen: &Seen,
        before: Option<oneshot::Receiver<Handover>>,
        due: Instant,
    ) -> (Handover, Observation) {
        let alive = match before {
            None => None,
            Some(before) => match before.await {
                Ok(Some(alive)) => Some(alive),
                _ => return (None, Observation::skipped(self.verb())),
            },
        };
        let Some(request) = self.prepared.clone().or_else(|| self.follow_up(alive.as_ref()?)) else {
            return (None, Observation::skipped(self.verb()));
        };
        let sent = Instant::now();
        let outcome = api.send(&request).await;
        let answered = Instant::now();

        let mut append = None;
        let (handover, verdict) = match outcome {
            Outcome::Accepted(answer) => {
                append = answer.append;
                let sample = if self.action == Action::Place { self.placed(&answer, seen) } else { None };
                (handed_over(alive, &answer.body), Verdict::Accepted(sample))
            }
            Outcome::Refused { problem, detail } => (None, Verdict::Refused { problem, detail }),
            Outcome::Failed(reason) => (None, Verdict::Failed(reason)),
        };
        let (from_slot, from_send) = (answered - due, answered - sent);
        (handover, Observation { side: Side::Command, endpoint: self.verb(), verdict, from_slot, from_send, append })
    }

    /// What happens to an order that is there.
    fn follow_up(&self, alive: &Alive) -> Option<Request> {
        let id = &alive.order_id;
        let act = |verb: &str, body: Value| Request::post(format!("/orders/{id}/{verb}"), body);
        Some(match &self.action {
            Action::Pay { amount_cents } => client::payment(id, *amount_cents, "confirmed"),
            Action::FailPayment { amount_cents } => client::payment(id, *amount_cents, "failed"),
            Action::Refund { amount_cents } => client::payment(id, *amount_cents, "refunded"),
            Action::RemoveAdded => {
                let path = format!("/orders/{id}/items/{}", alive.item_id.as_ref()?);
                Request::new(Method::DELETE, path, json!({}))
            }
            Action::Cancel { reason } => act("cancel", json!({"reason": reason})),
            Action::Ship { tracking_number } => act("ship", json!({"tracking_number": tracking_number})),
            Action::Deliver => act("deliver", json!({})),
            Action::AddItem { quantity, .. } => {
                act("items", json!({"product_id": self.added_product_id.as_ref()?, "quantity": quantity}))
            }
            _ => return None,
        })
    }

    fn placed(&self, answer: &Answer, seen: &Seen) -> Option<Sample> {
        let sample = Sample {
            order_id: answer.body["order_id"].as_str()?.to_owned(),
            customer_id: self.customer_id.clone(),
            sequence_number: answer.body["sequence_number"].as_i64()?,
            consistency_token: answer.body["consistency_token"].as_str()?.to_owned(),
            stays_pending: self.alone,
        };
        let trace = self.prepared.as_ref().and_then(|request| request.trace.clone());
        seen.placed(&sample.order_id, sample.sequence_number, &sample.consistency_token, trace);
        Some(sample)
    }
}

fn handed_over(alive: Option<Alive>, answer: &Value) -> Handover {
    let text = |field: &str| answer[field].as_str().map(str::to_owned);
    let order_id = alive.as_ref().map(|alive| alive.order_id.clone()).or_else(|| text("order_id"))?;
    Some(Alive { order_id, item_id: text("item_id").or_else(|| alive?.item_id) })
}

/// The request of a step that needs no answer of another.
fn prepared(step: &Step, input: &Input, catalogue: &Catalogue) -> Option<Request> {
    let product = |product: &usize| format!("/products/{}", catalogue.product_ids[*product]);
    let account = |customer: &usize| format!("acc-{}", catalogue.customer_ids[*customer]);
    Some(match &step.action {
        Action::Place => {
            let order = &input.orders[step.order?];
            let address = &input.customers[order.customer].address;
            let customer_id = &catalogue.customer_ids[order.customer];
            let request = client::order(customer_id, &order.lines, &catalogue.product_ids, address);
            Request { trace: (step.order? % TRACED_ONE_IN == 0).then(Trace::begin), ..request }
        }
        Action::Deposit { account: to, amount_cents } => {
            let payload = json!({"amount_cents": amount_cents, "reference": "Payroll deposit"});
            client::account("deposit", &account(to), payload)
        }
        Action::Withdraw { account: from, amount_cents } => {
            client::account("withdraw", &account(from), json!({"amount_cents": amount_cents, "description": "Rent"}))
        }
        Action::Transfer { from, to, amount_cents } => {
            let payload =
                json!({"amount_cents": amount_cents, "to_account_id": account(to), "reference": "Half of it"});
            client::account("transfer", &account(from), payload)
        }
        Action::Rename { customer, first, last } => {
            let path = format!("/customers/{}", catalogue.customer_ids[*customer]);
            Request::new(Method::PATCH, path, json!({"first_name": first, "last_name": last}))
        }
        Action::Describe { product: which, description } => {
            Request::new(Method::PATCH, product(which), json!({"description": description}))
        }
        Action::Restock { product: which, delta } => {
            let body = json!({"delta": delta, "reason": "delivery"});
            Request::post(format!("{}/stock", product(which)), body)
        }
        Action::Review { product: which, customer, rating } => {
            let body =
                json!({"customer_id": catalogue.customer_ids[*customer], "rating": rating, "text": "as described"});
            Request::post(format!("{}/reviews", product(which)), body)
        }
        _ => return None,
    })
}
