//! The orders of a bench, and their events as they come out of the outbox: made up, and always the same ones.
//!
//! Each order has five events and three or four lines: most have a line added, some have one removed, are paid, shipped and
//! delivered; every eighth is cancelled and refunded. Events come in the order of their times, as they would have happened: an
//! order's first three within minutes, its shipping a day and its delivery some days later, with those of thousands of others in
//! between. So what a batch can fold into one write is what it could fold in a real history.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Of each order.
pub(crate) const EVENTS_EACH: usize = 5;
/// 2026-01-01T00:00:00Z.
const BEGIN_S: i64 = 1_767_225_600;
/// One order after the other: 2,000 a day.
const SLOT: TimeDelta = TimeDelta::milliseconds(43_200);

/// How many orders there are, and of how many lines.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Data {
    pub(crate) orders: usize,
    /// In the end, give or take one.
    pub(crate) lines: usize,
}

impl Data {
    /// Orders as they are in real life.
    pub(crate) fn usual(orders: usize) -> Self {
        Self { orders, lines: 4 }
    }

    pub(crate) fn events(self) -> usize {
        self.orders * EVENTS_EACH
    }

    pub(crate) fn order(self, number: usize) -> Order {
        Order::new(number, self.lines)
    }

    pub(crate) fn all(self) -> impl Iterator<Item = Order> {
        (0..self.orders).map(move |number| self.order(number))
    }

    /// All events, in the order of their times: the order's number, and which of its events.
    pub(crate) fn timeline(self) -> Vec<(usize, usize)> {
        let events = (0..self.orders).flat_map(|number| {
            let changes = changes(number);
            (0..EVENTS_EACH).map(move |place| (number + changes[place].later(), number, place))
        });
        let mut events: Vec<_> = events.collect();
        events.sort_unstable();
        events.into_iter().map(|(_, number, place)| (number, place)).collect()
    }
}

/// What happens to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Placed,
    Added,
    Removed,
    Paid,
    Shipped,
    Delivered,
    Cancelled,
    Refunded,
}

impl Change {
    /// How many orders are placed between its order's placing and it.
    fn later(self) -> usize {
        match self {
            Self::Placed => 0,
            Self::Added | Self::Removed => 3,
            Self::Paid => 20,
            Self::Cancelled => 200,
            Self::Shipped | Self::Refunded => 2_000,
            Self::Delivered => 8_000,
        }
    }

    /// Its event's type.
    pub(crate) fn event_type(self) -> &'static str {
        match self {
            Self::Placed => "OrderPlaced",
            Self::Added => "ItemAdded",
            Self::Removed => "ItemRemoved",
            Self::Paid => "PaymentConfirmed",
            Self::Shipped => "OrderShipped",
            Self::Delivered => "OrderDelivered",
            Self::Cancelled => "OrderCancelled",
            Self::Refunded => "PaymentRefunded",
        }
    }
}

fn changes(number: usize) -> [Change; EVENTS_EACH] {
    use Change::{Added, Cancelled, Delivered, Paid, Placed, Refunded, Removed, Shipped};
    match number % 8 {
        0..=4 => [Placed, Added, Paid, Shipped, Delivered],
        5 | 6 => [Placed, Removed, Paid, Shipped, Delivered],
        _ => [Placed, Added, Paid, Cancelled, Refunded],
    }
}

/// A line of an order.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) item_id: Uuid,
    pub(crate) product_id: Uuid,
    pub(crate) product_name: String,
    pub(crate) quantity: i32,
    pub(crate) unit_price_cents: i64,
}

impl Line {
    pub(crate) fn total_cents(&self) -> i64 {
        i64::from(self.quantity) * self.unit_price_cents
    }
}

/// An order with all that ever happens to it.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) number: usize,
    pub(crate) id: Uuid,
    pub(crate) customer_id: Uuid,
    pub(crate) customer_name: String,
    pub(crate) currency: &'static str,
    pub(crate) city: &'static str,
    /// When it was placed.
    pub(crate) placed: Vec<Line>,
    /// Added or removed later.
    pub(crate) moved: Line,
    pub(crate) changes: [Change; EVENTS_EACH],
    /// So many of them have happened by the end.
    pub(crate) happened: usize,
}

impl Order {
    /// Whether this was among what has happened.
    pub(crate) fn has(&self, change: Change) -> bool {
        self.changes[..self.happened].contains(&change)
    }

    fn new(number: usize, lines: usize) -> Self {
        let (mut random, changes) = (Random::new(number), changes(number));
        let id = random.uuid();
        let customer = random.below(20_000);
        let mut placed: Vec<Line> = (1..lines.max(2)).map(|_| Line::new(&mut random)).collect();
        let moved = Line::new(&mut random);
        if changes.contains(&Change::Removed) {
            placed.insert(1, moved.clone());
        }
        Self {
            number,
            id,
            customer_id: Random::new(customer + 1_000_000_000).uuid(),
            customer_name: format!("{} {}", FIRST[customer % FIRST.len()], LAST[customer / FIRST.len() % LAST.len()]),
            currency: ["EUR", "USD", "CHF"][random.below(3)],
            city: ["Zurich", "Turin", "Lyon", "Graz"][random.below(4)],
            placed,
            moved,
            changes,
            happened: EVENTS_EACH,
        }
    }

    /// The sum of its lines when it was placed.
    pub(crate) fn placed_cents(&self) -> i64 {
        self.placed.iter().map(Line::total_cents).sum()
    }

    /// When the event of this place happened.
    pub(crate) fn at(&self, place: usize) -> DateTime<Utc> {
        let slot = i32::try_from(self.number + self.changes[place].later()).unwrap_or(i32::MAX);
        let within = TimeDelta::microseconds(123 + i64::try_from(place).unwrap_or(0) * 1_000);
        DateTime::from_timestamp(BEGIN_S, 0).unwrap_or_default() + SLOT * slot + within
    }
}

impl Line {
    fn new(random: &mut Random) -> Self {
        let product = random.below(5_000);
        Self {
            item_id: random.uuid(),
            product_id: Random::new(product + 2_000_000_000).uuid(),
            product_name: format!(
                "{} {}",
                MADE_OF[product % MADE_OF.len()],
                THING[product / MADE_OF.len() % THING.len()]
            ),
            quantity: 1 + i32::try_from(random.below(4)).unwrap_or(0),
            unit_price_cents: 500 + i64::try_from(random.below(20_000)).unwrap_or(0),
        }
    }
}

const FIRST: [&str; 16] = [
    "Ada", "Alan", "Barbara", "Edsger", "Frances", "Grace", "Hedy", "John", "Kathleen", "Leslie", "Margaret",
    "Niklaus", "Radia", "Robin", "Shafi", "Tony",
];
const LAST: [&str; 12] = [
    "Allen", "Booth", "Dijkstra", "Hamilton", "Hoare", "Hopper", "Lamport", "Liskov", "Lovelace", "Milner", "Perlman",
    "Wirth",
];
const MADE_OF: [&str; 8] = ["Copper", "Oak", "Linen", "Glass", "Steel", "Clay", "Wool", "Brass"];
const THING: [&str; 16] = [
    "kettle", "lamp", "desk", "chair", "bowl", "curtain", "shelf", "clock", "mirror", "vase", "rug", "bench", "tray",
    "jug", "frame", "stool",
];

/// SplitMix64, from a number.
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        Self((seed as u64).wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }

    fn uuid(&mut self) -> Uuid {
        let (high, low) = (self.next(), self.next());
        uuid::Builder::from_random_bytes(Uuid::from_u64_pair(high, low).into_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_times_and_each_orders_in_its_own() {
        let data = Data::usual(500);
        let timeline = data.timeline();
        assert_eq!(timeline.len(), 500 * EVENTS_EACH);
        let mut seen = vec![0; 500];
        let mut last = DateTime::UNIX_EPOCH;
        for (number, place) in timeline {
            assert_eq!(seen[number], place);
            seen[number] += 1;
            let at = data.order(number).at(place) - TimeDelta::microseconds(i64::try_from(place).unwrap_or(0) * 1_000);
            assert!(at >= last);
            last = at;
        }
    }

    #[test]
    fn an_order_is_always_the_same() {
        let data = Data::usual(10);
        assert_eq!(format!("{:?}", data.order(7)), format!("{:?}", data.order(7)));
        assert_ne!(data.order(7).id, data.order(8).id);
    }
}
