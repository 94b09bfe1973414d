//! A batch: the events that arrived meanwhile, of any number of partitions, folded so that N events on one document cost one
//! write. It does no I/O itself; whoever drives it loads, writes and saves:
//!
//! ```text
//! new ─→ questions ─(look up)→ told ─→ keys ─(load)→ fold ─→ writes ─(write)→ answered ─→ keys to load again, until done ─→ finish ─→ lanes, parked, stops
//! ```
//!
//! A join also has to look for documents now and then: before each load, [`Batch::searches`] says which.
//!
//! Each event has a **fold** for each document that it touches. A fold is waiting, then in flight with its document's write, then
//! done; a write that came too late sends its folds back to waiting. A document that the store refuses is folded again one
//! event at a time, until the event that spoils it stands alone. A rollup's document is also told, with a write, of an event
//! that was parked without being added (it is *marked*), so that no former owner can add it behind our back.

mod fold;
mod foreseen;
mod join;
mod lookup;
mod share;

pub use join::Search;
pub use lookup::Question;
use share::Share;

use super::lane::{Delivery, Item, Lane, LetterNote, Parked, Plan, TRIES, TRIES_TO_FIND};
use super::rollup::{Addition, Slices};
use super::{Changed, Event, Outcome, Partition, QuickMap, Stored, Write};
use crate::event::Envelope;
use crate::projection::{Compiled, ReadModelKind};
use chrono::{DateTime, Utc};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// One partition's share of a batch.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// What was handled before this batch.
    pub lane: Lane,
    /// The messages, by rising offset. For letters: an aggregate's dead letters, in order.
    pub deliveries: Vec<Delivery>,
    /// What is held has waited long enough.
    pub give_up: bool,
    /// Nothing more may be parked for now: what fails stops its lane.
    pub no_parking: bool,
    /// The messages are dead letters, each with its note: they are folded past the lane, whose progress has covered them.
    pub letters: Option<Vec<LetterNote>>,
}

/// Where and why a partition must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Stop {
    /// The offset of the message that couldn't be handled.
    pub offset: i64,
    /// Why, with what to do.
    pub reason: String,
    /// The documents that have it all the same.
    pub done: BTreeSet<String>,
}

/// What a batch came to. What is parked must be durable before the lanes' progress is saved or published.
#[derive(Debug, Default)]
pub struct Finished {
    /// Each partition's lane after it.
    pub lanes: Vec<(Partition, Lane)>,
    /// The partitions that stopped before their last message.
    pub stops: Vec<(Partition, Stop)>,
    /// The messages to be parked.
    pub parked: Vec<Parked>,
    /// When the events that changed something had happened.
    pub applied: Vec<DateTime<Utc>>,
    /// Events that had been handled before.
    pub duplicates: u64,
    /// How many of each partition's letters are settled: applied, or passed over.
    pub settled: Vec<(Partition, usize)>,
}

/// The sequence of an aggregate's first event.
const FIRST_SEQUENCE: i64 = 1;

/// The place of a message in the batch: lane, then index in it.
type Place = (usize, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    InFlight,
    Done,
    /// On its way: the document is told that the event is parked.
    Marking,
    Marked,
    /// A join's document is written, and has to be looked at once more.
    Verifying,
    /// A join's entry has it, and the documents that name it have to be told.
    Spreading,
    Refused,
}

/// What an event does to a document.
#[derive(Clone, Debug)]
enum Change {
    /// Its program is run on it.
    Program,
    /// The document is this row.
    Row(Arc<crate::expr::Object>),
    /// This is added to it.
    Addition(Addition),
    /// The part in this entry is brought to it.
    Parent(String),
}

#[derive(Debug)]
struct Fold {
    place: Place,
    change: Change,
    state: State,
}

/// One document of the batch, with all that is to be folded into it, in order.
struct Document {
    key: String,
    folds: Vec<Fold>,
    stored: Stored,
    /// What was folded into it since it was loaded, where that is known.
    changed: Option<Changed>,
    /// Has to be loaded and folded.
    open: bool,
    /// Begins with its aggregate's first event, so that there is nothing to load; if there is, the write doesn't land, and it is loaded then.
    is_new: bool,
    one_by_one: bool,
    expires: Option<DateTime<Utc>>,
    joined: join::Joined,
}

/// See the module.
pub struct Batch {
    compiled: Arc<Compiled>,
    shares: Vec<Share>,
    documents: Vec<Document>,
    by_key: QuickMap<String, usize>,
    /// How many documents its own messages touch; behind them are those that a search has found.
    own: usize,
    /// Set while something is to be looked up first.
    asking: bool,
}

impl Batch {
    /// Judges the messages and sorts them by document.
    #[must_use]
    pub fn new(compiled: Arc<Compiled>, parts: Vec<(Partition, Part)>) -> Self {
        let shares = parts.into_iter().map(|(partition, part)| Share::new(partition, part)).collect();
        let (documents, by_key) = (Vec::new(), QuickMap::default());
        let mut batch = Self { compiled, shares, documents, by_key, own: 0, asking: true };
        if batch.questions().is_empty() {
            batch.sort();
        }
        batch
    }

    /// Sorts the messages by document, once what they ask for is known.
    fn sort(&mut self) {
        let batch = self;
        batch.asking = false;
        for p in 0..batch.shares.len() {
            for i in 0..batch.shares[p].items.len() {
                match batch.changes((p, i)) {
                    Ok(changes) => changes.into_iter().for_each(|(key, change)| {
                        let at = batch.document(key);
                        batch.documents[at].folds.push(Fold { place: (p, i), change, state: State::Waiting });
                    }),
                    Err(reason) => batch.fail((p, i), reason),
                }
            }
        }
        batch.own = batch.documents.len();
        if batch.compiled.kind == ReadModelKind::Entity {
            for d in 0..batch.documents.len() {
                let first = batch.documents[d].folds.first().map(|fold| batch.item(fold.place));
                batch.documents[d].is_new = first.is_some_and(|item| batch.is_first(item));
            }
        }
    }

    /// Whether an event makes its aggregate's document. One that asks for something may fail now although its document has it.
    fn is_first(&self, item: &Item) -> bool {
        let Ok(event) = &item.delivery.event else { return false };
        let Envelope { reference, event_type, .. } = &event.envelope;
        item.plan == Plan::Fold && reference.sequence == FIRST_SEQUENCE && self.compiled.asks(event_type).is_empty()
    }

    /// The document of a key: the one that the batch has, or a new one.
    fn document(&mut self, key: String) -> usize {
        if let Some(&at) = self.by_key.get(&key) {
            return at;
        }
        self.by_key.insert(key.clone(), self.documents.len());
        self.documents.push(Document::new(key));
        self.documents.len() - 1
    }

    /// The documents to load before [`Batch::fold`]. None for facts.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        match self.compiled.kind {
            ReadModelKind::Facts => return Vec::new(),
            ReadModelKind::Join => return self.join_keys(),
            ReadModelKind::Entity | ReadModelKind::Rollup => {}
        }
        self.documents.iter().filter(|d| d.open && !d.is_new).map(|d| d.key.clone()).collect()
    }

    /// Folds what the loaded documents (in the order of [`Batch::keys`]) haven't seen; gives the writes.
    #[must_use]
    pub fn fold(&mut self, loaded: Vec<Option<Stored>>) -> Vec<Write> {
        if let Some(join) = self.compiled.join.clone() {
            return self.fold_join(&join, loaded);
        }
        let open: Vec<usize> = (0..self.documents.len()).filter(|&d| self.documents[d].open).collect();
        // An end that changes, or is none any more, isn't a field's.
        let patches = self.compiled.kind == ReadModelKind::Entity && self.compiled.projection.ttl.is_none();
        let mut loaded = loaded.into_iter();
        let mut slices: HashMap<usize, Result<Slices, String>> = HashMap::new();
        for &d in &open {
            let is_new = std::mem::take(&mut self.documents[d].is_new);
            let stored = if is_new { Stored::default() } else { loaded.next().flatten().unwrap_or_default() };
            if self.compiled.kind == ReadModelKind::Rollup {
                slices.insert(d, Slices::read(stored.state.as_ref()));
            }
            self.documents[d].changed =
                stored.fields.as_ref().filter(|_| patches).map(|_| Changed::since(stored.version));
            self.documents[d].stored = stored;
        }
        // In the order of the messages, so that a failing event keeps those behind it from being folded.
        let mut order: Vec<(Place, usize, usize)> = open
            .iter()
            .flat_map(|&d| self.documents[d].folds.iter().enumerate().map(move |(f, fold)| (fold.place, d, f)))
            .collect();
        order.sort_unstable();
        for (place, d, f) in order {
            let document = &self.documents[d];
            let later = document.one_by_one && document.is_flying();
            if later || !self.is_due(&document.folds[f]) {
                continue;
            }
            match self.fold_one(place, d, f, slices.get_mut(&d)) {
                Ok(Some(state)) => {
                    if state == State::InFlight {
                        self.shares[place.0].items[place.1].applied = true;
                    }
                    self.documents[d].folds[f].state = state;
                }
                Ok(None) => {}
                Err(reason) => {
                    self.documents[d].folds[f].state = State::Refused;
                    self.fail(place, reason);
                }
            }
        }
        for &d in &open {
            self.documents[d].open = self.documents[d].is_flying();
        }
        for (d, slices) in slices {
            if let (true, Ok(slices)) = (self.documents[d].open, slices) {
                self.close_rollup(d, slices);
            }
        }
        self.documents.iter_mut().filter(|d| d.open).map(Document::write).collect()
    }

    /// Takes the store's answers to the writes of [`Batch::fold`]. Afterwards [`Batch::keys`] are those to load and fold again.
    pub fn answered(&mut self, outcomes: Vec<Outcome>) {
        let written: Vec<usize> = (0..self.documents.len()).filter(|&d| self.documents[d].is_flying()).collect();
        debug_assert_eq!(written.len(), outcomes.len(), "one answer a write");
        for (d, outcome) in written.into_iter().zip(outcomes) {
            let document = &mut self.documents[d];
            let flying: Vec<usize> = (0..document.folds.len()).filter(|&f| document.folds[f].is_flying()).collect();
            let alone = flying.len() == 1;
            for &f in &flying {
                let fold = &document.folds[f];
                document.folds[f].state = match (&outcome, fold.state) {
                    (Outcome::Written, State::Marking) => State::Marked,
                    (Outcome::Written, _) => Self::landed(document, fold),
                    // A row is there, or isn't.
                    (Outcome::Stale, _) if matches!(fold.change, Change::Row(_)) => State::Done,
                    (Outcome::Rejected(_), _) if alone => State::Refused,
                    _ => State::Waiting,
                };
            }
            if let Outcome::Rejected(reason) = outcome {
                let place = flying.first().map(|&f| document.folds[f].place);
                document.one_by_one = true;
                if let Some(place) = place.filter(|_| alone) {
                    let reason = format!("the store refuses document `{}`: {reason}", document.key);
                    self.fail(place, reason);
                }
            }
        }
        for d in 0..self.documents.len() {
            self.documents[d].open = self.documents[d].folds.iter().any(|fold| self.is_pending(fold));
        }
        self.settle_spreads();
    }

    /// Whether every document has its answer.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !self.asking && self.documents.iter().all(|d| !d.open) && self.searches().is_empty()
    }

    /// What became of each partition: its lane, over all messages before its stop.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        debug_assert!(self.is_done(), "progress must not pass an unanswered write");
        let mut finished = Finished::default();
        for &(p, i) in self.documents.iter().flat_map(|d| d.folds.iter().map(|f| &f.place)) {
            self.shares[p].items[i].folded = true;
        }
        for (p, mut share) in std::mem::take(&mut self.shares).into_iter().enumerate() {
            let end = share.stop.as_ref().map_or(share.items.len(), |(i, _)| *i);
            for (i, item) in share.items.iter().enumerate().take(end) {
                if let Plan::Park(reason) = &item.plan {
                    let (delivery, done) = (item.delivery.clone(), self.done((p, i)).collect());
                    let reason = reason.clone();
                    finished.parked.push(Parked { partition: share.partition.clone(), delivery, reason, done });
                } else if let Some(event) = item.taken() {
                    if item.applied {
                        finished.applied.push(event.envelope.occurred_at);
                    } else if item.folded || matches!(item.plan, Plan::Check | Plan::Skip) {
                        finished.duplicates += 1;
                    }
                }
                if share.letters.is_none() {
                    share.lane.settle(item);
                }
            }
            if let Some((i, reason)) = share.stop {
                let offset = share.items[i].delivery.offset;
                if share.letters.is_none() {
                    share.lane.fails(offset);
                }
                let before = share.letters.as_ref().and_then(|notes| notes.get(i)).map(|note| note.done.clone());
                let done = self.done((p, i)).chain(before.unwrap_or_default()).collect();
                finished.stops.push((share.partition.clone(), Stop { offset, reason, done }));
            }
            if share.letters.is_some() {
                finished.settled.push((share.partition.clone(), end));
            }
            finished.lanes.push((share.partition, share.lane));
        }
        finished
    }

    /// The documents that have an event.
    fn done(&self, place: Place) -> impl Iterator<Item = String> {
        let has = move |d: &&Document| d.folds.iter().any(|f| f.place == place && f.state == State::Done);
        self.documents.iter().filter(has).map(|d| d.key.clone())
    }

    /// An event can't be folded: it is parked if that was its last try, otherwise its lane stops before it.
    fn fail(&mut self, place @ (p, i): Place, reason: String) {
        if self.is_out(place) {
            return;
        }
        let share = &mut self.shares[p];
        let may_fail = if share.waits_to_find(i) { TRIES_TO_FIND } else { TRIES };
        let is_last_try = share.lane.is_last_try(share.items[i].delivery.offset, may_fail);
        if share.letters.is_some() || share.no_parking || !is_last_try {
            share.stop = Some((i, reason));
            return;
        }
        let aggregate = share.items[i].delivery.aggregate();
        share.items[i].plan = Plan::Park(Some(reason));
        for item in &mut share.items[i + 1..] {
            if item.plan == Plan::Fold && item.delivery.aggregate() == aggregate {
                item.plan = Plan::Park(None);
            }
        }
        // Of the refused one, a rollup's document must be told.
        let folds = self.documents.iter_mut().flat_map(|document| &mut document.folds);
        for fold in folds.filter(|fold| fold.place == place && fold.state == State::Refused) {
            fold.state = State::Waiting;
        }
    }

    /// Whether a fold has still to be made.
    fn is_due(&self, fold: &Fold) -> bool {
        let mark = matches!(fold.change, Change::Addition(_));
        fold.state == State::Waiting && !self.is_stopped(fold.place) && (mark || !self.is_parked(fold.place))
    }

    /// Whether a fold has still to be made, or to be looked at again.
    fn is_pending(&self, fold: &Fold) -> bool {
        self.is_due(fold) || fold.state == State::Verifying && !self.is_out(fold.place)
    }

    fn item(&self, (p, i): Place) -> &Item {
        &self.shares[p].items[i]
    }

    fn is_stopped(&self, (p, i): Place) -> bool {
        self.shares[p].stop.as_ref().is_some_and(|(at, _)| *at <= i)
    }

    fn is_parked(&self, place: Place) -> bool {
        matches!(self.item(place).plan, Plan::Park(_))
    }

    fn is_out(&self, place: Place) -> bool {
        self.is_stopped(place) || self.is_parked(place)
    }
}

impl Item {
    /// The event, if the projection takes it.
    fn taken(&self) -> Option<&Event> {
        self.delivery.event.as_deref().ok().filter(|event| event.data.is_some())
    }
}

impl Fold {
    fn is_flying(&self) -> bool {
        matches!(self.state, State::InFlight | State::Marking)
    }
}

impl Document {
    fn is_flying(&self) -> bool {
        self.folds.iter().any(Fold::is_flying)
    }

    fn new(key: String) -> Self {
        let joined = join::Joined::default();
        Self {
            key,
            folds: Vec::new(),
            stored: Stored::default(),
            open: true,
            is_new: false,
            one_by_one: false,
            expires: None,
            changed: None,
            joined,
        }
    }

    /// What was folded goes into the write: if that doesn't land, the document is loaded anew.
    fn write(&mut self) -> Write {
        let Stored { version, fields, state } = std::mem::take(&mut self.stored);
        Write {
            key: self.key.clone(),
            version,
            fields,
            state,
            expires: self.expires,
            changed: self.changed.take(),
            ..Write::default()
        }
    }
}
