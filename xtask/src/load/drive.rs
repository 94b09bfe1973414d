//! The open loop: every step leaves at its slot; see the module's head for what is measured.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    client::{self, CommandApi, Outcome},
    plan::{Action, Step},
    progress::Progress,
    report::{Observation, Report, Sample, Tally, Verdict},
    setup::Catalogue,
    tpch::Input,
};

/// Commands that may be under way at once. Beyond it the schedule slips, and the slip is part of the latencies.
const IN_FLIGHT_MAX: usize = 1_000;

/// What a step leaves to the next one of its order; `None` once a step failed: what follows would only be refused.
type Handover = Option<Alive>;

#[derive(Debug, Clone)]
struct Alive {
    order_id: String,
    last_payment_id: Option<String>,
}

pub(super) async fn open_loop(
    api: &CommandApi,
    input: &Input,
    catalogue: &Catalogue,
    steps: &[Step],
    rate: f64,
    progress: &Progress,
) -> Report {
    let (observed, mut observations) = mpsc::unbounded_channel();
    let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    // the receiver of each order's latest step
    let mut chains: Vec<Option<oneshot::Receiver<Handover>>> = input.orders.iter().map(|_| None).collect();

    let start = Instant::now();
    let dispatch = async {
        for (slot, step) in steps.iter().enumerate() {
            let due = start + Duration::from_secs_f64(slot as f64 / rate);
            sleep_until(due).await;
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                break; // never: nobody closes the semaphore
            };
            let (done, next) = oneshot::channel();
            let before = chains[step.order].replace(next);
            let command = Command::new(step, input, catalogue);
            let (api, observed) = (api.clone(), observed.clone());
            tokio::spawn(async move {
                let (handover, observation) = command.run(&api, before, due).await;
                // the next step may not exist
                let _ = done.send(handover);
                let _ = observed.send(observation);
                drop(permit);
            });
        }
        drop(observed);
    };
    let collect = async {
        let mut tally = Tally::default();
        while let Some(observation) = observations.recv().await {
            tally.add(observation);
            progress.advance();
        }
        tally
    };
    let ((), tally) = tokio::join!(dispatch, collect);
    tally.into_report(start.elapsed(), rate)
}

/// One step with all that its task needs, owned.
struct Command {
    action: Action,
    customer_id: String,
    /// The body of a placing; the others are made from what went before.
    place: Option<Value>,
}

impl Command {
    fn new(step: &Step, input: &Input, catalogue: &Catalogue) -> Self {
        let order = &input.orders[step.order];
        let customer_id = catalogue.customer_ids[order.customer].clone();
        let place = (step.action == Action::Place).then(|| {
            client::order(&customer_id, &order.lines, &catalogue.product_ids, &input.customers[order.customer].address)
        });
        Self { action: step.action.clone(), customer_id, place }
    }

    async fn run(
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
        let outcome = match (&self.place, &alive) {
            (Some(body), _) => api.post("/orders", body).await,
            (None, Some(alive)) => self.follow_up(api, alive).await,
            (None, None) => Outcome::Failed("a step before its order".to_owned()),
        };
        let answered = Instant::now();

        let (handover, verdict) = match outcome {
            Outcome::Accepted(answer) => {
                let sample = self.place.as_ref().and_then(|_| self.sample(&answer));
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
        let pay = |amount, status, payment: Option<&str>| client::payment(id, amount, status, payment);
        let (path, body) = match &self.action {
            Action::Place => unreachable!("a placing carries its body"),
            Action::Pay { amount_cents } => ("/payments".to_owned(), pay(*amount_cents, "confirmed", None)),
            Action::FailPayment { amount_cents } => ("/payments".to_owned(), pay(*amount_cents, "failed", None)),
            Action::Refund { amount_cents } => {
                ("/payments".to_owned(), pay(*amount_cents, "refunded", alive.last_payment_id.as_deref()))
            }
            Action::Cancel { reason } => (format!("/orders/{id}/cancel"), serde_json::json!({"reason": reason})),
            Action::Ship { tracking_number } => {
                (format!("/orders/{id}/ship"), serde_json::json!({"tracking_number": tracking_number}))
            }
            Action::Deliver => (format!("/orders/{id}/deliver"), serde_json::json!({})),
        };
        api.post(&path, &body).await
    }

    fn hand_over(&self, alive: Option<Alive>, answer: &Value) -> Handover {
        let Some(mut alive) = alive else {
            return Some(Alive { order_id: answer["order_id"].as_str()?.to_owned(), last_payment_id: None });
        };
        if matches!(self.action, Action::Pay { .. }) {
            alive.last_payment_id = answer["payment_id"].as_str().map(str::to_owned);
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
