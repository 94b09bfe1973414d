//! The contract in a map, for tests of whatever drives a sink: calls can be made to fail before or after they took effect.

use super::{Outcome, Page, Partition, Place, Sink, SinkError, Stored, TOMBSTONES_KEEP_DAYS, Write, reserved_name};
use crate::apply::Progress;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// When a call that is made to fail does so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was done.
    Before,
    /// All was done, but the caller doesn't hear it.
    After,
}

/// What several sinks share, as generations of one read model share a store.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    owner: Option<String>,
    live: Option<String>,
    documents: BTreeMap<String, Kept>,
    progress: BTreeMap<(String, Partition), Progress>,
    faults: VecDeque<Fault>,
    writes: u64,
}

#[derive(Debug)]
struct Kept {
    stored: Stored,
    expires: Option<DateTime<Utc>>,
    parents: Vec<String>,
}

impl MemoryStore {
    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets the next calls to `write` and `save_progress` fail, one for each fault.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.with(|inner| inner.faults.extend(faults));
    }

    /// All documents, tombstones and expired ones included.
    #[must_use]
    pub fn documents(&self) -> BTreeMap<String, Stored> {
        self.with(|inner| inner.documents.iter().map(|(key, kept)| (key.clone(), kept.stored.clone())).collect())
    }

    /// When a document expires, if it does.
    #[must_use]
    pub fn expires(&self, key: &str) -> Option<DateTime<Utc>> {
        self.with(|inner| inner.documents.get(key)?.expires)
    }

    /// How many writes changed something.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.with(|inner| inner.writes)
    }

    /// The generation that went live last.
    #[must_use]
    pub fn live(&self) -> Option<String> {
        self.with(|inner| inner.live.clone())
    }
}

/// One generation's place in a [`MemoryStore`].
#[derive(Clone, Debug)]
pub struct MemorySink {
    store: Arc<MemoryStore>,
    generation: String,
}

impl MemorySink {
    /// Opens it.
    #[must_use]
    pub fn open(store: Arc<MemoryStore>, place: &Place) -> Self {
        Self { store, generation: place.id() }
    }

    fn owned<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> Result<T, SinkError> {
        self.store.with(|inner| match &inner.owner {
            Some(owner) if *owner == self.generation => Ok(f(inner)),
            owner => Err(SinkError::Fenced {
                place: "memory".into(),
                owner: owner.clone().unwrap_or_else(|| "nobody".into()),
                generation: self.generation.clone(),
            }),
        })
    }

    /// A call that can be made to fail.
    fn changes<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> Result<T, SinkError> {
        let failed = || SinkError::Unavailable { store: "memory", reason: "made to fail".into() };
        self.owned(|inner| match inner.faults.pop_front() {
            None => Ok(f(inner)),
            Some(Fault::Before) => Err(failed()),
            Some(Fault::After) => {
                f(inner);
                Err(failed())
            }
        })?
    }
}

impl Inner {
    fn write(&mut self, write: &Write) -> Outcome {
        if let Some(reason) = write.fields.as_deref().and_then(reserved_name) {
            return Outcome::Rejected(reason);
        }
        let fact = write.version == 0;
        match self.documents.get(&write.key) {
            Some(_) if fact => return Outcome::Written,
            Some(kept) if kept.stored.version >= write.version + i64::from(write.again) => return Outcome::Stale,
            _ => {}
        }
        let held = self.documents.get(&write.key).map_or_else(Stored::default, |kept| kept.stored.clone());
        let Some(stored) = write.stored_over(&held) else { return Outcome::Stale };
        let kept = Kept { stored, expires: write.expires, parents: write.parents.clone() };
        self.documents.insert(write.key.clone(), kept);
        self.writes += 1;
        Outcome::Written
    }

    fn save(&mut self, generation: &str, progress: &[(Partition, Progress)]) {
        for (partition, progress) in progress {
            let place = (generation.to_owned(), partition.clone());
            if self.progress.get(&place).is_none_or(|saved| saved.fence <= progress.fence) {
                self.progress.insert(place, progress.clone());
            }
        }
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn prepare(&self) -> Result<(), SinkError> {
        self.store.with(|inner| inner.owner.get_or_insert_with(|| self.generation.clone()).clone());
        self.owned(|_| ())
    }

    async fn go_live(&self) -> Result<(), SinkError> {
        self.owned(|inner| inner.live = Some(self.generation.clone()))
    }

    async fn load(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        self.owned(|inner| keys.iter().map(|key| inner.documents.get(key).map(|kept| kept.stored.clone())).collect())
    }

    async fn write(&self, batch: &[Write]) -> Result<Vec<Outcome>, SinkError> {
        self.changes(|inner| batch.iter().map(|write| inner.write(write)).collect())
    }

    async fn write_with_progress(
        &self,
        batch: &[Write],
        progress: &[(Partition, Progress)],
    ) -> Result<(Vec<Outcome>, bool), SinkError> {
        self.changes(|inner| {
            let outcomes: Vec<_> = batch.iter().map(|write| inner.write(write)).collect();
            let all = outcomes.iter().all(|outcome| *outcome == Outcome::Written);
            if all {
                inner.save(&self.generation, progress);
            }
            (outcomes, all && !progress.is_empty())
        })
    }

    fn has_transactions(&self) -> bool {
        true
    }

    async fn load_progress(&self, partitions: &[Partition]) -> Result<Vec<Option<Progress>>, SinkError> {
        let key = |p: &Partition| (self.generation.clone(), p.clone());
        self.owned(|inner| partitions.iter().map(|p| inner.progress.get(&key(p)).cloned()).collect())
    }

    async fn save_progress(&self, progress: &[(Partition, Progress)]) -> Result<(), SinkError> {
        self.changes(|inner| inner.save(&self.generation, progress))
    }

    async fn children(&self, parent: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, SinkError> {
        self.owned(|inner| {
            let named = inner.documents.iter().filter(|(_, kept)| kept.parents.iter().any(|name| name == parent));
            let keys = named.map(|(key, _)| key).filter(|key| after.is_none_or(|after| key.as_str() > after));
            keys.take(limit).cloned().collect()
        })
    }

    async fn browse(&self, cursor: Option<&str>, limit: usize) -> Result<Page, SinkError> {
        let now = Utc::now();
        self.owned(|inner| {
            let visible = |kept: &Kept| kept.stored.fields.is_some() && kept.expires.is_none_or(|at| at > now);
            let above =
                inner.documents.iter().filter(|(key, kept)| cursor.is_none_or(|c| key.as_str() > c) && visible(kept));
            let documents: Vec<_> = above.take(limit).map(|(key, kept)| (key.clone(), kept.stored.clone())).collect();
            let next = (documents.len() == limit).then(|| documents.last().map(|(key, _)| key.clone())).flatten();
            Page { documents, next }
        })
    }

    async fn remove(&self, _: &[Partition]) -> Result<(), SinkError> {
        self.store.with(|inner| {
            if inner.owner.as_ref() == Some(&self.generation) {
                inner.owner = None;
                inner.documents.clear();
            }
        });
        Ok(())
    }

    async fn upkeep(&self) -> Result<(), SinkError> {
        let gone = Utc::now() - TimeDelta::days(TOMBSTONES_KEEP_DAYS.into());
        self.owned(|inner| inner.documents.retain(|_, kept| kept.expires.is_none_or(|at| at > gone)))
    }

    async fn count(&self) -> Result<u64, SinkError> {
        let now = Utc::now();
        let visible = |kept: &&Kept| kept.stored.fields.is_some() && kept.expires.is_none_or(|at| at > now);
        self.owned(|inner| inner.documents.values().filter(visible).count() as u64)
    }
}
