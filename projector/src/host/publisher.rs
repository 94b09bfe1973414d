//! Publishes progress to the control store as fast as that takes it, newest first: what moves during a write goes with the next.

use crate::apply::{Partition, Progress};
use crate::control::Control;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// At most so many publications a second, so that a flood of batches doesn't become a flood of writes.
const PAUSE: Duration = Duration::from_millis(5);

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
            loop {
                task.wake.notified().await;
                task.flush().await;
                tokio::time::sleep(PAUSE).await;
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
