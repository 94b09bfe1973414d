//! Which commands, in which order: decided beforehand, from the input and the seed alone.
//!
//! Time in here is counted in orders (order `i` is placed at `i`); what follows an order comes some tens to
//! hundreds of orders later, so that thousands of orders are alive at once and their commands interleave. What happens beside orders
//! (accounts, customers, products) is sprinkled in between. The drive then gives the i-th step of the sorted plan the i-th slot for commands.

use super::{
    rng::Rng,
    tpch::{FIRST_NAMES, Input, LAST_NAMES},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// The order's place in the input, where it is about one: its steps wait for each other.
    pub(super) order: Option<usize>,
    pub(super) action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Place,
    AddItem {
        product: usize,
        quantity: i64,
    },
    /// Takes out what was added.
    RemoveAdded,
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
    /// Accounts go by their customers' places in the input, as products go by theirs.
    Deposit {
        account: usize,
        amount_cents: i64,
    },
    Withdraw {
        account: usize,
        amount_cents: i64,
    },
    Transfer {
        from: usize,
        to: usize,
        amount_cents: i64,
    },
    Rename {
        customer: usize,
        first: &'static str,
        last: &'static str,
    },
    Describe {
        product: usize,
        description: String,
    },
    Restock {
        product: usize,
        delta: i64,
    },
    Review {
        product: usize,
        customer: usize,
        rating: u64,
    },
}

impl Action {
    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::AddItem { .. } => "add item",
            Self::RemoveAdded => "remove item",
            Self::Pay { .. } => "pay",
            Self::FailPayment { .. } => "fail payment",
            Self::Refund { .. } => "refund",
            Self::Cancel { .. } => "cancel",
            Self::Ship { .. } => "ship",
            Self::Deliver => "deliver",
            Self::Deposit { .. } => "deposit",
            Self::Withdraw { .. } => "withdraw",
            Self::Transfer { .. } => "transfer",
            Self::Rename { .. } => "rename customer",
            Self::Describe { .. } => "describe product",
            Self::Restock { .. } => "restock product",
            Self::Review { .. } => "review product",
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
        let mut life = vec![Action::Place];
        let total_cents = content.total_cents + change_items(&mut life, input, &mut rng);
        fate(&mut life, total_cents, &mut rng);
        for action in life {
            timed.push((at, Step { order: Some(order), action }));
            at += GAP_ORDERS_MIN + rng.below(GAP_ORDERS_SPREAD);
        }
        timed.extend(beside(input, &mut rng).map(|action| (order as u64, Step { order: None, action })));
    }
    // stable: at one time, in order of placing
    timed.sort_by_key(|(at, _)| *at);
    timed.into_iter().map(|(_, step)| step).collect()
}

/// Something may join an order, and may leave it again. Gives what that adds to the total.
fn change_items(life: &mut Vec<Action>, input: &Input, rng: &mut Rng) -> i64 {
    if !rng.chance(10) {
        return 0;
    }
    let (product, quantity) = (rng.below(input.products.len() as u64) as usize, 1 + rng.below(3).cast_signed());
    life.push(Action::AddItem { product, quantity });
    if rng.chance(40) {
        life.push(Action::RemoveAdded);
        return 0;
    }
    input.products[product].price_cents * quantity
}

/// What happens while an order is placed, and has nothing to do with it. Amounts are small beside what accounts begin with, and more
/// comes in than goes out, so that nothing is refused.
fn beside(input: &Input, rng: &mut Rng) -> impl Iterator<Item = Action> + use<> {
    let one = |rng: &mut Rng| rng.below(input.customers.len() as u64) as usize;
    let product = |rng: &mut Rng| rng.below(input.products.len() as u64) as usize;
    let cents = |rng: &mut Rng, from: u64, to: u64| (from + rng.below(to - from)).cast_signed();
    let money = rng.chance(40).then(|| match rng.below(10) {
        0..4 => Action::Deposit { account: one(rng), amount_cents: cents(rng, 500, 2_500) },
        4..7 => Action::Withdraw { account: one(rng), amount_cents: cents(rng, 100, 1_000) },
        _ => {
            let from = one(rng);
            let others = input.customers.len() as u64 - 1;
            let to = (from + 1 + rng.below(others) as usize) % input.customers.len();
            Action::Transfer { from, to, amount_cents: cents(rng, 100, 500) }
        }
    });
    let change = match rng.below(100) {
        0..4 => Some(Action::Rename { customer: one(rng), first: rng.pick(&FIRST_NAMES), last: rng.pick(&LAST_NAMES) }),
        4..7 => {
            let product = product(rng);
            let description = format!("{}, edition {}", input.products[product].description, rng.below(1_000));
            Some(Action::Describe { product, description })
        }
        7..10 => Some(Action::Restock { product: product(rng), delta: cents(rng, 1, 50) }),
        10..15 => Some(Action::Review { product: product(rng), customer: one(rng), rating: 1 + rng.below(5) }),
        _ => None,
    };
    money.into_iter().chain(change)
}

/// What becomes of an order, from its first payment on.
fn fate(life: &mut Vec<Action>, total_cents: i64, rng: &mut Rng) {
    let cancel = |rng: &mut Rng| Action::Cancel { reason: rng.pick(&REASONS[..]) };
    let fate = rng.below(100);
    if fate < 6 {
        return; // never paid
    }
    if fate < 12 {
        life.push(cancel(rng));
        return;
    }
    if fate < 14 {
        // a part is paid, the rest never: stays pending
        life.push(Action::Pay { amount_cents: total_cents / 3 });
        return;
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
            added: i64,
            paid: i64,
            cancelled: bool,
            shipped: bool,
        }
        let mut seen: HashMap<usize, Seen> = HashMap::new();
        for step in plan(&input, 1) {
            let Some(order) = step.order else { continue };
            let total = input.orders[order].total_cents;
            let order = seen.entry(order).or_default();
            let total = total + order.added;
            match step.action {
                Action::Place => {
                    assert!(!order.placed);
                    order.placed = true;
                }
                Action::AddItem { product, quantity } => {
                    assert!(order.placed && order.paid == 0 && !order.cancelled && quantity > 0);
                    order.added = input.products[product].price_cents * quantity;
                }
                Action::RemoveAdded => {
                    assert!(order.added > 0 && order.paid == 0);
                    order.added = 0;
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
                other => panic!("{other:?} is not an order's"),
            }
        }
        assert_eq!(seen.len(), 3_000);
    }

    #[test]
    fn no_account_is_overdrawn_in_whatever_order_its_commands_come() {
        let input = tpch::generate(20_000, 1);
        // What the set-up leaves on each, and on the worst of ways: all that goes out before anything comes in.
        let mut least = vec![33_200_i64; input.customers.len()];
        let steps = plan(&input, 1);
        for window in steps.chunks(5_000) {
            let mut out = vec![0; least.len()];
            for step in window {
                match step.action {
                    Action::Withdraw { account, amount_cents } => out[account] += amount_cents,
                    Action::Transfer { from, to, amount_cents } => {
                        assert_ne!(from, to);
                        out[from] += amount_cents;
                    }
                    _ => {}
                }
            }
            assert!(least.iter().zip(&out).all(|(balance, out)| balance >= out));
            for step in window {
                match step.action {
                    Action::Deposit { account, amount_cents } => least[account] += amount_cents,
                    Action::Withdraw { account, amount_cents } => least[account] -= amount_cents,
                    Action::Transfer { from, to, amount_cents } => {
                        least[from] -= amount_cents;
                        least[to] += amount_cents;
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn every_kind_of_step_occurs_and_the_default_demo_takes_about_two_minutes() {
        let input = tpch::generate(5_000, 1);
        let steps = plan(&input, 1);
        let verbs: HashSet<_> = steps.iter().map(|step| step.action.verb()).collect();
        assert_eq!(verbs.len(), 16);
        let seconds_at_its_rate = steps.len() / 100;
        assert!((100..170).contains(&seconds_at_its_rate), "{seconds_at_its_rate} s");
    }
}
