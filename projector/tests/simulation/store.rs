//! The store, and where progress and dead letters are kept: all that outlives a crash.

use super::world::REFUSED;
use projector::apply::{Outcome, Parked, Partition, Progress, Stored, Write};
use projector::projection::ReadModelKind;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A dead letter as the control store keeps it.
#[derive(Clone, Debug)]
pub struct Letter {
    pub parked: Parked,
    pub position: u64,
    pub done: BTreeSet<String>,
    pub skip: bool,
}

pub fn letter_id(parked: &Parked) -> Uuid {
    parked.delivery.event.as_ref().map(|event| event.envelope.id).unwrap_or_default()
}

#[derive(Clone, Default)]
pub struct Store {
    pub documents: BTreeMap<String, Stored>,
    /// By document: the parents that it names.
    pub parents: BTreeMap<String, Vec<String>>,
    pub progress: BTreeMap<Partition, Progress>,
    pub letters: BTreeMap<Uuid, Letter>,
    pub fences: BTreeMap<Partition, i64>,
    /// Letters that had a reason when they were parked.
    pub loud: BTreeSet<Uuid>,
    pub positions: u64,
    pub settled: BTreeSet<Uuid>,
    /// Letters that came back.
    pub parked_again: BTreeSet<Uuid>,
    /// The store refuses poison content until it is healed.
    pub healed: bool,
    /// Progress may be saved with writes, in one step.
    pub transactional: bool,
    /// Mutations: see the list in `main.rs`.
    pub unconditional: bool,
    pub forgetful: bool,
    pub unfenced: bool,
}

impl Store {
    pub fn write(&mut self, kind: ReadModelKind, write: &Write) -> Outcome {
        let refused =
            |value: Option<&projector::expr::Value>| value.and_then(|v| v.as_integer()).is_some_and(|n| n > 0);
        let fields = write.fields.as_ref();
        if !self.healed && fields.is_some_and(|fields| refused(fields.get("bad"))) {
            return Outcome::Rejected(format!("{REFUSED} days"));
        }
        let facts = kind == ReadModelKind::Facts;
        let newer = self.documents.get(&write.key).is_some_and(|d| d.version >= write.version);
        if newer && !facts && !self.unconditional {
            return Outcome::Stale;
        }
        // As a store that is given only what changed.
        let held = self.documents.get(&write.key).cloned().unwrap_or_default();
        let Some(mut stored) = write.stored_over(&held) else { return Outcome::Stale };
        if self.forgetful && write.changed.is_some() {
            stored.fields = held.fields;
        }
        self.documents.insert(write.key.clone(), stored);
        self.parents.insert(write.key.clone(), write.parents.clone());
        Outcome::Written
    }

    pub fn children(&self, parent: &str, after: Option<&str>, limit: usize) -> Vec<String> {
        let behind = |key: &&String| after.is_none_or(|after| key.as_str() > after);
        let names = self.parents.iter().filter(|(_, parents)| parents.iter().any(|name| name == parent));
        names.map(|(key, _)| key).filter(behind).take(limit).cloned().collect()
    }

    pub fn claim(&mut self, partition: &Partition) -> i64 {
        let fence = self.fences.entry(partition.clone()).or_default();
        *fence += 1;
        *fence
    }

    /// Whether the progress was taken.
    pub fn save(&mut self, partition: &Partition, progress: &Progress) -> bool {
        let taken = self.unfenced || self.progress.get(partition).is_none_or(|saved| saved.fence <= progress.fence);
        if taken {
            self.progress.insert(partition.clone(), progress.clone());
        }
        taken
    }

    /// Whether the owner may still park.
    pub fn park(&mut self, fence: i64, parked: &[Parked]) -> bool {
        for one in parked {
            if !self.unfenced && self.fences.get(&one.partition) != Some(&fence) {
                return false;
            }
            let id = letter_id(one);
            if one.reason.is_some() {
                self.loud.insert(id);
            }
            if self.settled.contains(&id) {
                self.parked_again.insert(id);
            }
            self.positions += 1;
            let position = self.positions;
            let done = one.done.clone();
            let letter = Letter { parked: one.clone(), position, done: done.clone(), skip: false };
            let letter = self.letters.entry(id).or_insert(letter);
            if one.reason.is_some() {
                (letter.parked.reason, letter.done) = (one.reason.clone(), done);
            }
        }
        true
    }

    /// Dead letters of an aggregate, in order.
    pub fn letters_of(&self, partition: &Partition, aggregate: &str) -> Vec<Letter> {
        let mine = |l: &&Letter| l.parked.partition == *partition && *l.parked.delivery.aggregate() == *aggregate;
        let mut letters: Vec<_> = self.letters.values().filter(mine).cloned().collect();
        letters.sort_by_key(|letter| letter.position);
        letters
    }

    pub fn parked_aggregates(&self, partition: &Partition) -> BTreeMap<std::sync::Arc<str>, i64> {
        let mut parked = BTreeMap::new();
        for letter in self.letters.values().filter(|l| l.parked.partition == *partition) {
            let sequence = letter.parked.delivery.reference().map_or(i64::MIN, |r| r.sequence);
            let first = parked.entry(letter.parked.delivery.aggregate()).or_insert(sequence);
            *first = sequence.min(*first);
        }
        parked
    }
}
