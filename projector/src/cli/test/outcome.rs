//! What a test's events come to, by several ways of delivering them.

use crate::apply::{Delivery, Event, Partition};
use crate::event::Raw;
use crate::expr::json;
use crate::projection::{Compiled, ReadModelKind};
use crate::verbs::given::Given;
use crate::verbs::memory::{Answers, Halt, Memory};
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use uuid::Uuid;

/// What there is after all events.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// By key; what was deleted isn't here.
    pub(super) documents: BTreeMap<String, Json>,
    /// In the order of their events (facts).
    pub(super) rows: Vec<Json>,
    /// In the order of the given events.
    pub(super) letters: Vec<Letter>,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Letter {
    pub(super) event: String,
    pub(super) of: String,
    /// None where it only waits behind an earlier one of its aggregate.
    pub(super) reason: Option<String>,
}

/// How events are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As given, each a batch of its own.
    OneByOne,
    /// All in one batch.
    OneBatch,
    /// Each twice, and then all once more, as after a crash.
    Twice,
    /// Aggregate after aggregate, from the last one to the first.
    OtherOrder,
}

impl Way {
    /// All ways but the plain one, which the others must agree with.
    pub(super) const OTHERS: [Self; 3] = [Self::OneBatch, Self::Twice, Self::OtherOrder];

    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::OneByOne => "delivered one by one",
            Self::OneBatch => "delivered in one batch",
            Self::Twice => "delivered twice",
            Self::OtherOrder => "delivered with the aggregates in another order",
        }
    }
}

/// Delivers the events, and gives what they come to.
pub(super) async fn run(compiled: &Arc<Compiled>, given: &Given, way: Way) -> Result<Outcome, Halt> {
    let events = &given.events;
    let mut memory = Memory::new(Arc::clone(compiled), Answers::Given(given.looked_up.clone())).await?;
    let log = log(arrange(events, way));
    let batches: Vec<Vec<Event>> = match way {
        Way::OneByOne | Way::OtherOrder => log.into_iter().map(|event| vec![event]).collect(),
        Way::OneBatch => vec![log],
        Way::Twice => {
            let twice = log.iter().map(|event| vec![event.clone(), event.clone()]);
            twice.chain([log.clone()]).collect()
        }
    };
    for batch in batches {
        let mut offsets: HashMap<Partition, i64> = HashMap::new();
        let messages = batch.into_iter().map(|event| {
            let topic = format!("events.{}", event.envelope.aggregate_type);
            let partition = Partition { topic: topic.into(), number: 0 };
            let next = offsets.entry(partition.clone()).or_insert_with(|| memory.next_offset(&partition));
            let offset = *next;
            *next += 1;
            (partition, delivery(offset, event))
        });
        let messages = messages.collect();
        memory.take(messages).await?;
    }
    memory.give_up().await?;
    Ok(outcome(compiled, &memory))
}

fn delivery(offset: i64, event: Event) -> Delivery {
    let headers: [(&str, &[u8]); 0] = [];
    let raw = Raw::new(Some(event.envelope.reference.aggregate_id.as_bytes()), &headers, None);
    Delivery { offset, raw, event: Ok(Box::new(event)) }
}

fn arrange(events: &[Event], way: Way) -> Vec<Event> {
    if way != Way::OtherOrder {
        return events.to_vec();
    }
    let of = |event: &Event| (event.envelope.aggregate_type.clone(), event.envelope.reference.aggregate_id.clone());
    let mut aggregates: Vec<_> = events.iter().map(of).collect();
    let mut seen = std::collections::HashSet::new();
    aggregates.retain(|aggregate| seen.insert(aggregate.clone()));
    let one = |aggregate| events.iter().filter(move |event| of(event) == aggregate).cloned();
    aggregates.into_iter().rev().flat_map(one).collect()
}

/// Gives the events their places in the order of commits: each is a transaction of its own. One that comes again keeps its own.
fn log(mut events: Vec<Event>) -> Vec<Event> {
    let mut places: HashMap<Uuid, u64> = HashMap::new();
    for event in &mut events {
        let next = u64::try_from(places.len()).unwrap_or(u64::MAX) + 1;
        let txid = *places.entry(event.envelope.id).or_insert(next);
        (event.envelope.reference.txid, event.envelope.reference.tx_min) = (txid, txid);
    }
    events
}

fn outcome(compiled: &Compiled, memory: &Memory) -> Outcome {
    let fields = |stored: crate::sink::Stored| stored.fields.map(|fields| Json::Object(json::object_to_json(&fields)));
    let documents = memory.documents().into_iter().filter_map(|(key, stored)| Some((key, fields(stored)?)));
    let mut outcome = Outcome::default();
    if compiled.kind == ReadModelKind::Facts {
        let mut rows: Vec<_> = documents.map(|(key, row)| (row_number(&key), row)).collect();
        rows.sort_by_key(|(number, _)| *number);
        outcome.rows = rows.into_iter().map(|(_, row)| row).collect();
    } else {
        outcome.documents = documents.collect();
    }
    let mut letters: Vec<_> =
        memory.parked().iter().filter_map(|p| Some((p.delivery.event.as_ref().ok()?, &p.reason))).collect();
    letters.sort_by_key(|(event, _)| event.envelope.id);
    letters.dedup_by_key(|(event, _)| event.envelope.id);
    outcome.letters = letters
        .into_iter()
        .map(|(event, reason)| Letter {
            event: event.envelope.event_type.to_string(),
            of: event.envelope.reference.aggregate_id.to_string(),
            reason: reason.clone(),
        })
        .collect();
    outcome
}

/// A row's place, from its id: its event's number, its own among the event's.
fn row_number(key: &str) -> (u128, usize) {
    let (event, row) = key.split_once('/').unwrap_or((key, "0"));
    (event.parse::<Uuid>().unwrap_or_default().as_u128(), row.parse().unwrap_or_default())
}
