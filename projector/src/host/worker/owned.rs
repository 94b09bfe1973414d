//! What an owner knows of each of its partitions.

use super::flight::Away;
use crate::apply::{Lane, Partition};
use tokio::time::Instant;

/// Events that a partition remembers one by one, because a transaction is open since before them; with more it is said.
const RECENT_LARGE: usize = 20_000;

/// A partition of ours.
#[derive(Debug, Default)]
pub(super) struct Owned {
    pub(super) lane: Lane,
    /// Set while a batch has the lane.
    pub(super) away: Option<Away>,
    /// Our epoch as its owner: what is parked is refused once somebody else has a greater one.
    pub(super) fence: i64,
    /// The first message is the last one that was handled, read again: it tells whether the topic is still the same.
    pub(super) verify: bool,
    /// Set while the partition stands before a message that couldn't be handled; its messages are dropped until the source
    /// has gone back to it.
    pub(super) stopped: Option<Stopped>,
    /// When what is held has waited long enough.
    pub(super) give_up_at: Option<Instant>,
    /// How many events it remembered when that was last said to be many.
    pub(super) said_recent: usize,
}

impl Owned {
    /// The offset of the first message that is neither handled nor under way.
    pub(super) fn next(&self) -> i64 {
        self.away.as_ref().map_or(self.lane.progress().next_offset, |away| away.next)
    }

    /// Says it when the recent set has become large, and again at each doubling.
    pub(super) fn watch_recent(&mut self, generation: &str, partition: &Partition) {
        let progress = self.lane.progress();
        let recent = progress.recent.len();
        if recent < RECENT_LARGE {
            self.said_recent = 0;
        } else if recent >= 2 * self.said_recent {
            self.said_recent = recent;
            tracing::warn!(generation, topic = %partition.topic, partition = partition.number, recent, txid = progress.watermark,
                "a transaction is open in the write database's cluster since before these events: each of them is remembered, and all \
                 become slower; find it by pg_stat_activity.backend_xmin and end it, and give the outbox `tx_snapshot` (docs/write-side.md)");
        }
    }
}

#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) retry_at: Instant,
    pub(super) rewinding: bool,
    pub(super) reason: String,
}
