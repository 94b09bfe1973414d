//! A lane: one partition's messages on their way to the fold. Here it is decided what becomes of each: folded, skipped as a
//! duplicate, held until an earlier one of its aggregate has come, or parked behind one that failed.
//!
//! **Gaps.** An aggregate's sequences have no gaps, so a message that comes two ahead of the last one seen means that one is
//! missing. It is held, and with it what follows of its aggregate; the others go on. While something is held, neither the
//! next offset nor the watermark pass it: what was handled beyond is in the recent set, so a crash redoes nothing. The filler
//! releases what waits for it; if it doesn't come, what is held is parked, with the missing one named. The tracker sees all
//! messages, also of types that the projection doesn't take; an aggregate that it doesn't know is under no suspicion.
//!
//! **Parking.** An event that can't be folded is tried [`TRIES`] times, then parked, and with it, in order, every later event of
//! its aggregate, so that the others may go on. Parked counts as handled, once it is durable.

use super::progress::{Progress, Seen};
use super::{Event, Partition, QuickMap};
use crate::event::{EventRef, Raw};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often an event is tried before it is parked.
pub const TRIES: u32 = 3;
/// How often an event is tried whose lookup finds nothing: with the host's pauses, for some minutes.
pub const TRIES_TO_FIND: u32 = 12;
/// Messages that may be held or handled beyond a hole; with more, what is held is parked.
const HELD_MAX: usize = 1_000;
/// Aggregates that the tracker knows at least.
const TRACKED: usize = 4_096;

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its offset.
    pub offset: i64,
    /// What it says, to be parked whole.
    pub raw: Raw,
    /// The event, or why the message isn't one. In a place of its own, since messages are moved from queue to queue.
    pub event: Result<Box<Event>, String>,
}

impl Delivery {
    /// What gives it its place in the event order; none where the message isn't an event.
    #[must_use]
    pub fn reference(&self) -> Option<&EventRef> {
        self.event.as_ref().ok().map(|event| &event.envelope.reference)
    }

    /// The aggregate that it belongs to: the message's key.
    #[must_use]
    pub fn aggregate(&self) -> Arc<str> {
        match &self.event {
            Ok(event) => Arc::clone(&event.envelope.reference.aggregate_id),
            Err(_) => String::from_utf8_lossy(self.raw.key().unwrap_or_default()).into(),
        }
    }
}

/// What is to become of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Folded; nothing to fold if the projection doesn't take its type.
    Fold,
    /// A duplicate, by the watermark: that its document has it is checked.
    Check,
    /// A duplicate.
    Skip,
    /// Held until an earlier event of its aggregate has come.
    Hold,
    /// Parked: for the reason given, or behind an earlier event of its aggregate.
    Park(Option<String>),
    /// Can't be handled now: the lane stops before it.
    Stop(String),
    /// Can't be folded, for this reason: stops the lane, or is parked after some tries.
    Fail(String),
    /// A parked event that an operator gave up: its document passes over it.
    Pass,
}

impl Plan {
    /// Whether the event came for the first time: then nothing above it has come, which can't be said of a duplicate.
    pub(super) fn is_first(&self) -> bool {
        matches!(self, Self::Fold | Self::Park(_) | Self::Fail(_))
    }
}

/// A message with its plan.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) delivery: Delivery,
    pub(super) plan: Plan,
    /// Whether an earlier message was held when this one came.
    pub(super) beyond: bool,
    /// Whether it was folded into a document here, for the first time as far as that document knows.
    pub(super) applied: bool,
    /// Whether it had a fold at all.
    pub(super) folded: bool,
}

impl Item {
    pub(super) fn new(delivery: Delivery, plan: Plan, beyond: bool) -> Self {
        Self { delivery, plan, beyond, applied: false, folded: false }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    progress: Progress,
    tracker: Tracker,
    held: BTreeMap<i64, Delivery>,
    /// Handled beyond the first that is held.
    beyond: BTreeMap<i64, Option<EventRef>>,
    /// The aggregates that have dead letters, with the first one's sequence: what comes before it isn't behind it.
    parked: BTreeMap<Arc<str>, i64>,
    failing: Option<(i64, u32)>,
    accepted: Arc<BTreeSet<Arc<str>>>,
}

impl Lane {
    /// Goes on from saved progress. `parked`: the aggregates that have dead letters, with the sequence of the first (the
    /// smallest number if that isn't known).
    #[must_use]
    pub fn new(progress: Progress, parked: BTreeMap<Arc<str>, i64>) -> Self {
        Self { progress, parked, ..Self::default() }
    }

    /// What is handled without a hole: to be saved and published.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// [`Lane::progress`] with what queries must not take for applied.
    #[must_use]
    pub fn published(&self) -> Progress {
        Progress { parked: self.parked.clone(), ..self.progress.clone() }
    }

    /// Names the epochs that an operator has accepted.
    pub fn accept(&mut self, epochs: Arc<BTreeSet<Arc<str>>>) {
        self.accepted = epochs;
    }

    /// Gives what is saved from now on its owner's fencing epoch.
    pub fn fence(&mut self, fence: i64) {
        self.progress.fence = fence;
    }

    /// Whether any aggregate's events are parked.
    #[must_use]
    pub fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Whether something is held: then [`super::Part::give_up`] must be set after some seconds.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether an aggregate's events are parked.
    #[must_use]
    pub fn is_parked(&self, aggregate: &str) -> bool {
        self.parked.contains_key(aggregate)
    }

    /// How often the first message that isn't handled has failed.
    #[must_use]
    pub fn failed(&self) -> u32 {
        self.failing.map_or(0, |(_, tries)| tries)
    }

    /// Begins again with a topic that was deleted and made anew: what it brings again is known by the watermark.
    pub fn restart(&mut self) {
        (self.progress.next_offset, self.progress.last) = (0, None);
        (self.held, self.beyond, self.failing) = (BTreeMap::new(), BTreeMap::new(), None);
    }

    /// Whether progress covers a message that was parked. Before it does, after a crash, the message will be read again: a
    /// letter that was settled meanwhile would be folded, or parked, anew.
    #[must_use]
    pub fn covers(&self, parked: &Delivery) -> bool {
        match parked.reference() {
            Some(reference) => self.progress.seen(reference) == Seen::Duplicate,
            None => parked.offset < self.progress.next_offset,
        }
    }

    /// The aggregate's dead letters are gone: its next event is folded again.
    pub fn unpark(&mut self, aggregate: &str) {
        self.parked.remove(aggregate);
    }

    /// Decides on each message; nothing of the lane changes before [`Lane::settle`]. `give_up`: what is held waits no longer.
    pub(super) fn admit(&self, deliveries: Vec<Delivery>, give_up: bool) -> Vec<Item> {
        let mut admission = Admission {
            lane: self,
            ahead: self.progress.clone(),
            last: QuickMap::default(),
            cold: false,
            held: self.held.clone(),
            parked: BTreeSet::new(),
            items: Vec::with_capacity(deliveries.len()),
        };
        if give_up || self.held.len() + self.beyond.len() > HELD_MAX {
            admission.give_up_all();
        } else {
            admission.release_all();
        }
        for delivery in deliveries {
            admission.take(delivery);
        }
        admission.items
    }

    /// Whether a message that fails now has failed as often as it may.
    pub(super) fn is_last_try(&self, offset: i64, may_fail: u32) -> bool {
        self.failing.is_some_and(|(at, tries)| at == offset && tries + 1 >= may_fail)
    }

    /// Notes that the message at `offset` failed and is to be tried again.
    pub(super) fn fails(&mut self, offset: i64) {
        let tries = self.failing.filter(|(at, _)| *at == offset).map_or(0, |(_, tries)| tries);
        self.failing = Some((offset, tries + 1));
    }

    /// Carries out an item's plan, now that its writes have landed. In the order of [`Lane::admit`].
    pub(super) fn settle(&mut self, item: &Item) {
        let (offset, reference) = (item.delivery.offset, item.delivery.reference());
        match &item.plan {
            Plan::Hold => {
                self.held.insert(offset, item.delivery.clone());
                return;
            }
            Plan::Park(_) => {
                let sequence = reference.map_or(i64::MIN, |r| r.sequence);
                let first = self.parked.entry(item.delivery.aggregate()).or_insert(sequence);
                *first = sequence.min(*first);
            }
            _ => {}
        }
        if self.failing.is_some_and(|(at, _)| at == offset) {
            self.failing = None;
        }
        if let Some(reference) = reference {
            if self.progress.epoch.as_ref().is_some_and(|epoch| *epoch != reference.epoch) {
                self.tracker = Tracker::default();
            }
            if item.plan.is_first() {
                self.tracker.saw(&reference.aggregate_id, reference.sequence);
            }
        }
        self.held.remove(&offset);
        if self.held.is_empty() && self.beyond.is_empty() {
            return self.progress.moves_over(offset, reference);
        }
        if let Some(reference) = reference {
            self.progress.beside(reference);
        }
        self.beyond.insert(offset, reference.cloned());
        let hole = self.held.first_key_value().map_or(i64::MAX, |(offset, _)| *offset);
        while let Some(first) = self.beyond.first_entry().filter(|first| *first.key() < hole) {
            let (offset, reference) = first.remove_entry();
            self.progress.moves_over(offset, reference.as_ref());
        }
    }

    /// [`Lane::progress`] as it will be once these items are settled; none where more is to be done for one than to fold it, or an
    /// earlier one is waited for.
    pub(super) fn foreseen(&self, items: &[Item]) -> Option<Progress> {
        if !self.held.is_empty() || !self.beyond.is_empty() {
            return None;
        }
        let mut progress = self.progress.clone();
        for item in items {
            if !matches!(item.plan, Plan::Fold | Plan::Check | Plan::Skip) {
                return None;
            }
            progress.moves_over(item.delivery.offset, item.delivery.reference());
        }
        Some(progress)
    }

    fn has(&self, offset: i64) -> bool {
        offset < self.progress.next_offset || self.beyond.contains_key(&offset) || self.held.contains_key(&offset)
    }
}

/// The progress after `items`, from `progress` on: what a guard may cover once they are folded.
pub(super) fn covered(progress: &Progress, items: &[Item]) -> Progress {
    let mut ahead = progress.clone();
    for item in items {
        let Some(reference) = item.delivery.reference() else { continue };
        match item.plan {
            Plan::Hold | Plan::Stop(_) => {}
            _ if item.beyond => ahead.beside(reference),
            _ => ahead.covers(reference),
        }
    }
    ahead
}

/// A batch's messages being judged, each as if those before it were handled.
struct Admission<'a> {
    lane: &'a Lane,
    ahead: Progress,
    last: QuickMap<Arc<str>, i64>,
    /// A new epoch began: what the tracker knows is of another database.
    cold: bool,
    held: BTreeMap<i64, Delivery>,
    parked: BTreeSet<Arc<str>>,
    items: Vec<Item>,
}

impl Admission<'_> {
    fn take(&mut self, delivery: Delivery) {
        if self.lane.has(delivery.offset) {
            return;
        }
        let Some(reference) = delivery.reference().cloned() else {
            let reason = delivery.event.as_ref().err().cloned().unwrap_or_default();
            let plan =
                if self.is_behind(&delivery.aggregate(), i64::MAX) { Plan::Park(None) } else { Plan::Fail(reason) };
            return self.push(delivery, plan);
        };
        match self.ahead.seen(&reference) {
            Seen::UnknownEpoch if self.lane.accepted.contains(&reference.epoch) => {
                // What is still missing belonged to the database that was left.
                self.give_up_all();
                self.ahead.enter(&reference.epoch);
                (self.cold, self.last) = (true, QuickMap::default());
                self.arrange(delivery, &reference);
            }
            Seen::UnknownEpoch => {
                let known = self.ahead.epoch.as_deref().unwrap_or("none");
                let reason = format!(
                    "epoch {} is not {known}: the write database was restored or failed over; `projector epoch accept` lets it go on",
                    reference.epoch
                );
                self.push(delivery, Plan::Stop(reason));
            }
            Seen::Duplicate => {
                let plan = self.duplicate(&reference);
                self.push(delivery, plan);
            }
            Seen::New => self.arrange(delivery, &reference),
        }
    }

    /// What becomes of an event that the watermark calls old.
    fn duplicate(&self, reference: &EventRef) -> Plan {
        // The tracker has seen all since this lane began: an event above its last one can't have come before.
        let last = self.last(&reference.aggregate_id).unwrap_or(i64::MAX);
        if reference.sequence > last && !self.is_behind(&reference.aggregate_id, reference.sequence) {
            let found = reference.sequence;
            return Plan::Fail(format!(
                "source order broken: {found} is called old, but the last one that came is {last}"
            ));
        }
        if self.lane.progress.seen(reference) == Seen::Duplicate { Plan::Check } else { Plan::Skip }
    }

    /// Finds a new event's place in the order of its aggregate.
    fn arrange(&mut self, delivery: Delivery, reference: &EventRef) {
        let aggregate = &reference.aggregate_id;
        if self.is_behind(aggregate, reference.sequence) {
            return self.push(delivery, Plan::Park(None));
        }
        match self.last(aggregate) {
            Some(last) if reference.sequence > last + 1 => {
                self.held.insert(delivery.offset, delivery.clone());
                if self.held.len() > HELD_MAX {
                    return self.give_up(aggregate);
                }
                let beyond = self.held.len() > 1;
                self.items.push(Item::new(delivery, Plan::Hold, beyond));
            }
            Some(last) if reference.sequence <= last => {
                let reason = format!("source order broken: {} comes after {last}", reference.sequence);
                self.push(delivery, Plan::Fail(reason));
            }
            _ => {
                self.push(delivery, Plan::Fold);
                self.release(aggregate);
            }
        }
    }

    /// Lets go what waited for the aggregate's event that has just come.
    fn release(&mut self, aggregate: &Arc<str>) {
        while let Some(last) = self.last(aggregate) {
            let next = self.held.iter().find(|(_, held)| {
                held.reference().is_some_and(|r| r.aggregate_id == *aggregate && r.sequence <= last + 1)
            });
            let Some(offset) = next.map(|(offset, _)| *offset) else { return };
            let Some(delivery) = self.held.remove(&offset) else { return };
            // One that is held twice was sent again meanwhile.
            let again = delivery.reference().is_some_and(|r| r.sequence <= last);
            let behind = delivery.reference().is_some_and(|r| self.is_behind(aggregate, r.sequence));
            let plan = if behind { Plan::Park(None) } else { Plan::Fold };
            self.push(delivery, if again { Plan::Skip } else { plan });
        }
    }

    fn release_all(&mut self) {
        let waiting: BTreeSet<_> = self.held.values().map(Delivery::aggregate).collect();
        waiting.iter().for_each(|aggregate| self.release(aggregate));
    }

    fn give_up_all(&mut self) {
        let waiting: BTreeSet<_> = self.held.values().map(Delivery::aggregate).collect();
        waiting.iter().for_each(|aggregate| self.give_up(aggregate));
    }

    /// Parks what is held of an aggregate.
    fn give_up(&mut self, aggregate: &Arc<str>) {
        let mut held: Vec<_> =
            self.held.extract_if(.., |_, held| held.aggregate() == *aggregate).map(|(_, d)| d).collect();
        held.sort_by_key(|held| held.reference().map(|r| r.sequence));
        let missing = self.last(aggregate).map_or(0, |last| last + 1);
        let mut reason =
            Some(format!("sequence {missing} of `{aggregate}` is missing: it didn't come before later ones"));
        for delivery in held {
            self.push(delivery, Plan::Park(reason.take()));
        }
    }

    fn push(&mut self, delivery: Delivery, plan: Plan) {
        let beyond = !self.held.is_empty();
        if let Some(reference) = delivery.reference().filter(|_| !matches!(plan, Plan::Stop(_))) {
            if beyond {
                self.ahead.beside(reference)
            } else {
                self.ahead.covers(reference)
            }
            if plan.is_first() {
                let last = self.last(&reference.aggregate_id).unwrap_or(0);
                self.last.insert(Arc::clone(&reference.aggregate_id), last.max(reference.sequence));
            }
        }
        if matches!(plan, Plan::Park(_)) {
            self.parked.insert(delivery.aggregate());
        }
        self.items.push(Item::new(delivery, plan, beyond));
    }

    fn last(&self, aggregate: &Arc<str>) -> Option<i64> {
        let before = || if self.cold { None } else { self.lane.tracker.last(aggregate) };
        self.last.get(aggregate).copied().or_else(before)
    }

    /// Whether an event stands behind a parked one of its aggregate, or is that one, read again: its letter knows more than
    /// the guards do by now.
    fn is_behind(&self, aggregate: &Arc<str>, sequence: i64) -> bool {
        self.parked.contains(aggregate) || self.lane.parked.get(aggregate).is_some_and(|first| sequence >= *first)
    }
}

/// The last sequence seen of each aggregate. Forgets those not seen for long: half of what it knows at a time.
#[derive(Clone, Debug, Default)]
struct Tracker {
    young: QuickMap<Arc<str>, i64>,
    old: QuickMap<Arc<str>, i64>,
}

impl Tracker {
    fn last(&self, aggregate: &Arc<str>) -> Option<i64> {
        self.young.get(aggregate).or_else(|| self.old.get(aggregate)).copied()
    }

    fn saw(&mut self, aggregate: &Arc<str>, sequence: i64) {
        let last = self.last(aggregate).unwrap_or(0).max(sequence);
        if self.young.len() >= TRACKED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(Arc::clone(aggregate), last);
    }
}

/// A dead letter's note, for its retry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterNote {
    /// The documents that have it already.
    pub done: BTreeSet<String>,
    /// An operator gave it up.
    pub skip: bool,
}

/// A message that is to be parked, durably, before progress passes it.
#[derive(Clone, Debug)]
pub struct Parked {
    /// Its partition.
    pub partition: Partition,
    /// The message.
    pub delivery: Delivery,
    /// Why; none where it only waits behind an earlier one of its aggregate.
    pub reason: Option<String>,
    /// The documents that have it already.
    pub done: BTreeSet<String>,
}
