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

/// What later steps need of the answers so far.
#[derive(Debug, Clone)]
pub(super) struct Alive {
    order_id: String,
}

impl Alive {
    fn of(answer: &Value) -> Handover {
        Some(Self { order_id: answer["order_id"].as_str()?.to_owned() })
    }
}

/// A step with all that its task needs, owned.
pub(super) struct Command {
    action: Action,
    customer_id: String,
    /// Of a placing; the others are made from what went before.
    place: Value,
    /// Whether it is all that happens to its order.
    alone: bool,
}

impl Command {
    pub(super) fn new(step: &Step, alone: bool, input: &Input, catalogue: &Catalogue) -> Self {
        let order = &input.orders[step.order];
        let customer_id = catalogue.customer_ids[order.customer].clone();
        let place = if step.action == Action::Place {
            let address = &input.customers[order.customer].address;
            client::order(&customer_id, &order.lines, &catalogue.product_ids, address)
        } else {
            Value::Null
        };
        Self { action: step.action.clone(), customer_id, place, alone }
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
            None => api.post("/orders", &self.place).await,
            Some(alive) => self.follow_up(api, alive).await,
        };
        let answered = Instant::now();

        let (handover, verdict) = match outcome {
            Outcome::Accepted(answer) => {
                let sample = if alive.is_none() { self.sample(&answer) } else { None };
                let alive = alive.or_else(|| Alive::of(&answer));
                (alive, Verdict::Accepted(sample))
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
        let pay = async |cents: &i64, status| api.post("/payments", &client::payment(id, *cents, status)).await;
        let act = async |verb, body: &Value| api.post(&format!("/orders/{id}/{verb}"), body).await;
        match &self.action {
            Action::Place => Outcome::Failed("an order placed twice".to_owned()),
            Action::Pay { amount_cents } => pay(amount_cents, "confirmed").await,
            Action::FailPayment { amount_cents } => pay(amount_cents, "failed").await,
            Action::Refund { amount_cents } => pay(amount_cents, "refunded").await,
            Action::Cancel { reason } => act("cancel", &json!({"reason": reason})).await,
            Action::Ship { tracking_number } => act("ship", &json!({"tracking_number": tracking_number})).await,
            Action::Deliver => act("deliver", &json!({})).await,
        }
    }

    fn sample(&self, answer: &Value) -> Option<Sample> {
        Some(Sample {
            order_id: answer["order_id"].as_str()?.to_owned(),
            customer_id: self.customer_id.clone(),
            sequence_number: answer["sequence_number"].as_i64()?,
            consistency_token: answer["consistency_token"].as_str()?.to_owned(),
            stays_pending: self.alone,
        })
    }
}
