//! What a batch has to look up before it can be folded; whoever drives it finds the answers.
//!
//! An event whose lookup fails is blamed for it only when it is folded: one that its document has already needs no answer.

use super::fold::describe;
use super::{Batch, Event, Item, Place, Plan, Share};
use crate::expr::{Object, Value};
use crate::projection::Missing;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What of one lookup is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which of the projection's lookups.
    pub lookup: usize,
    /// Its keys, each once.
    pub keys: Vec<String>,
}

/// What an event's program sees beside it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    values: Object,
    /// Why it can't be folded.
    missed: Option<String>,
    /// It may be found later.
    waits: bool,
}

/// What was found, by lookup and key.
type Found = HashMap<usize, BTreeMap<String, Option<Object>>>;

impl Batch {
    /// What must be found before [`Batch::keys`] means anything; [`Batch::told`] takes the answers. Nothing once that was called.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        if !self.asking || self.compiled.lookups.is_empty() {
            return Vec::new();
        }
        let mut keys: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for item in self.shares.iter().flat_map(|share| &share.items) {
            let Some((event, data)) = asking(item) else { continue };
            for &lookup in self.compiled.asks(&event.envelope.event_type) {
                // What is no key is found out when the event is folded.
                keys.entry(lookup).or_default().extend(self.compiled.lookups[lookup].keys(data).unwrap_or_default());
            }
        }
        keys.into_iter().map(|(lookup, keys)| Question { lookup, keys: keys.into_iter().collect() }).collect()
    }

    /// Takes what was found: for each question, what each of its keys has.
    pub fn told(&mut self, answers: Vec<(Question, Vec<Option<Object>>)>) {
        let found: Found = answers
            .into_iter()
            .map(|(question, found)| (question.lookup, question.keys.into_iter().zip(found).collect()))
            .collect();
        for p in 0..self.shares.len() {
            let of = |(i, item)| Some((i, self.answer(item, &found)?));
            self.shares[p].looked_up = self.shares[p].items.iter().enumerate().filter_map(of).collect();
        }
        self.sort();
    }

    fn answer(&self, item: &Item, found: &Found) -> Option<Answer> {
        let (event, data) = asking(item)?;
        let asks = self.compiled.asks(&event.envelope.event_type);
        let mut answer = Answer::default();
        for &n in asks {
            let lookup = &self.compiled.lookups[n];
            let keys = match lookup.keys(data) {
                Ok(keys) => keys,
                Err(reason) => return Some(Answer { missed: Some(reason), ..answer }),
            };
            let mut values = BTreeMap::new();
            for key in keys {
                let there = found.get(&n).and_then(|found| found.get(&key)).and_then(Option::as_ref);
                let value = match there.map(|there| lookup.read(&key, there)).transpose() {
                    Ok(read) => read.flatten(),
                    Err(reason) => return Some(Answer { missed: Some(reason), ..answer }),
                };
                match value {
                    Some(fields) => _ = values.insert(key, Value::Object(fields)),
                    None if lookup.missing == Missing::Null => _ = values.insert(key, Value::Null),
                    None => {
                        answer.missed = Some(format!("lookup `{}`: nothing is found under `{key}`", lookup.name));
                        answer.waits = lookup.missing == Missing::Wait;
                        return Some(answer);
                    }
                }
            }
            answer.values.insert(lookup.name.as_ref().into(), lookup.value(values));
        }
        (!asks.is_empty()).then_some(answer)
    }

    /// What an item's program sees beside its event.
    pub(super) fn looked_up(&self, (p, i): Place) -> Result<Option<&Object>, String> {
        let share = &self.shares[p];
        share.items[i].delivery.event.as_ref().map_or(Ok(None), |event| share.looked_up(i, event))
    }
}

impl Share {
    pub(super) fn looked_up(&self, i: usize, event: &Event) -> Result<Option<&Object>, String> {
        let Some(answer) = self.looked_up.get(&i) else { return Ok(None) };
        match &answer.missed {
            Some(reason) => Err(describe(event, reason)),
            None => Ok(Some(&answer.values)),
        }
    }

    /// Whether what an item lacks may be found later.
    pub(super) fn waits_to_find(&self, i: usize) -> bool {
        self.looked_up.get(&i).is_some_and(|answer| answer.waits)
    }
}

/// An event that is to be folded, with its data.
fn asking(item: &Item) -> Option<(&Event, &Object)> {
    let event = item.taken().filter(|_| item.plan == Plan::Fold)?;
    match &event.data {
        Some(Ok(Value::Object(data))) => Some((event, data)),
        _ => None,
    }
}
