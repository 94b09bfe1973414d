//! The event store, read up to a seam from which the log goes on.

use super::super::world::{PARTITIONS, deliveries};
use super::{Broken, Rebuilding, place};
use projector::apply::{Delivery, Event, Seen};
use projector::control::State;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Rebuilding<'_> {
    /// How many events of each partition are in Kafka for the first time: their transactions have committed.
    pub(super) fn committed(&self) -> [usize; PARTITIONS] {
        std::array::from_fn(|p| {
            let ids = self.world.log[p][..self.end[p]].iter().map(|d| d.event.as_ref().unwrap().envelope.id);
            ids.collect::<std::collections::BTreeSet<_>>().len()
        })
    }

    /// What a snapshot sees that waited for all that had committed; and more, which isn't in Kafka yet.
    pub(super) fn see(&mut self) {
        let committed = self.committed();
        for (p, committed) in committed.into_iter().enumerate() {
            let all = self.world.first[p].len();
            let seen = match self.broken {
                Broken::SnapshotNotAwaited => committed.saturating_sub(self.dice.below(3)),
                Broken::SnapshotBeforeEnds => self.snapshot[p],
                _ => (committed + self.dice.below(6)).min(all),
            };
            if seen > committed {
                self.reach("snapshot", "sees what isn't in Kafka yet");
            }
            self.snapshot[p] = seen.max(self.snapshot[p]);
        }
    }

    /// The rows of a partition in the order of `source/event_store.rs`: by the largest `tx_min` of the aggregate so far.
    pub(super) fn rows(&self, p: usize) -> Vec<Event> {
        let mut floors: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        let mut rows: Vec<(u64, Event)> = Vec::new();
        let kept = self.broken == Broken::SnapshotsCarried;
        let first = if kept { self.world.first[p].clone() } else { self.world.sent_again(p) };
        for event in &first[..self.snapshot[p]] {
            let reference = &event.envelope.reference;
            let floor = floors.entry(Arc::clone(&reference.aggregate_id)).or_default();
            *floor = reference.tx_min.max(*floor);
            // As a scan of the table may give them: one aggregate after the other.
            let heap = reference.aggregate_id.trim_start_matches("loan-").parse().unwrap_or(0);
            let by = if self.broken == Broken::SnapshotInHeapOrder { heap } else { *floor };
            rows.push((by, event.clone()));
        }
        rows.sort_by_key(|(floor, event)| (*floor, event.envelope.reference.sequence));
        rows.into_iter().map(|(_, event)| event).collect()
    }

    /// A job begins to read the event store, or begins again after another one died: first the ends, then the snapshot.
    pub(super) fn open_history(&mut self) {
        if self.seam.is_some() {
            self.reach("event store", "another job begins again");
        }
        self.seam = Some(self.end);
        self.see();
        let mut logs: Vec<Vec<Delivery>> = Vec::new();
        for p in 0..PARTITIONS {
            let saved = self.sims[1].store.progress.get(&place(p)).cloned().unwrap_or_default();
            let done = usize::try_from(saved.next_offset).unwrap();
            let left = self.rows(p).into_iter().filter(|event| saved.seen(&event.envelope.reference) == Seen::New);
            // What was read before is below what comes now.
            let before = self.sims[1].logs()[p][..done].iter().map(|d| *d.event.clone().unwrap());
            logs.push(deliveries(before.chain(left).collect()));
        }
        let sim = &mut self.sims[1];
        sim.limit = std::array::from_fn(|p| logs[p].len());
        sim.read_on(logs);
    }

    /// Whether the live generation has all that the snapshot saw.
    pub(super) fn has_come(&self) -> bool {
        self.broken == Broken::SnapshotAhead
            || (0..PARTITIONS).all(|p| {
                let progress = self.sims[0].progress(p);
                let seen = |event: &Event| progress.seen(&event.envelope.reference) == Seen::Duplicate;
                self.world.first[p][..self.snapshot[p]].iter().all(seen)
            })
    }

    /// All that the snapshot saw is folded: the partitions go on in Kafka.
    pub(super) fn close_history(&mut self) {
        let Some(ends) = self.seam else { return };
        let sim = &mut self.sims[1];
        sim.save_all();
        for (p, end) in ends.into_iter().enumerate() {
            let progress = sim.store.progress.entry(place(p)).or_default();
            (progress.next_offset, progress.last) = (i64::try_from(end).unwrap(), None);
            if self.broken == Broken::SeamTooFar {
                progress.watermark += 40;
            }
        }
        sim.read_on(self.world.log.clone());
        sim.limit = self.end;
        self.replay_ends = ends;
        self.state = State::Replaying;
        self.reach("event store", "read, Kafka goes on");
    }
}
