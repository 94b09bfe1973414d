//! One step, sent: what it asks, what it hands over to the next step of its order, what was observed.

use serde_json::{Value, json};
use tokio::{sync::oneshot, time::Instant};

use super::{
    client::{self, CommandApi, Outcome},
    plan::{Action, Step},
    report::{Observation, Sample, Verdict},
    setup::Catalogue,
    tpch::Input,
};

/// What a step leaves to the next one of its order; `None` once a step failed: what follows would only be refused.
pub(super) type Handover = Option<Alive>;

/// The ids that later steps need, from the answers so far.
#[derive(Debug, Clone)]
pub(super) struct Alive {
    order_id: String,
    last_payment_id: Option<String>,
    last_item_id: Option<String>,
}

/// A step with all that its task needs, owned.
pub(super) struct Command {
    action: Action,
    customer_id: String,
    /// Of the actions that name products.
    body: Value,
}

impl Command {
    pub(super) fn new(step: &Step, input: &Input, catalogue: &Catalogue) -> Self {
        let order = &input.orders[step.order];
        let customer_id = catalogue.customer_ids[order.customer].clone();
        let ids = &catalogue.product_ids;
        let body = match &step.action {
            Action::Place => client::order(&customer_id, &order.lines, ids, &input.customers[order.customer].address),
            Action::AddItem(line) => client::item(line, ids),
            _ => Value::Null,
        };
        Self { action: step.action.clone(), customer_id, body }
    }

    /// Waits for the step before, sends, and measures from `due`, the slot in the schedule.
    pub(super) async fn run(
        self,
        api: &CommandApi,
        before: Option<oneshot::Receiver<Handover>>,
        due: Instant,
    ) -> (Handover, Observation) {
        let alive = match before {
            None => None,
            Some(before) => match before.await {
                Ok(Some(alive)) => Some(alive),
                _ => return (None, Observation::skipped(self.action.verb())),
            },
        };
        let sent = Instant::now();
        let outcome = match &alive {
            None => api.post("/orders", &self.body).await,
            Some(alive) => self.follow_up(api, alive).await,
        };
        let answered = Instant::now();

        let (handover, verdict) = match outcome {
            Outcome::Accepted(answer) => {
                let sample = if alive.is_none() { self.sample(&answer) } else { None };
                (self.hand_over(alive, &answer), Verdict::Accepted(sample))
            }
            Outcome::Refused { problem, detail } => (None, Verdict::Refused { problem, detail }),
            Outcome::Failed(reason) => (None, Verdict::Failed(reason)),
        };
        let observation =
            Observation { verb: self.action.verb(), verdict, from_slot: answered - due, from_send: answered - sent };
        (handover, observation)
    }

    async fn follow_up(&self, api: &CommandApi, alive: &Alive) -> Outcome {
        let id = &alive.order_id;
        let pay = async |cents: &i64, status, payment: Option<&str>| {
            api.post("/payments", &client::payment(id, *cents, status, payment)).await
        };
        let act = async |verb, body: &Value| api.post(&format!("/orders/{id}/{verb}"), body).await;
        match &self.action {
            Action::Place => Outcome::Failed("an order placed twice".to_owned()),
            Action::AddItem(_) => act("items", &self.body).await,
            Action::RemoveItem => match &alive.last_item_id {
                Some(item) => api.delete(&format!("/orders/{id}/items/{item}")).await,
                None => Outcome::Failed("no item_id in the answer to the item added".to_owned()),
            },
            Action::Pay { amount_cents } => pay(amount_cents, "confirmed", None).await,
            Action::FailPayment { amount_cents } => pay(amount_cents, "failed", None).await,
            Action::Refund { amount_cents } => pay(amount_cents, "refunded", alive.last_payment_id.as_deref()).await,
            Action::Cancel { reason } => act("cancel", &json!({"reason": reason})).await,
            Action::Ship { tracking_number } => act("ship", &json!({"tracking_number": tracking_number})).await,
            Action::Deliver => act("deliver", &json!({})).await,
        }
    }

    fn hand_over(&self, alive: Option<Alive>, answer: &Value) -> Handover {
        let field = |name: &str| answer[name].as_str().map(str::to_owned);
        let Some(mut alive) = alive else {
            return Some(Alive { order_id: field("order_id")?, last_payment_id: None, last_item_id: None });
        };
        match self.action {
            Action::Pay { .. } => alive.last_payment_id = field("payment_id"),
            Action::AddItem(_) => alive.last_item_id = field("item_id"),
            _ => {}
        }
        Some(alive)
    }

    fn sample(&self, answer: &Value) -> Option<Sample> {
        Some(Sample {
            order_id: answer["order_id"].as_str()?.to_owned(),
            customer_id: self.customer_id.clone(),
            sequence_number: answer["sequence_number"].as_i64()?,
            consistency_token: answer["consistency_token"].as_str()?.to_owned(),
        })
    }
}
