//! Saves progress in the read store beside the next batch: what is saved is always behind what is written, never ahead, and
//! after a crash the little that lies between is read again and refused by the documents' versions. Nobody waits for it, so it
//! is saved now and then rather than after each batch: for a search index, or a table, it is a write like any other. Where the
//! store has transactions a batch saves its own, and only what it couldn't comes here.

use super::calls::Calls;
use super::retry::Backoff;
use crate::apply::{Partition, Progress};
use crate::sink::SinkError;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How much work a crash may cause to be done again, and Kafka's lag to show.
const SAVE_EVERY: Duration = Duration::from_millis(500);
/// The same where writes are put off until then ([`crate::sink::behind`]): the longer, the fewer there are. A slow store takes that long for what
/// a document lives through.
pub(super) const SAVE_EVERY_PUT_OFF: Duration = Duration::from_secs(15);

/// Progress that is known to be saved.
type Saved = Vec<(Partition, Progress)>;

/// One save at a time; what comes meanwhile goes with the next, newest only.
pub(super) struct Saver {
    calls: Calls,
    waiting: BTreeMap<Partition, Progress>,
    saving: Option<JoinHandle<Result<Saved, SinkError>>>,
    next_save: Instant,
}

impl Saver {
    pub(super) fn new(calls: Calls) -> Self {
        Self { calls, waiting: BTreeMap::new(), saving: None, next_save: Instant::now() }
    }

    /// Takes progress whose batch is written.
    pub(super) fn save(&mut self, progress: &[(Partition, Progress)]) {
        self.waiting.extend(progress.iter().cloned());
    }

    /// Leaves these partitions to a batch that saves their progress with what it writes; not while an older one is on its way, which
    /// might come after it.
    pub(super) fn leaves<'a>(&mut self, partitions: impl Iterator<Item = &'a Partition>) -> bool {
        if self.saving.is_some() {
            return false;
        }
        partitions.for_each(|partition| _ = self.waiting.remove(partition));
        true
    }

    /// Whether [`Saver::saved`] has something to wait for.
    pub(super) fn has_work(&self) -> bool {
        self.saving.is_some() || !self.waiting.is_empty()
    }

    /// What waits is saved without further delay.
    pub(super) fn hurry(&mut self) {
        self.next_save = Instant::now();
    }

    /// Waits for the next save to be done. Safe to drop and call again.
    pub(super) async fn saved(&mut self) -> Result<Saved, SinkError> {
        if self.saving.is_none() {
            tokio::time::sleep_until(self.next_save).await;
            self.start();
        }
        let Some(saving) = &mut self.saving else { return Ok(Saved::new()) };
        let result = saving.await;
        self.saving = None;
        result
            .unwrap_or_else(|e| Err(SinkError::Broken { store: "host", reason: format!("saving progress ended: {e}") }))
    }

    fn start(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let every = if self.calls.sink.puts_off() { SAVE_EVERY_PUT_OFF } else { SAVE_EVERY };
        self.next_save = Instant::now() + every;
        let progress: Saved = std::mem::take(&mut self.waiting).into_iter().collect();
        let calls = self.calls.clone();
        self.saving = Some(tokio::spawn(async move {
            let (mut backoff, waiting) = (Backoff::default(), calls.stats.call(calls.store_name()));
            loop {
                match calls.sink.save_progress(&progress).await {
                    Ok(()) => return Ok(progress),
                    Err(error @ SinkError::Unavailable { .. }) if !calls.stop.is_cancelled() => {
                        waiting.failed(&error.to_string());
                        tracing::debug!(%error, "progress not saved");
                        tokio::time::sleep(backoff.next_pause()).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        }));
    }
}
