//! What happened: transactions that overlap, written to three partitions in commit order, with what a real log adds to that.
//! And what the read model must be after all of it, said as plainly as possible and without the core ([`Oracle`]).

use projector::apply::{Delivery, Event};
use projector::event::{Envelope, EventRef, Raw, TxSnapshot};
use projector::expr::{Object, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

pub const PARTITIONS: usize = 3;
const EVENTS: usize = 200;
/// An event with so many days is refused by the store.
pub const REFUSED: i64 = 13;

/// xorshift64*: small, seeded, good enough to choose faults.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    /// Others, which leave these as they are.
    fn apart(&self) -> Self {
        Self::new(!self.0)
    }
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % n
    }
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// One event as the oracle knows it.
#[derive(Clone, Debug)]
pub struct Fact {
    pub id: Uuid,
    pub loan: String,
    pub sequence: i64,
    /// None where the read model doesn't take it.
    pub days: Option<i64>,
    /// Its payload can't be read.
    pub garbled: bool,
}

pub struct World {
    /// Each partition's messages.
    pub log: Vec<Vec<Delivery>>,
    /// Each partition's events in commit order, once: what a republished topic brings.
    pub first: Vec<Vec<Event>>,
    pub facts: Vec<Fact>,
    /// Events that came too late, or never: what waited for them is named, and may be lacking.
    pub disturbed: BTreeSet<String>,
    pub epochs: Vec<Arc<str>>,
}

pub fn world(dice: &mut Dice, reached: &mut BTreeSet<&'static str>) -> World {
    let loans = 5 + dice.below(15);
    let mut sequences = vec![0_i64; loans];
    let (mut first, mut facts) = (vec![Vec::new(); PARTITIONS], Vec::new());
    let (mut running, mut next_txid): (Vec<(u64, Vec<usize>)>, u64) = (Vec::new(), 1_000);
    let mut epochs: Vec<Arc<str>> = vec!["e1".into()];
    let fail_over = if dice.one_in(4) { 60 + dice.below(100) } else { usize::MAX };
    let (poison, garbled) = (dice.below(3), dice.below(2));
    let mut written = 0;
    // Who carries a snapshot, and until when the first transaction stays open.
    let mut apart = dice.apart();
    let (carried, long) = ([0, 50, 100][apart.below(3)], if apart.one_in(3) { 50 + apart.below(EVENTS) } else { 0 });
    let mut ended = 0;
    // A transaction takes its id, and may wait; it writes and commits when it is picked. Each loan is written by one at a time.
    while written < EVENTS || !running.is_empty() {
        if written >= fail_over && running.is_empty() && epochs.len() == 1 {
            // Transaction ids begin again, below those that were used.
            epochs.push("e2".into());
            (next_txid, ended) = (900, 0);
            reached.insert("txid reuse in a new epoch");
        }
        let closing = written >= fail_over && epochs.len() == 1;
        if written < EVENTS && !closing && (running.is_empty() || dice.one_in(2)) {
            let mine: Vec<usize> = (0..=dice.below(2)).map(|_| dice.below(loans)).collect();
            if running.iter().all(|(_, busy)| busy.iter().all(|loan| !mine.contains(loan))) {
                running.push((next_txid, mine));
                next_txid += 1 + dice.below(2) as u64;
                continue;
            }
        }
        if running.is_empty() {
            continue;
        }
        let tx_min = running.iter().map(|(txid, _)| *txid).min().unwrap();
        let stays = usize::from(written < EVENTS.min(long) && !closing);
        if running.len() == stays {
            continue;
        }
        let picked = stays + dice.below(running.len() - stays);
        let (txid, mine) = running.swap_remove(picked);
        let snapshot = (apart.below(100) < carried).then(|| {
            // As Postgres has it: up to the last one that has ended, without one's own.
            let end = tx_min.max(ended + 1);
            let others: Vec<u64> = running.iter().map(|(other, _)| *other).filter(|other| *other < end).collect();
            reached.insert("snapshot");
            if others.iter().any(|other| other + 40 < end) {
                reached.insert("snapshot beside a long transaction");
            }
            Arc::new(TxSnapshot::new(end, others))
        });
        ended = txid.max(ended);
        for loan in mine {
            sequences[loan] += 1;
            let name = format!("loan-{loan}");
            let mut days = i64::try_from(dice.below(12)).unwrap();
            if poison > 0 && dice.one_in(50) {
                days = REFUSED;
            }
            let fact = Fact {
                id: Uuid::from_u64_pair(written as u64, next_txid ^ (loan as u64) << 32),
                loan: name,
                sequence: sequences[loan],
                days: (sequences[loan] == 1 || sequences[loan] % 4 != 3).then_some(days),
                garbled: garbled > 0 && sequences[loan] % 4 != 3 && dice.one_in(80),
            };
            let reference = EventRef {
                epoch: Arc::clone(epochs.last().unwrap()),
                txid,
                tx_min,
                snapshot: snapshot.clone(),
                aggregate_id: fact.loan.as_str().into(),
                sequence: fact.sequence,
            };
            first[loan % PARTITIONS].push(event(&fact, reference));
            facts.push(fact);
            written += 1;
        }
    }
    let mut disturbed = BTreeSet::new();
    let log = first.iter().map(|events| {
        let mut events = events.clone();
        if dice.one_in(3) {
            disturb(dice, &mut events, &mut disturbed, &mut facts, reached);
        }
        deliveries(resend(dice, events, reached))
    });
    let log = log.collect();
    World { log, first, facts, disturbed, epochs }
}

impl World {
    /// A partition's events as another than the connector sends them again: without snapshots.
    pub fn sent_again(&self, p: usize) -> Vec<Event> {
        let mut events = self.first[p].clone();
        events.iter_mut().for_each(|event| event.envelope.reference.snapshot = None);
        events
    }

    /// One in which nothing but time and hosts is at fault.
    pub fn orderly(dice: &mut Dice) -> Self {
        loop {
            let world = world(dice, &mut BTreeSet::new());
            let good = |fact: &Fact| !fact.garbled && fact.days != Some(REFUSED);
            if world.disturbed.is_empty() && world.epochs.len() == 1 && world.facts.iter().all(good) {
                return world;
            }
        }
    }

    /// Makes every fourth loan a member.
    pub fn with_members(&mut self) {
        let logged = self.log.iter_mut().flatten().filter_map(|delivery| delivery.event.as_mut().ok());
        for event in logged.map(Box::as_mut).chain(self.first.iter_mut().flatten()) {
            if super::is_member(&event.envelope.reference.aggregate_id) && event.data.is_some() {
                let first = event.envelope.reference.sequence == 1;
                event.envelope.event_type = if first { "Joined" } else { "Renamed" }.into();
                event.envelope.aggregate_type = "member".into();
            }
        }
    }
}

fn event(fact: &Fact, reference: EventRef) -> Event {
    let event_type = match (fact.sequence, fact.days) {
        (1, _) => "Borrowed",
        (_, None) => "Inspected",
        _ => "Renewed",
    };
    let data = fact.days.map(|days| {
        if fact.garbled {
            return Err("it is garbled".to_owned());
        }
        Ok(Value::Object(Object::from([("title".into(), "t".into()), ("days".into(), Value::Integer(days))])))
    });
    let occurred_at = chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(fact.sequence);
    let envelope = Envelope {
        id: fact.id,
        event_type: event_type.into(),
        schema_version: 1,
        aggregate_type: "loan".into(),
        reference,
        occurred_at,
        metadata: None,
    };
    Event { envelope, data }
}

/// Delays one event beyond others, or loses it.
fn disturb(
    dice: &mut Dice,
    events: &mut Vec<Event>,
    disturbed: &mut BTreeSet<String>,
    facts: &mut Vec<Fact>,
    reached: &mut BTreeSet<&'static str>,
) {
    let at = dice.below(events.len());
    let late = events.remove(at);
    disturbed.insert(late.envelope.reference.aggregate_id.to_string());
    if dice.one_in(2) {
        reached.insert("event lost before the log");
        facts.retain(|fact| fact.id != late.envelope.id);
    } else {
        reached.insert("event late in the log");
        events.insert((at + 1 + dice.below(12)).min(events.len()), late);
    }
}

fn resend(dice: &mut Dice, events: Vec<Event>, reached: &mut BTreeSet<&'static str>) -> Vec<Event> {
    let mut sent: Vec<Event> = Vec::new();
    for event in events {
        sent.push(event);
        if dice.one_in(15) {
            reached.insert("window sent again");
            let from = sent.len().saturating_sub(1 + dice.below(12));
            sent.extend_from_within(from..);
        }
    }
    sent
}

pub fn deliveries(events: Vec<Event>) -> Vec<Delivery> {
    (0..)
        .zip(events)
        .map(|(offset, event)| Delivery { offset, raw: Raw::default(), event: Ok(Box::new(event)) })
        .collect()
}

/// What the documents must be: worked out from the facts, in commit order, one by one.
pub struct Oracle {
    /// By loan: the sequences folded since it was last deleted, and their days.
    pub loans: BTreeMap<String, (Vec<i64>, i64)>,
    /// By event: its days.
    pub rows: BTreeMap<Uuid, i64>,
    /// By shelf: how many events, and their days.
    pub shelves: BTreeMap<String, (i64, i64)>,
}

impl Oracle {
    /// All facts but those that operators gave up: these count where they had been added already.
    pub fn new(world: &World, skipped: &BTreeMap<Uuid, BTreeSet<String>>) -> Self {
        let mut oracle = Self { loans: BTreeMap::new(), rows: BTreeMap::new(), shelves: BTreeMap::new() };
        for fact in &world.facts {
            let Some(days) = fact.days else { continue };
            let skipped = skipped.get(&fact.id);
            for shelf in ["all".to_owned(), format!("shelf {}", days % 3)] {
                if skipped.is_none_or(|done| done.contains(&shelf)) {
                    let (n, sum) = oracle.shelves.entry(shelf).or_default();
                    *n += 1;
                    *sum += days;
                }
            }
            if skipped.is_some() {
                continue;
            }
            oracle.rows.insert(fact.id, days);
            if days == 0 {
                oracle.loans.remove(&fact.loan);
                continue;
            }
            let (history, sum) = oracle.loans.entry(fact.loan.clone()).or_default();
            history.push(fact.sequence);
            *sum += days;
        }
        oracle
    }
}
