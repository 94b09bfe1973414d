//! Rollups: documents that add up what many aggregates bring.
//!
//! A program gives rows, as for facts; the fields named in `sum_by` make the document's key, all others are whole numbers (or
//! objects of such), and are added. Adding commutes, so the order among aggregates can't matter.
//!
//! **Slices.** A document keeps one sum for each source partition, beside that partition's progress when it was written: the
//! slice's **guard**. An event is added only if the guard doesn't cover it, so what is folded again after a crash, or written by
//! a former owner meanwhile, counts once. What readers see is the sum of the slices, rebuilt with each write. The document's
//! version counts its writes: each is a compare-and-set, so owners of different partitions never overwrite each other.
//!
//! **Parked events** were covered by guards without having been added. An event parked in this very batch is named in the
//! slice as `missing` until it is durably parked; its retry has a slice of its own, which knows it by its id.

use super::document::{Poison, rows};
use super::progress::{Occurrence, Progress, Seen, occurrence};
use super::{Event, Partition};
use crate::event::EventRef;
use crate::expr::{KeyString, Object, Program, Value};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// One addition to one document.
#[derive(Clone, Debug)]
pub(super) struct Addition {
    /// The fields of the key, which the document shows too.
    pub(super) labels: Object,
    amounts: Sums,
}

/// Whole numbers by field.
type Sums = BTreeMap<String, Amount>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Amount {
    Number(i64),
    Fields(Sums),
}

/// What one partition brought.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Slice {
    guard: Progress,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    missing: BTreeSet<Occurrence>,
    sums: Sums,
}

/// What retries of parked events brought.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Letters {
    ids: BTreeSet<Uuid>,
    sums: Sums,
}

/// The hidden state of a rollup's document.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Slices {
    slices: BTreeMap<String, Slice>,
    #[serde(default)]
    letters: Letters,
}

/// The additions of one event, by document: rows with the same key are added up first, for a document's guard is asked once.
pub(super) fn additions(
    program: &Program,
    sum_by: &[String],
    event: &Event,
    data: &Value,
) -> Result<BTreeMap<String, Addition>, Poison> {
    let mut additions: BTreeMap<String, Addition> = BTreeMap::new();
    for row in rows(program, event, data, None)? {
        let mut fields = row.fields.map(Arc::unwrap_or_clone).unwrap_or_default();
        let labels: Object = sum_by.iter().filter_map(|name| fields.remove_entry(name.as_str())).collect();
        let key = key(sum_by, &labels)?;
        let amounts = sums(fields)?;
        match additions.get_mut(&key) {
            Some(there) => add(&mut there.amounts, &amounts)?,
            None => _ = additions.insert(key, Addition { labels, amounts }),
        }
    }
    Ok(additions)
}

/// The document's key: the values of the `sum_by` fields. With several, each is escaped so that they can't run together.
fn key(sum_by: &[String], labels: &Object) -> Result<String, Poison> {
    let part = |name: &String| {
        let text = match labels.get(name.as_str()) {
            Some(Value::Bytes(text)) if !text.is_empty() => String::from_utf8_lossy(text).into_owned(),
            Some(Value::String(text)) if !text.is_empty() => text.to_string(),
            Some(Value::Integer(n)) => n.to_string(),
            Some(Value::Boolean(b)) => b.to_string(),
            _ => {
                return Err(Poison::NotAnAddition(format!(
                    "`{name}` makes the key and must be text or a number, not empty"
                )));
            }
        };
        Ok(if sum_by.len() == 1 { text } else { text.replace('%', "%25").replace(':', "%3A") })
    };
    Ok(sum_by.iter().map(part).collect::<Result<Vec<_>, _>>()?.join(":"))
}

fn sums(fields: Object) -> Result<Sums, Poison> {
    let amount = |(name, value): (KeyString, Value)| {
        let amount = match value {
            Value::Integer(n) => Amount::Number(n),
            Value::Object(fields) => Amount::Fields(sums(fields)?),
            other => {
                return Err(Poison::NotAnAddition(format!(
                    "`{name}` is {}: only whole numbers add up",
                    other.kind_str()
                )));
            }
        };
        Ok((name.to_string(), amount))
    };
    fields.into_iter().map(amount).collect()
}

fn add(to: &mut Sums, more: &Sums) -> Result<(), Poison> {
    for (name, amount) in more {
        match (to.get_mut(name), amount) {
            (None, amount) => _ = to.insert(name.clone(), amount.clone()),
            (Some(Amount::Number(a)), Amount::Number(b)) => {
                let overflow = || Poison::NotAnAddition(format!("`{name}` would leave the range of 64 bits"));
                *a = a.checked_add(*b).ok_or_else(overflow)?;
            }
            (Some(Amount::Fields(a)), Amount::Fields(b)) => add(a, b)?,
            (Some(_), _) => {
                return Err(Poison::NotAnAddition(format!("`{name}` is a number here and an object there")));
            }
        }
    }
    Ok(())
}

fn slice_name(partition: &Partition) -> String {
    format!("{}/{}", partition.topic, partition.number)
}

impl Slices {
    pub(super) fn read(state: Option<&Arc<str>>) -> Result<Self, String> {
        state.map_or(Ok(Self::default()), |text| {
            serde_json::from_str(text).map_err(|e| format!("the document's hidden state can't be read: {e}"))
        })
    }

    pub(super) fn write(&self) -> Arc<str> {
        // Maps with text keys and numbers: there is nothing in it that JSON lacks.
        serde_json::to_string(self).unwrap_or_default().into()
    }

    /// Whether the event is in the sums.
    pub(super) fn has(&self, partition: &Partition, event: &Event) -> bool {
        let reference = &event.envelope.reference;
        let in_slice = self.slices.get(&slice_name(partition)).is_some_and(|slice| {
            slice.guard.seen(reference) == Seen::Duplicate && !slice.missing.contains(&occurrence(reference))
        });
        in_slice || self.letters.ids.contains(&event.envelope.id)
    }

    /// Notes that the event isn't in the sums and won't be but by a retry.
    pub(super) fn mark(&mut self, partition: &Partition, event: &EventRef) {
        self.slices.entry(slice_name(partition)).or_default().missing.insert(occurrence(event));
    }

    /// Whether a parked event was added by a retry.
    pub(super) fn has_letter(&self, event: &Event) -> bool {
        self.letters.ids.contains(&event.envelope.id)
    }

    /// Adds an event to its partition's slice, and gives the document as readers see it; [`Slices::cover`] must follow.
    pub(super) fn add(&mut self, partition: &Partition, event: &EventRef, more: &Addition) -> Result<Object, Poison> {
        let name = slice_name(partition);
        let before = self.slices.entry(name.clone()).or_default().sums.clone();
        let added = self.slices.get_mut(&name).map_or(Ok(()), |slice| add(&mut slice.sums, &more.amounts));
        let document = added.and_then(|()| self.document(&more.labels));
        if let Some(slice) = self.slices.get_mut(&name) {
            if document.is_ok() {
                slice.missing.remove(&occurrence(event));
            } else {
                slice.sums = before;
            }
        }
        document
    }

    /// Adds a parked event.
    pub(super) fn add_letter(&mut self, id: Uuid, more: &Addition) -> Result<Object, Poison> {
        let before = self.letters.sums.clone();
        let document = add(&mut self.letters.sums, &more.amounts).and_then(|()| self.document(&more.labels));
        if document.is_ok() {
            self.letters.ids.insert(id);
        } else {
            self.letters.sums = before;
        }
        document
    }

    /// Lets the slice's guard cover `progress`, whose last new event is `last`, but for the events of `missing`. A guard that
    /// covers `last` already (a former owner was further) covers all before it, and stays; what was `added` is then named to it.
    pub(super) fn cover<'a>(
        &mut self,
        partition: &Partition,
        progress: &Progress,
        last: &EventRef,
        added: impl Iterator<Item = &'a EventRef>,
        missing: BTreeSet<Occurrence>,
    ) {
        let slice = self.slices.entry(slice_name(partition)).or_default();
        if slice.guard.seen(last) == Seen::Duplicate {
            added.for_each(|event| slice.guard.beside(event));
            slice.missing.extend(missing);
        } else {
            slice.guard = progress.clone();
            slice.missing = missing;
        }
    }

    /// What readers see.
    fn document(&self, labels: &Object) -> Result<Object, Poison> {
        let mut total = self.letters.sums.clone();
        for slice in self.slices.values() {
            add(&mut total, &slice.sums)?;
        }
        let mut fields = shown(total);
        fields.extend(labels.clone());
        Ok(fields)
    }
}

fn shown(sums: Sums) -> Object {
    let value = |amount| match amount {
        Amount::Number(n) => Value::Integer(n),
        Amount::Fields(sums) => Value::Object(shown(sums)),
    };
    sums.into_iter().map(|(name, amount)| (name.into(), value(amount))).collect()
}
