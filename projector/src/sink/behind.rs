//! Writes put off while nobody reads: a document that is folded again and again while history is replayed reaches its store once, or
//! a few times, instead of once a batch.
//!
//! It is the place itself, a little ahead of what the store holds: [`Sink::load`] finds what was put off, and
//! [`Sink::save_progress`] writes all of it before it saves, so progress is still never ahead of the documents. What a host that dies
//! had put off is lost with the progress that would have covered it, and made again by whoever goes on from the saved one.
//!
//! As in a log-structured store, the oldest are written beside the work, and only who finds no room at all waits for that.
//!
//! For documents of one aggregate each, which have one owner, and whose version is its sequence: should the store hold a newer one
//! (of an owner before a crash, or of one that was replaced), it was folded from the same events, and more of them, and the
//! older one is rightly refused. Documents go whole: what changed since a version that the store never had is of no use to it.

use super::{Outcome, Page, Partition, Sink, SinkError, Stored, Write, reserved_name};
use crate::apply::{Progress, QuickMap};
use async_trait::async_trait;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Bytes of documents that are put off. Beyond three quarters of it the oldest go to the store, until half of it is left. Some twenty
/// thousand documents of usual size: as many as are usually begun while one of them lives through most of its events.
const BYTES_MAX: usize = 24 << 20;
/// Documents that go to the store in one call.
const AT_ONCE: usize = 1_000;

/// Is told how many documents the store took, and how long that was.
pub type Told = Box<dyn Fn(u64, Duration) + Send + Sync>;

/// A place whose writes may be put off.
pub struct Behind {
    store: Arc<Store>,
    is_on: AtomicBool,
    bytes_max: usize,
    /// What is written beside the work; ended with it.
    beside: Mutex<JoinSet<()>>,
}

/// The store, and what is put off for it.
struct Store {
    sink: Arc<dyn Sink>,
    held: Mutex<Held>,
    /// Held by who writes to the store: one at a time, so that an older document never follows a newer one.
    writing: Arc<tokio::sync::Mutex<()>>,
    told: Told,
}

#[derive(Default)]
struct Held {
    writes: QuickMap<String, (Write, usize)>,
    /// Their keys, those first that were put off first.
    order: VecDeque<String>,
    bytes: usize,
    leaving: Arc<Leaving>,
}

/// On the way to the store, until it has answered.
#[derive(Default)]
struct Leaving {
    writes: Vec<Write>,
    /// Where a key's is.
    at: QuickMap<String, usize>,
}

impl Leaving {
    fn get(&self, key: &str) -> Option<&Write> {
        self.at.get(key).map(|&at| &self.writes[at])
    }
}

impl Held {
    fn get(&self, key: &str) -> Option<&Write> {
        self.writes.get(key).map(|(write, _)| write).or_else(|| self.leaving.get(key))
    }

    fn put(&mut self, write: &Write) -> Outcome {
        if let Some(reason) = write.fields.as_deref().and_then(reserved_name) {
            return Outcome::Rejected(reason);
        }
        let bytes = 2 * write.key.len() + write.bytes();
        let whole = || Write { changed: None, ..write.clone() };
        match self.writes.get_mut(&write.key) {
            Some((held, _)) if held.version >= write.version => return Outcome::Stale,
            Some(held) => {
                self.bytes -= held.1;
                *held = (whole(), bytes);
            }
            None if self.leaving.get(&write.key).is_some_and(|held| held.version >= write.version) => {
                return Outcome::Stale;
            }
            None => {
                self.writes.insert(write.key.clone(), (whole(), bytes));
                self.order.push_back(write.key.clone());
            }
        }
        self.bytes += bytes;
        Outcome::Written
    }

    /// Sends the oldest on their way, until no more than so many bytes are left.
    fn leave(&mut self, bytes: usize) {
        let mut leaving = Leaving::default();
        while self.bytes > bytes {
            let Some(key) = self.order.pop_front() else { break };
            if let Some((write, bytes)) = self.writes.remove(&key) {
                self.bytes -= bytes;
                leaving.at.insert(key, leaving.writes.len());
                leaving.writes.push(write);
            }
        }
        self.leaving = Arc::new(leaving);
    }
}

impl Store {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is on its way, and what couldn't be written before. Only for who holds `writing`.
    async fn write_leaving(&self) -> Result<(), SinkError> {
        let leaving = Arc::clone(&self.held().leaving);
        let some: Vec<_> = leaving
            .writes
            .chunks(AT_ONCE)
            .map(|batch| async {
                let began = Instant::now();
                let outcomes = self.sink.write(batch).await?;
                let written = outcomes.iter().filter(|outcome| **outcome == Outcome::Written).count();
                (self.told)(written as u64, began.elapsed());
                match batch.iter().zip(outcomes).find_map(|(write, outcome)| match outcome {
                    Outcome::Rejected(reason) => Some((write, reason)),
                    Outcome::Written | Outcome::Stale => None,
                }) {
                    Some((Write { key, version, .. }, reason)) => Err(SinkError::Broken {
                        store: "replay",
                        reason: format!("the store refuses document `{key}` as it is after event {version}: {reason}"),
                    }),
                    None => Ok(()),
                }
            })
            .collect();
        stream::iter(some).buffer_unordered(self.sink.writers()).try_collect::<()>().await?;
        self.held().leaving = Arc::default();
        Ok(())
    }
}

impl Behind {
    /// Puts nothing off yet.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>, told: Told) -> Self {
        let store = Store { sink, held: Mutex::default(), writing: Arc::default(), told };
        Self { store: Arc::new(store), is_on: AtomicBool::new(false), bytes_max: BYTES_MAX, beside: Mutex::default() }
    }

    /// From now on writes are put off, or no longer: then those that were are written first. Nothing may be written meanwhile.
    ///
    /// # Errors
    /// Those of a write; then nothing has changed.
    pub async fn put_off(&self, on: bool) -> Result<(), SinkError> {
        if !on {
            self.write_all().await?;
        }
        self.is_on.store(on, Ordering::SeqCst);
        Ok(())
    }

    /// Writes all that is put off by now.
    ///
    /// # Errors
    /// Those of a write; what was to be written is kept.
    pub async fn write_all(&self) -> Result<(), SinkError> {
        let _writing = self.store.writing.lock().await;
        // What couldn't be written comes first, whatever was put off since.
        self.store.write_leaving().await?;
        self.store.held().leave(0);
        self.store.write_leaving().await
    }

    /// Sends the oldest to the store if there is little room left; waits for those that are on their way if there is none.
    async fn make_room(&self) -> Result<(), SinkError> {
        let half = self.bytes_max / 2;
        let bytes = self.store.held().bytes;
        if bytes <= half + half / 2 {
            return Ok(());
        }
        let writing = match Arc::clone(&self.store.writing).try_lock_owned() {
            Ok(writing) => writing,
            Err(_) if bytes <= self.bytes_max => return Ok(()),
            Err(_) => Arc::clone(&self.store.writing).lock_owned().await,
        };
        // What couldn't be written beside the work is ours to write now, and so is its error to tell.
        self.store.write_leaving().await?;
        self.store.held().leave(half);
        let store = Arc::clone(&self.store);
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        while beside.try_join_next().is_some() {}
        beside.spawn(async move {
            if let Err(error) = store.write_leaving().await {
                tracing::debug!(%error, "not written yet; tried again by who needs room, or saves");
            }
            drop(writing);
        });
        Ok(())
    }
}

#[async_trait]
impl Sink for Behind {
    async fn prepare(&self) -> Result<(), SinkError> {
        self.store.sink.prepare().await
    }

    async fn prepare_aside(&self) -> Result<(), SinkError> {
        self.store.sink.prepare_aside().await
    }

    async fn replaying(&self, on: bool) -> Result<(), SinkError> {
        self.store.sink.replaying(on).await
    }

    async fn go_live(&self) -> Result<(), SinkError> {
        self.store.sink.go_live().await
    }

    async fn load(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        let mut found: Vec<Option<Stored>> = {
            let held = self.store.held();
            keys.iter().map(|key| held.get(key).map(Write::stored)).collect()
        };
        let missing: Vec<String> =
            keys.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(key, _)| key.clone()).collect();
        if !missing.is_empty() {
            let mut loaded = self.store.sink.load(&missing).await?.into_iter();
            found.iter_mut().filter(|found| found.is_none()).for_each(|found| *found = loaded.next().flatten());
        }
        Ok(found)
    }

    async fn write(&self, batch: &[Write]) -> Result<Vec<Outcome>, SinkError> {
        if batch.iter().any(|write| write.again) {
            self.write_all().await?;
            return self.store.sink.write(batch).await;
        }
        if !self.puts_off() {
            return self.store.sink.write(batch).await;
        }
        let outcomes = {
            let mut held = self.store.held();
            batch.iter().map(|write| held.put(write)).collect()
        };
        self.make_room().await?;
        Ok(outcomes)
    }

    async fn write_with_progress(
        &self,
        batch: &[Write],
        progress: &[(Partition, Progress)],
    ) -> Result<(Vec<Outcome>, bool), SinkError> {
        if self.has_transactions() {
            return self.store.sink.write_with_progress(batch, progress).await;
        }
        Ok((self.write(batch).await?, false))
    }

    /// What is put off can't be saved.
    fn has_transactions(&self) -> bool {
        !self.puts_off() && self.store.sink.has_transactions()
    }

    async fn refresh(&self) -> Result<(), SinkError> {
        self.write_all().await?;
        self.store.sink.refresh().await
    }

    fn needs_refresh(&self) -> bool {
        self.store.sink.needs_refresh()
    }

    fn pace(&self) -> Duration {
        if self.puts_off() { Duration::ZERO } else { self.store.sink.pace() }
    }

    fn writers(&self) -> usize {
        self.store.sink.writers()
    }

    fn puts_off(&self) -> bool {
        self.is_on.load(Ordering::SeqCst)
    }

    async fn load_progress(&self, partitions: &[Partition]) -> Result<Vec<Option<Progress>>, SinkError> {
        self.store.sink.load_progress(partitions).await
    }

    async fn save_progress(&self, progress: &[(Partition, Progress)]) -> Result<(), SinkError> {
        self.write_all().await?;
        self.store.sink.save_progress(progress).await
    }

    async fn children(&self, parent: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, SinkError> {
        self.write_all().await?;
        self.store.sink.children(parent, after, limit).await
    }

    async fn browse(&self, cursor: Option<&str>, limit: usize) -> Result<Page, SinkError> {
        self.write_all().await?;
        self.store.sink.browse(cursor, limit).await
    }

    async fn fetch(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        self.write_all().await?;
        self.store.sink.fetch(keys).await
    }

    async fn remove(&self, partitions: &[Partition]) -> Result<(), SinkError> {
        let _writing = self.store.writing.lock().await;
        *self.store.held() = Held::default();
        self.store.sink.remove(partitions).await
    }

    async fn upkeep(&self) -> Result<(), SinkError> {
        self.store.sink.upkeep().await
    }

    async fn count(&self) -> Result<u64, SinkError> {
        self.write_all().await?;
        self.store.sink.count().await
    }
}

#[cfg(test)]
#[path = "behind_tests.rs"]
mod tests;
