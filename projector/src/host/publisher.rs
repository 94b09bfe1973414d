//! Publishes progress to the control store as fast as that takes it, newest first: what moves during a write goes with the next.

use crate::apply::{Partition, Progress};
use crate::control::Control;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A publication in so long, in the long run, so that a flood of batches doesn't become a flood of writes.
const PACE: Duration = Duration::from_millis(5);
/// How far publications may be ahead of it: one event moves every read model that takes it, each at its own moment, and nobody who
/// waits for one of them should wait for another one's publication.
const AHEAD: Duration = Duration::from_millis(150);

/// Lets publications through at [`PACE`], or at once as long as they are not further than [`AHEAD`] of it (the generic cell rate algorithm,
/// ITU-T I.371).
struct Paced {
    /// When the next would be due at that pace.
    due: Instant,
}

impl Paced {
    /// How long the next one has to wait from `now` on; it is then done.
    fn turn(&mut self, now: Instant) -> Duration {
        let wait = self.due.saturating_duration_since(now).saturating_sub(AHEAD);
        self.due = self.due.max(now) + PACE;
        wait
    }
}

type Moved = HashMap<(i64, Partition), Progress>;

/// A handle on the publishing task; it ends with the process.
#[derive(Clone)]
pub(super) struct Publisher {
    moved: Arc<Mutex<Moved>>,
    wake: Arc<Notify>,
    control: Control,
}

impl Publisher {
    pub(super) fn start(control: Control) -> Self {
        let publisher = Self { moved: Arc::default(), wake: Arc::default(), control };
        let task = publisher.clone();
        tokio::spawn(async move {
            let mut paced = Paced { due: Instant::now() };
            loop {
                task.wake.notified().await;
                tokio::time::sleep(paced.turn(Instant::now())).await;
                task.flush().await;
            }
        });
        publisher
    }

    /// Notes what moved; returns at once.
    pub(super) fn publish(&self, generation: i64, moved: &[(Partition, Progress)]) {
        let mut all = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(moved.iter().map(|(partition, progress)| ((generation, partition.clone()), progress.clone())));
        drop(all);
        self.wake.notify_one();
    }

    /// Writes what has moved so far. A failed write is made up for by the next: progress only grows.
    pub(super) async fn flush(&self) {
        let moved = self.take();
        let rows: Vec<_> =
            moved.into_iter().map(|((generation, partition), progress)| (generation, partition, progress)).collect();
        if rows.is_empty() {
            return;
        }
        if let Err(error) = self.control.publish_progress(&rows).await {
            tracing::warn!(%error, "progress not published; waiting queries will time out until the control store is back");
            self.put_back(rows);
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.wake.notify_one();
        }
    }

    fn take(&self) -> Moved {
        std::mem::take(&mut *self.moved.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_back(&self, rows: Vec<(i64, Partition, Progress)>) {
        let mut all = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        for (generation, partition, progress) in rows {
            all.entry((generation, partition)).or_insert(progress);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_event_moves_is_published_at_once_and_a_flood_is_paced() {
        let mut now = Instant::now();
        let mut paced = Paced { due: now };
        let mut publish = |now: &mut Instant| *now += paced.turn(*now);
        // As many as read models may take an event.
        let begun = now;
        (0..30).for_each(|_| publish(&mut now));
        assert_eq!(now, begun);
        (0..1_000).for_each(|_| publish(&mut now));
        assert!(now - begun >= PACE * 995, "{:?}", now - begun);
        // The next event's, after a rest.
        now += AHEAD + PACE;
        let rested = now;
        (0..30).for_each(|_| publish(&mut now));
        assert_eq!(now, rested);
    }
}
