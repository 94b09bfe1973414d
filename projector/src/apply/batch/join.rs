//! A batch of a join, round by round; see [`super::super::join`] for why it ends right.
//!
//! Entries first, then documents. An entry that is written (or had its event already) **spreads**: the documents that name it
//! are looked for, a page at a time, and get a fold each, which brings them its part; unless the part is what it was. A document that came to name a parent
//! **verifies**: it is loaded again, with the entries that it copied, and written once more if one of them has moved.

use super::fold::{describe, order_broken};
use super::{Batch, Change, Document, Fold, Place, State};
use crate::apply::document::expires;
use crate::apply::join::{Parts, entry_of, is_entry, part_of};
use crate::apply::lane::Plan;
use crate::apply::{Stored, Write};
use crate::projection::Join;
use chrono::DateTime;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Documents that one search may find.
const PAGE: usize = 500;
/// Entries whose documents are looked for at the same time.
const SEARCHES_MAX: usize = 8;

/// What a join needs to remember of a document of its batch.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// The entries to load with it.
    wants: BTreeSet<String>,
    /// The entries that its last write copied for the first time.
    fresh: BTreeSet<String>,
    /// The entries that it names.
    parents: Vec<String>,
    /// Whether an entry's part is another one than the documents may have: else only its sequence has moved, and they needn't
    /// be told.
    has_moved: bool,
    /// An entry's way through the documents that name it.
    spread: Option<Spread>,
}

#[derive(Debug, Default)]
struct Spread {
    after: Option<String>,
    is_last: bool,
}

/// A page of the documents that name a parent, to be looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The name of the parent, as in [`Write::parents`].
    pub parent: String,
    /// The key after which the page begins.
    pub after: Option<String>,
    /// How many keys it may have.
    pub limit: usize,
}

type Entries = BTreeMap<String, Result<Stored, String>>;

impl Batch {
    /// What to look for before [`Batch::keys`] are loaded; [`Batch::found`] takes each answer.
    #[must_use]
    pub fn searches(&self) -> Vec<Search> {
        if self.documents.iter().any(|d| d.open) {
            return Vec::new();
        }
        let spreads = self.documents.iter().filter_map(|d| Some((&d.key, d.joined.spread.as_ref()?)));
        let search = |(key, spread): (&String, &Spread)| Search {
            parent: key.clone(),
            after: spread.after.clone(),
            limit: PAGE,
        };
        spreads.take(SEARCHES_MAX).map(search).collect()
    }

    /// Takes the keys of the documents that a search has found.
    pub fn found(&mut self, search: &Search, keys: Vec<String>) {
        let Some(&e) = self.by_key.get(&search.parent) else { return };
        let Some(place) = self.spreading(e) else { return };
        if let Some(spread) = &mut self.documents[e].joined.spread {
            spread.is_last = keys.len() < search.limit;
            spread.after = keys.last().cloned();
        }
        for key in keys.into_iter().filter(|key| !is_entry(key)) {
            let d = self.document(key);
            let document = &mut self.documents[d];
            document.folds.push(Fold { place, change: Change::Parent(search.parent.clone()), state: State::Waiting });
            document.joined.wants.insert(search.parent.clone());
            document.open = true;
        }
    }

    /// The keys to load: of entries, and once these are done of documents with the entries that they need.
    pub(super) fn join_keys(&self) -> Vec<String> {
        let open = || self.documents.iter().filter(|d| d.open);
        let entries: Vec<_> = open().filter(|d| is_entry(&d.key)).map(|d| d.key.clone()).collect();
        if !entries.is_empty() {
            return entries;
        }
        let wanted: BTreeSet<_> = open().flat_map(|d| &d.joined.wants).collect();
        open().map(|d| &d.key).chain(wanted).cloned().collect()
    }

    pub(super) fn fold_join(&mut self, join: &Join, loaded: Vec<Option<Stored>>) -> Vec<Write> {
        let keys = self.join_keys();
        let mut read: BTreeMap<String, Stored> =
            keys.into_iter().zip(loaded.into_iter().map(Option::unwrap_or_default)).collect();
        let open: Vec<usize> = (0..self.documents.len()).filter(|&d| self.documents[d].open).collect();
        let mine: Vec<_> = open.into_iter().filter_map(|d| Some((d, read.remove(&self.documents[d].key)?))).collect();
        let parts = |(key, entry): (String, Stored)| {
            let part = part_of(join, &key, entry);
            (key, part)
        };
        let entries: Entries = read.into_iter().map(parts).collect();
        for (d, stored) in mine {
            if is_entry(&self.documents[d].key) {
                self.fold_entry(join, d, stored);
            } else {
                self.fold_document(join, d, stored, &entries);
            }
        }
        self.settle_spreads();
        let write = |document: &Document| {
            let Stored { version, fields, state } =
                if is_entry(&document.key) { entry_of(&document.stored) } else { document.stored.clone() };
            let parents = document.joined.parents.clone();
            Write {
                key: document.key.clone(),
                version,
                fields,
                state,
                expires: document.expires,
                parents,
                ..Write::default()
            }
        };
        self.documents.iter().filter(|d| d.is_flying()).map(write).collect()
    }

    fn fold_entry(&mut self, join: &Join, d: usize, stored: Stored) {
        match part_of(join, &self.documents[d].key, stored) {
            Ok(part) => self.documents[d].stored = part,
            Err(reason) => return self.refuse_all(d, &reason),
        }
        let before = self.documents[d].stored.fields.clone();
        for f in self.pending(d) {
            let place = self.documents[d].folds[f].place;
            if self.is_out(place) {
                continue;
            }
            let mut part = std::mem::take(&mut self.documents[d].stored);
            let folded = self.fold_part(place, &mut part);
            self.documents[d].stored = part;
            match folded {
                Ok(true) => self.fly(d, f),
                Ok(false) if self.item(place).plan == Plan::Check => self.documents[d].folds[f].state = State::Done,
                Ok(false) => self.documents[d].folds[f].state = State::Spreading,
                Err(reason) => self.refuse(d, f, reason),
            }
        }
        let document = &mut self.documents[d];
        document.joined.has_moved = document.stored.fields != before;
        document.open = document.is_flying();
    }

    fn fold_document(&mut self, join: &Join, d: usize, stored: Stored, entries: &Entries) {
        let mut parts = match Parts::read(join, stored.state.as_ref()) {
            Ok(parts) => parts,
            Err(reason) => return self.refuse_all(d, &reason),
        };
        let (mut due, mut required) = (self.pending(d), BTreeSet::new());
        let (mut is_changed, mut has_again, mut last) = (false, false, None);
        due.retain(|&f| {
            let Fold { place, change, state } = &self.documents[d].folds[f];
            let (place, state) = (*place, *state);
            if self.is_out(place) {
                return false;
            }
            if let Change::Parent(entry) = change {
                required.insert(entry.clone());
                return true;
            }
            match self.fold_part(place, &mut parts.own) {
                Ok(true) => (is_changed, last) = (true, Some(f)),
                Ok(false) if state == State::Verifying => required.extend(self.documents[d].joined.fresh.clone()),
                Ok(false) => has_again |= self.item(place).plan != Plan::Check,
                Err(reason) => {
                    self.refuse(d, f, reason);
                    return false;
                }
            }
            true
        });
        let named = match parts.named(join) {
            Ok(named) => named,
            Err(reason) => return last.into_iter().chain(due).take(1).for_each(|f| self.refuse(d, f, reason.clone())),
        };
        parts.parents.retain(|key, _| named.contains(key));
        let fresh: BTreeSet<String> = named.iter().filter(|key| !parts.parents.contains_key(*key)).cloned().collect();
        if has_again {
            required.extend(named.clone());
        }
        required.extend(fresh.clone());
        required.retain(|key| named.contains(key));
        if !required.iter().all(|key| entries.contains_key(key)) {
            self.documents[d].joined.wants = required;
            return;
        }
        for key in required {
            match &entries[&key] {
                Ok(entry) if parts.parents.get(&key).is_none_or(|copy| copy.version < entry.version) => {
                    is_changed = true;
                    parts.parents.insert(key, entry.clone());
                }
                Ok(_) => {}
                Err(reason) => return self.refuse_all(d, reason),
            }
        }
        if !is_changed {
            due.into_iter().for_each(|f| self.documents[d].folds[f].state = State::Done);
            self.documents[d].open = self.has_pending(d);
            return;
        }
        match parts.document(join) {
            Ok(fields) => {
                let ttl = self.compiled.projection.ttl.as_ref().map(|ttl| &ttl.value);
                let expires = match expires(ttl, fields.as_ref(), DateTime::default()) {
                    Ok(expires) => expires,
                    Err(reason) => return self.refuse_all(d, &reason),
                };
                let document = &mut self.documents[d];
                document.expires = expires;
                document.stored =
                    Stored { version: stored.version + 1, fields: fields.map(Arc::new), state: Some(parts.write()) };
                (document.joined.fresh, document.joined.parents) = (fresh, named.into_iter().collect());
                due.into_iter().for_each(|f| self.fly(d, f));
            }
            Err(reason) => self.refuse_all(d, &reason),
        }
    }

    /// Folds a message into the part of its own aggregate: whether that changed.
    fn fold_part(&self, place @ (p, _): Place, part: &mut Stored) -> Result<bool, String> {
        let item = self.item(place);
        let Ok(event) = &item.delivery.event else { return Ok(false) };
        let reference = &event.envelope.reference;
        if reference.sequence <= part.version {
            return Ok(false);
        }
        match (&item.plan, &event.data) {
            (Plan::Check, _) if self.shares[p].lane.is_parked(&reference.aggregate_id) => return Ok(false),
            (Plan::Check, _) => return Err(order_broken(event, part.version)),
            (Plan::Pass, _) => part.version = reference.sequence,
            (_, Some(Ok(data))) => {
                let Some(program) = self.compiled.program(&event.envelope.event_type) else { return Ok(false) };
                let looked_up = self.looked_up(place)?;
                part.fold(program, event, data, looked_up).map_err(|poison| describe(event, &poison.to_string()))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The state of a fold whose write has landed.
    pub(super) fn landed(document: &Document, fold: &Fold) -> State {
        match &fold.change {
            Change::Program if is_entry(&document.key) && !document.joined.has_moved => State::Done,
            Change::Program if is_entry(&document.key) => State::Spreading,
            Change::Program if !document.joined.fresh.is_empty() => State::Verifying,
            _ => State::Done,
        }
    }

    /// Ends the spreads that have come to their end, and begins those of entries that were written.
    pub(super) fn settle_spreads(&mut self) {
        if self.documents.iter().any(|d| d.open) {
            return;
        }
        for e in 0..self.own {
            let place = self.spreading(e);
            let is_last = self.documents[e].joined.spread.as_ref().is_some_and(|spread| spread.is_last);
            let document = &mut self.documents[e];
            match place {
                Some(_) if is_last => {
                    let spreading = document.folds.iter_mut().filter(|fold| fold.state == State::Spreading);
                    spreading.for_each(|fold| fold.state = State::Done);
                    document.joined.spread = None;
                }
                Some(_) => _ = document.joined.spread.get_or_insert_default(),
                None => document.joined.spread = None,
            }
        }
        // The page is done with.
        for document in self.documents.drain(self.own..) {
            self.by_key.remove(&document.key);
        }
    }

    /// The first message that an entry still spreads: to blame if a document refuses the part.
    fn spreading(&self, e: usize) -> Option<Place> {
        let spreading = self.documents[e].folds.iter().filter(|f| f.state == State::Spreading && !self.is_out(f.place));
        spreading.map(|fold| fold.place).min()
    }

    /// A document's folds to be made or verified now, in order.
    fn pending(&self, d: usize) -> Vec<usize> {
        let document = &self.documents[d];
        let mut pending: Vec<usize> =
            (0..document.folds.len()).filter(|&f| self.is_pending(&document.folds[f])).collect();
        pending.sort_by_key(|&f| document.folds[f].place);
        if document.one_by_one {
            pending.truncate(1);
        }
        pending
    }

    fn has_pending(&self, d: usize) -> bool {
        self.documents[d].folds.iter().any(|fold| self.is_pending(fold))
    }

    fn fly(&mut self, d: usize, f: usize) {
        let fold = &mut self.documents[d].folds[f];
        if fold.state == State::Waiting && matches!(fold.change, Change::Program) {
            let (p, i) = fold.place;
            self.shares[p].items[i].applied = true;
        }
        fold.state = State::InFlight;
    }

    fn refuse(&mut self, d: usize, f: usize, reason: String) {
        self.documents[d].folds[f].state = State::Refused;
        let place = self.documents[d].folds[f].place;
        self.fail(place, reason);
        self.documents[d].open = self.has_pending(d);
    }

    fn refuse_all(&mut self, d: usize, reason: &str) {
        let reason = format!("document `{}`: {reason}", self.documents[d].key);
        for f in self.pending(d) {
            self.refuse(d, f, reason.clone());
        }
    }
}
