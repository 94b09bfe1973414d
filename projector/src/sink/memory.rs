//! The contract in a map, for tests of whatever drives a sink: calls can be made to fail before or after they took effect.

use super::{Outcome, Partition, Place, Sink, SinkError, Stored, Write, reserved_name};
use crate::apply::Progress;
use async_trait::async_trait;
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
    documents: BTreeMap<String, Stored>,
    progress: BTreeMap<(String, Partition), Progress>,
    faults: VecDeque<Fault>,
    writes: u64,
}

impl MemoryStore {
    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets the next calls to `write` and `save_progress` fail, one for each fault.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.with(|inner| inner.faults.extend(faults));
    }

    /// All documents, tombstones included.
    #[must_use]
    pub fn documents(&self) -> BTreeMap<String, Stored> {
        self.with(|inner| inner.documents.clone())
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
        if let Some(reason) = write.fields.as_ref().and_then(reserved_name) {
            return Outcome::Rejected(reason);
        }
        let fact = write.version == 0;
        match self.documents.get(&write.key) {
            Some(_) if fact => return Outcome::Written,
            Some(stored) if stored.version >= write.version => return Outcome::Stale,
            _ => {}
        }
        self.documents.insert(write.key.clone(), write.stored());
        self.writes += 1;
        Outcome::Written
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
        self.owned(|inner| keys.iter().map(|key| inner.documents.get(key).cloned()).collect())
    }

    async fn write(&self, batch: &[Write]) -> Result<Vec<Outcome>, SinkError> {
        self.changes(|inner| batch.iter().map(|write| inner.write(write)).collect())
    }

    async fn load_progress(&self, partitions: &[Partition]) -> Result<Vec<Option<Progress>>, SinkError> {
        let key = |p: &Partition| (self.generation.clone(), p.clone());
        self.owned(|inner| partitions.iter().map(|p| inner.progress.get(&key(p)).cloned()).collect())
    }

    async fn save_progress(&self, progress: &[(Partition, Progress)]) -> Result<(), SinkError> {
        self.changes(|inner| {
            for (partition, progress) in progress {
                inner.progress.insert((self.generation.clone(), partition.clone()), progress.clone());
            }
        })
    }

    async fn count(&self) -> Result<u64, SinkError> {
        self.owned(|inner| inner.documents.values().filter(|d| d.fields.is_some()).count() as u64)
    }
}
