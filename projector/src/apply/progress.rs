//! The commit watermark: how far one partition has been handled, exactly, with duplicates told from new events.
//!
//! Every event carries the id of the transaction that wrote it (`txid`) and the oldest transaction still running at that
//! moment (`tx_min`). Debezium emits in commit order, so within a partition the first occurrences come in commit order too
//! (invariant I0). Hence, once an event with `tx_min` = X was seen, every event of that partition with `txid` < X was seen:
//! those transactions had ended before this one began. The **watermark** W is the largest `tx_min` handled so far; together
//! with the events handled whose `txid` ≥ W (the **recent set**) it says of any event whether it was handled before, at
//! whatever offset it comes again.
//!
//! A transaction that stays open for long holds `tx_min` back, and the recent set would grow by every event since. An event that
//! carries its whole **snapshot** says more: of the transactions below the snapshot's end, those had ended that it doesn't name
//! as running. By the same argument their events were seen. So W is the largest such end, the few below it that may still have
//! run are remembered as `running`, and the recent set has the events handled of these and of what is at or above W: as many as
//! transactions run at a time. (The transaction that takes a snapshot isn't named in it, and runs.) Snapshots claim more than
//! `tx_min`, so they need the very order of commits: what is sent again in another order that keeps I0 must not carry them.
//!
//! Transaction ids mean something within one **epoch** (source and timeline) only: after a fail-over or a restore they
//! repeat, so an event of another epoch is never judged; it stops the partition until an operator has accepted the epoch
//! ([`Progress::enter`]). Events of an epoch that was left are old by definition.

use crate::event::EventRef;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// What the progress says of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not handled yet.
    New,
    /// Handled before, at another offset.
    Duplicate,
    /// Of an epoch that this partition doesn't know: it can't be judged.
    UnknownEpoch,
}

/// An event within its epoch and topic: (txid, aggregate id, sequence).
pub type Occurrence = (u64, Arc<str>, i64);

/// How far one partition has been handled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The offset to read next; all below are handled.
    pub next_offset: i64,
    /// The epoch of the events so far; none before the first.
    pub epoch: Option<Arc<str>>,
    /// W: every event with a smaller `txid` is handled, but for those of `running`.
    pub watermark: u64,
    /// Transactions below W that hadn't ended when it was set: which of their events are handled, the recent set says.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub running: BTreeSet<u64>,
    /// Handled events with `txid` ≥ W, or of `running`.
    pub recent: BTreeSet<Occurrence>,
    /// The event at `next_offset` − 1, by which a topic that was made anew is told from this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Occurrence>,
    /// Epochs that were left behind.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub past: BTreeSet<Arc<str>>,
    /// The aggregates that have dead letters, with the first one's sequence: handled, but not in the documents. Published for
    /// waiting queries; never saved in the store.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parked: BTreeMap<Arc<str>, i64>,
    /// The fencing epoch of the owner who saved it: stores refuse progress of an earlier owner than the one they have.
    #[serde(default)]
    pub fence: i64,
}

impl Progress {
    /// Judges an event.
    #[must_use]
    pub fn seen(&self, event: &EventRef) -> Seen {
        match &self.epoch {
            Some(epoch) if *epoch != event.epoch && self.past.contains(&event.epoch) => Seen::Duplicate,
            Some(epoch) if *epoch != event.epoch => Seen::UnknownEpoch,
            _ if self.has(event.txid, &event.aggregate_id, event.sequence) => Seen::Duplicate,
            _ => Seen::New,
        }
    }

    /// Whether the event (of this partition's epoch) is handled. This is what a consistency token asks.
    #[must_use]
    pub fn has(&self, txid: u64, aggregate_id: &Arc<str>, sequence: i64) -> bool {
        self.is_past(txid) || self.recent.contains(&(txid, Arc::clone(aggregate_id), sequence))
    }

    /// Whether all events of the transaction are handled.
    fn is_past(&self, txid: u64) -> bool {
        txid < self.watermark && !self.running.contains(&txid)
    }

    /// Notes that the message at `offset` needs nothing more, and that it was the last one, with the event in it, if it was one.
    pub(super) fn moves_over(&mut self, offset: i64, event: Option<&EventRef>) {
        match event {
            Some(event) => self.handled(event, offset),
            None => self.passed(offset),
        }
        self.last = event.map(occurrence);
    }

    /// Notes that the event at `offset` is handled: applied, a duplicate, parked, or of no interest. In offset order.
    pub fn handled(&mut self, event: &EventRef, offset: i64) {
        self.covers(event);
        self.passed(offset);
    }

    /// Notes that the message at `offset` needs nothing more.
    pub fn passed(&mut self, offset: i64) {
        debug_assert!(offset >= self.next_offset, "offsets are handled in order");
        self.next_offset = offset + 1;
    }

    /// [`Progress::handled`] without its offset.
    pub(super) fn covers(&mut self, event: &EventRef) {
        debug_assert!(event.tx_min <= event.txid, "a transaction is older than the oldest running one");
        self.enter(&event.epoch);
        if self.past.contains(&event.epoch) {
            return;
        }
        self.advance(event);
        self.beside(event);
    }

    /// Moves W as far as the event's snapshot allows; `tx_min` is one that ends where its oldest transaction begins.
    fn advance(&mut self, event: &EventRef) {
        let (end, running) = match &event.snapshot {
            Some(snapshot) => (snapshot.end(), snapshot.running()),
            None => (event.tx_min, [].as_slice()),
        };
        if end <= self.watermark && self.running.is_empty() {
            return;
        }
        let runs = |txid: &u64| *txid >= end || *txid == event.txid || running.binary_search(txid).is_ok();
        let ended: Vec<u64> = self.running.extract_if(.., |txid| !runs(txid)).collect();
        let known = self.watermark..end;
        if end > self.watermark {
            self.running.extend(running.iter().chain([&event.txid]).filter(|txid| known.contains(txid)));
            self.watermark = end;
            self.forget(known);
        }
        ended.into_iter().for_each(|txid| self.forget(txid..txid + 1));
    }

    /// Takes these transactions' events out of the recent set, but for those of `running`.
    fn forget(&mut self, txids: Range<u64>) {
        let first = |txid| (txid, Arc::default(), i64::MIN);
        let range = first(txids.start)..first(txids.end);
        self.recent.extract_if(range, |(txid, _, _)| !self.running.contains(txid)).for_each(drop);
    }

    /// Notes that an event beyond a hole is handled: of what lies before it nothing follows.
    pub(super) fn beside(&mut self, event: &EventRef) {
        if !self.is_past(event.txid) && self.epoch.as_ref() == Some(&event.epoch) {
            self.recent.insert(occurrence(event));
        }
    }

    /// Enters the epoch, leaving the one before it behind. The caller has made sure that it was accepted.
    pub(super) fn enter(&mut self, epoch: &Arc<str>) {
        if self.epoch.as_ref() == Some(epoch) || self.past.contains(epoch) {
            return;
        }
        if let Some(left) = self.epoch.replace(Arc::clone(epoch)) {
            self.past.insert(left);
            self.watermark = 0;
            self.running.clear();
            self.recent.clear();
        }
    }
}

/// What names an event among all of its epoch and topic.
pub fn occurrence(event: &EventRef) -> Occurrence {
    (event.txid, Arc::clone(&event.aggregate_id), event.sequence)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::event::TxSnapshot;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn event(txid: u64, tx_min: u64, id: &str, sequence: i64) -> EventRef {
        EventRef { epoch: "e".into(), txid, tx_min, snapshot: None, aggregate_id: id.into(), sequence }
    }

    #[test]
    fn a_resent_window_is_recognised_at_new_offsets() {
        let mut progress = Progress::default();
        let window = [event(10, 10, "a", 1), event(12, 10, "b", 1), event(11, 10, "a", 2)];
        for (offset, e) in window.iter().enumerate() {
            assert_eq!(progress.seen(e), Seen::New);
            progress.handled(e, i64::try_from(offset).unwrap());
        }
        assert!(window.iter().all(|e| progress.seen(e) == Seen::Duplicate));
        progress.handled(&event(20, 15, "c", 1), 3);
        assert_eq!(progress.recent.len(), 1, "what the watermark covers is forgotten");
        assert!(window.iter().all(|e| progress.seen(e) == Seen::Duplicate));
    }

    #[test]
    fn two_events_of_one_transaction_are_two_events() {
        let mut progress = Progress::default();
        progress.handled(&event(10, 10, "a", 1), 0);
        assert_eq!(progress.seen(&event(10, 10, "a", 2)), Seen::New);
        assert_eq!(progress.seen(&event(10, 10, "b", 1)), Seen::New);
        // Its own snapshot doesn't name it, and ends above it.
        let snapshot = Some(Arc::new(TxSnapshot::new(20, Vec::new())));
        progress.handled(&EventRef { snapshot: snapshot.clone(), ..event(15, 15, "a", 3) }, 1);
        assert_eq!(progress.seen(&EventRef { snapshot, ..event(15, 15, "a", 4) }), Seen::New);
    }

    #[test]
    fn another_epoch_is_never_judged() {
        let mut progress = Progress::default();
        progress.handled(&event(10, 10, "a", 1), 0);
        let restored = EventRef { epoch: "f".into(), ..event(3, 3, "a", 2) };
        assert_eq!(progress.seen(&restored), Seen::UnknownEpoch);
    }

    #[test]
    fn progress_survives_its_text_form() {
        let mut progress = Progress::default();
        progress.handled(&event(10, 7, "ä\"", 1), 41);
        let text = serde_json::to_string(&progress).unwrap();
        assert_eq!(serde_json::from_str::<Progress>(&text).unwrap(), progress);
    }

    /// A made-up history: transactions start, write at some moment and commit in some order, the first of them after all others
    /// if it's a long one; the log has them in commit order, with what each saw running when it wrote; then windows of the log
    /// are sent again. Every transaction whose id is a multiple of some number carries its snapshot.
    fn history() -> impl Strategy<Value = (Vec<EventRef>, Vec<(usize, usize)>)> {
        let spans = prop::collection::vec((0_u64..40, 1_u64..12, 0_u64..12), 1..60);
        let resent = prop::collection::vec((0_usize..60, 1_usize..20), 0..5);
        (spans, resent, any::<bool>(), 1_u64..5).prop_map(|(mut spans, resent, long, some)| {
            spans.sort_unstable();
            if long {
                spans[0].1 = 100;
            }
            // Start, moment of writing, end, each of its own; a transaction's id by its start.
            let txs: Vec<(u64, u64, u64, u64)> = (100..)
                .zip(spans)
                .map(|(txid, (start, length, at))| {
                    (1_000 * start, 1_000 * (start + at.min(length)), 1_000 * (start + length), txid)
                })
                .map(|(start, at, end, txid)| (start + txid, (at + txid).min(end + txid - 1), end + txid, txid))
                .collect();
            let mut log: Vec<_> = txs
                .iter()
                .map(|&(_, at, end, txid)| {
                    let running = txs.iter().filter(|(start, _, end, _)| *start <= at && at < *end).map(|tx| tx.3);
                    let oldest = running.clone().min().unwrap_or(txid);
                    // As Postgres has it: one above the last one that has ended, and without one's own.
                    let last =
                        txs.iter().filter(|(_, _, end, _)| *end <= at).map(|tx| tx.3 + 1).max().unwrap_or(oldest);
                    let named = running.filter(|other| *other < last && *other != txid).collect();
                    let snapshot = (txid % some == 0).then(|| Arc::new(TxSnapshot::new(last.max(oldest), named)));
                    (end, EventRef { snapshot, ..event(txid, oldest, &format!("a{}", txid % 5), 1) })
                })
                .collect();
            log.sort_by_key(|(end, _)| *end);
            (log.into_iter().map(|(_, event)| event).collect(), resent)
        })
    }

    #[test]
    fn what_a_long_transaction_keeps_is_few_with_snapshots() {
        let through = |with: bool| {
            let mut progress = Progress::default();
            for (offset, txid) in (0..).zip(11_u64..10_011) {
                let snapshot = with.then(|| Arc::new(TxSnapshot::new(txid, vec![10])));
                progress.handled(&EventRef { snapshot, ..event(txid, 10, "a", offset + 1) }, offset);
            }
            assert!(progress.has(11, &"a".into(), 1) && !progress.has(10, &"b".into(), 1));
            let own = event(10, 10, "b", 1);
            assert_eq!(progress.seen(&own), Seen::New, "the long one's event comes last");
            progress.handled(&own, 10_000);
            assert_eq!(progress.seen(&own), Seen::Duplicate);
            let kept = progress.recent.len();
            progress.handled(&event(10_011, 10_011, "a", 10_001), 10_001);
            assert_eq!((progress.running.len(), progress.recent.len()), (0, 1), "once it has ended, nothing is kept");
            kept
        };
        assert_eq!((through(false), through(true)), (10_001, 2));
    }

    proptest! {
        #[test]
        fn every_event_is_new_exactly_once((log, resent) in history()) {
            let mut deliveries: Vec<EventRef> = log.clone();
            for (at, back) in resent {
                let at = at.min(deliveries.len());
                let again = deliveries[at.saturating_sub(back)..at].to_vec();
                deliveries.splice(at..at, again);
            }
            let mut progress = Progress::default();
            let mut first = HashSet::new();
            for (offset, e) in deliveries.iter().enumerate() {
                let expected = if first.insert(e.txid) { Seen::New } else { Seen::Duplicate };
                prop_assert_eq!(progress.seen(e), expected);
                progress.handled(e, i64::try_from(offset).unwrap());
            }
        }
    }
}
