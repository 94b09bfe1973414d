//! The commit watermark: how far one partition has been handled, exactly, with duplicates told from new events.
//!
//! Every event carries the id of the transaction that wrote it (`txid`) and the oldest transaction still running at that
//! moment (`tx_min`). Debezium emits in commit order, so within a partition the first occurrences come in commit order too
//! (invariant I0). Hence, once an event with `tx_min` = X was seen, every event of that partition with `txid` < X was seen:
//! those transactions had ended before this one began. The **watermark** W is the largest `tx_min` handled so far; together
//! with the events handled whose `txid` ≥ W (the **recent set**) it says of any event whether it was handled before, at
//! whatever offset it comes again. The recent set is small unless a writing transaction stays open for long.
//!
//! Transaction ids mean something within one **epoch** (source and timeline) only: after a fail-over or a restore they
//! repeat, so an event of another epoch is never judged; it stops the partition until an operator has accepted the epoch
//! ([`Progress::enter`]). Events of an epoch that was left are old by definition.

use crate::event::EventRef;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
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
    /// W: every event with a smaller `txid` is handled.
    pub watermark: u64,
    /// Handled events with `txid` ≥ W.
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
        txid < self.watermark || self.recent.contains(&(txid, Arc::clone(aggregate_id), sequence))
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
        if event.tx_min > self.watermark {
            self.watermark = event.tx_min;
            while self.recent.first().is_some_and(|(txid, _, _)| *txid < self.watermark) {
                self.recent.pop_first();
            }
        }
        self.beside(event);
    }

    /// Notes that an event beyond a hole is handled: of what lies before it nothing follows.
    pub(super) fn beside(&mut self, event: &EventRef) {
        if event.txid >= self.watermark && self.epoch.as_ref() == Some(&event.epoch) {
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
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn event(txid: u64, tx_min: u64, id: &str, sequence: i64) -> EventRef {
        EventRef { epoch: "e".into(), txid, tx_min, aggregate_id: id.into(), sequence }
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

    /// A made-up history: transactions start, write at once and commit in some order; the log has them in commit order, with
    /// each event's `tx_min` taken when it was written; then windows of the log are sent again.
    fn history() -> impl Strategy<Value = (Vec<EventRef>, Vec<(usize, usize)>)> {
        let spans = prop::collection::vec((0_u64..40, 1_u64..12), 1..60);
        (spans, prop::collection::vec((0_usize..60, 1_usize..20), 0..5)).prop_map(|(spans, resent)| {
            let mut spans: Vec<_> = spans.into_iter().map(|(start, length)| (start, start + length)).collect();
            spans.sort_unstable();
            let txs: Vec<_> = spans.into_iter().zip(100_u64..).collect();
            let mut log: Vec<_> = txs
                .iter()
                .map(|&((start, end), txid)| {
                    let running = txs.iter().filter(|&&((_, e), other)| other <= txid && e > start).map(|&(_, t)| t);
                    (end, txid, running.min().unwrap_or(txid).min(txid))
                })
                .collect();
            log.sort_unstable();
            let log =
                log.into_iter().map(|(_, txid, tx_min)| event(txid, tx_min, &format!("a{}", txid % 5), 1)).collect();
            (log, resent)
        })
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
