//! Which commands, in which order: decided beforehand, from the input and the seed alone.
//!
//! Time in here is counted in orders (order `i` is placed at `i`); what follows an order comes some tens to
//! hundreds of orders later, so that thousands of orders are alive at once and their commands interleave. The drive
//! then gives the i-th step of the sorted plan the i-th slot of the schedule.

use super::{rng::Rng, tpch::Input};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// The order's place in the input.
    pub(super) order: usize,
    pub(super) action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Place,
    Pay {
        amount_cents: i64,
    },
    FailPayment {
        amount_cents: i64,
    },
    /// Gives back the order's last confirmed payment; a payment of its own.
    Refund {
        amount_cents: i64,
    },
    Cancel {
        reason: &'static str,
    },
    Ship {
        tracking_number: String,
    },
    Deliver,
}

impl Action {
    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Pay { .. } => "pay",
            Self::FailPayment { .. } => "fail payment",
            Self::Refund { .. } => "refund",
            Self::Cancel { .. } => "cancel",
            Self::Ship { .. } => "ship",
            Self::Deliver => "deliver",
        }
    }
}

const REASONS: [&str; 4] = ["changed my mind", "found it cheaper", "ordered twice", "takes too long"];

/// Orders between one command on an order and the next: enough that the first was answered at any sane rate.
const GAP_ORDERS_MIN: u64 = 20;
const GAP_ORDERS_SPREAD: u64 = 200;

pub(super) fn plan(input: &Input, seed: u64) -> Vec<Step> {
    let mut rng = Rng::new(seed, 2);
    let mut timed = Vec::with_capacity(input.orders.len() * 3);
    for (order, content) in input.orders.iter().enumerate() {
        let mut at = order as u64;
        for action in life(content.total_cents, &mut rng) {
            timed.push((at, Step { order, action }));
            at += GAP_ORDERS_MIN + rng.below(GAP_ORDERS_SPREAD);
        }
    }
    // stable: at one time, in order of placing
    timed.sort_by_key(|(at, _)| *at);
    timed.into_iter().map(|(_, step)| step).collect()
}

/// What happens to one order, from placing on.
fn life(total_cents: i64, rng: &mut Rng) -> Vec<Action> {
    let mut life = vec![Action::Place];
    let cancel = |rng: &mut Rng| Action::Cancel { reason: rng.pick(&REASONS[..]) };
    let fate = rng.below(100);
    if fate < 6 {
        return life; // never paid
    }
    if fate < 12 {
        life.push(cancel(rng));
        return life;
    }
    if fate < 14 {
        // a part is paid, the rest never: stays pending
        life.push(Action::Pay { amount_cents: total_cents / 3 });
        return life;
    }
    if rng.chance(3) {
        life.push(Action::FailPayment { amount_cents: total_cents });
    }
    let last_payment = if rng.chance(5) {
        let first = total_cents / 2;
        life.push(Action::Pay { amount_cents: first });
        total_cents - first
    } else {
        total_cents
    };
    life.push(Action::Pay { amount_cents: last_payment });
    let refund = Action::Refund { amount_cents: last_payment };
    match fate {
        // both orders of cancel and refund: the revenue is reversed once, by whichever comes first
        14 | 15 => life.extend([cancel(rng), refund]),
        16 => life.extend([refund, cancel(rng)]),
        17 => life.push(refund),
        18..60 => {
            life.push(Action::Ship { tracking_number: format!("TRK{:010}", rng.below(10_000_000_000)) });
            if rng.chance(50) {
                life.push(Action::Deliver);
            }
        }
        _ => {}
    }
    life
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::load::tpch;

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        let input = tpch::generate(500, 7);
        assert_eq!(plan(&input, 7), plan(&input, 7));
        assert_ne!(plan(&input, 7), plan(&input, 8));
    }

    #[test]
    fn no_step_breaks_a_rule_of_the_order() {
        let input = tpch::generate(3_000, 1);
        #[derive(Default)]
        struct Seen {
            placed: bool,
            paid: i64,
            cancelled: bool,
            shipped: bool,
        }
        let mut seen: HashMap<usize, Seen> = HashMap::new();
        for step in plan(&input, 1) {
            let total = input.orders[step.order].total_cents;
            let order = seen.entry(step.order).or_default();
            match step.action {
                Action::Place => {
                    assert!(!order.placed);
                    order.placed = true;
                }
                Action::Pay { amount_cents } => {
                    assert!(order.placed && !order.cancelled && amount_cents > 0);
                    order.paid += amount_cents;
                    assert!(order.paid <= total, "overpaid");
                }
                Action::FailPayment { .. } => assert!(order.placed && order.paid == 0),
                Action::Refund { amount_cents } => assert!(order.paid >= amount_cents),
                Action::Cancel { .. } => {
                    assert!(order.placed && !order.shipped && !order.cancelled);
                    order.cancelled = true;
                }
                Action::Ship { .. } => {
                    assert!(order.paid == total && !order.cancelled);
                    order.shipped = true;
                }
                Action::Deliver => assert!(order.shipped),
            }
        }
        assert_eq!(seen.len(), 3_000);
    }

    #[test]
    fn every_kind_of_step_occurs_and_the_default_demo_takes_about_two_minutes() {
        let input = tpch::generate(5_000, 1);
        let steps = plan(&input, 1);
        let verbs: HashSet<_> = steps.iter().map(|step| step.action.verb()).collect();
        assert_eq!(verbs.len(), 7);
        let seconds_at_default_rate = steps.len() / 100;
        assert!((100..150).contains(&seconds_at_default_rate), "{seconds_at_default_rate} s");
    }
}
