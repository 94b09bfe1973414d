//! Driving a batch: load, fold, write, until the store has answered for all of it.

use super::HostError;
use super::cache::{Cache, Share};
use super::calls::Calls;
use crate::apply::{Batch, Finished, Part, Partition, Search};
use crate::projection::ReadModelKind;
use crate::sink::{Outcome, Stored, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Documents that a store loads in one go, by its contract.
const LOAD_MAX: usize = 10_000;

/// What folds into one generation's place. Batches without a document in common may be folded beside each other.
#[derive(Clone)]
pub(super) struct Folding {
    calls: Calls,
    cache: Arc<Mutex<Cache>>,
    fault_delay: Duration,
}

/// How a batch is folded.
#[derive(Clone, Copy, Default)]
pub(super) struct Manner {
    /// Nobody waits for it, and it is so large that others must get their turn while it is folded.
    pub(super) large: bool,
    /// Its progress may be saved with its writes, where the store can do that.
    pub(super) saves: bool,
}

/// What came of a batch.
#[derive(Default)]
pub(super) struct Folded {
    pub(super) finished: Finished,
    /// From when to when it was written; `None` if nothing of it was.
    pub(super) wrote: Option<(SystemTime, SystemTime)>,
    /// Whether its progress is saved.
    pub(super) saved: bool,
}

impl Folding {
    pub(super) fn new(calls: Calls, share: Share, fault_delay: Duration) -> Self {
        Self { calls, cache: Arc::new(Mutex::new(Cache::new(share))), fault_delay }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a document as it was last written.
    pub(super) fn forget(&self, key: &str) {
        self.cache().take(key);
    }

    /// Forgets all documents.
    pub(super) fn forget_all(&self) {
        self.cache().clear();
    }

    pub(super) async fn fold(&self, parts: Vec<(Partition, Part)>, manner: Manner) -> Result<Folded, HostError> {
        let apart = |work: &mut dyn FnMut()| if manner.large { tokio::task::block_in_place(work) } else { work() };
        let started = Instant::now();
        let (mut wrote, mut saved): (Option<(SystemTime, SystemTime)>, bool) = (None, false);
        let (compiled, mut parts, mut begun) = (Arc::clone(&self.calls.reader.compiled), Some(parts), None);
        apart(&mut || begun = parts.take().map(|parts| Batch::new(Arc::clone(&compiled), parts)));
        let Some(mut batch) = begun else { return Ok(Folded::default()) };
        let questions = batch.questions();
        if !questions.is_empty() {
            batch.told(self.calls.look_up(questions).await?);
        }
        while !batch.is_done() {
            for (search, found) in self.search(batch.searches()).await? {
                batch.found(&search, found);
            }
            let (mut loaded, mut writes) = (self.load(batch.keys()).await?, Vec::new());
            let folding = Instant::now();
            apart(&mut || writes = batch.fold(std::mem::take(&mut loaded)));
            let measures = &self.calls.stats.measures;
            measures.fold_seconds.observe(folding.elapsed().as_secs_f64());
            let writes = Arc::new(writes);
            if writes.is_empty() {
                continue;
            }
            if !self.fault_delay.is_zero() {
                tokio::time::sleep(self.fault_delay).await;
            }
            let writing = Instant::now();
            let since = wrote.map_or_else(SystemTime::now, |(since, _)| since);
            let progress = Arc::new(if manner.saves { batch.foreseen().unwrap_or_default() } else { Vec::new() });
            let (outcomes, with_progress) = self
                .calls
                .store(|sink| {
                    let (writes, progress) = (Arc::clone(&writes), Arc::clone(&progress));
                    Box::pin(async move { sink.write_with_progress(&writes, &progress).await })
                })
                .await?;
            saved |= with_progress;
            wrote = Some((since, SystemTime::now()));
            let measures = &self.calls.stats.measures;
            if !self.calls.sink.puts_off() {
                measures.write_seconds.observe(writing.elapsed().as_secs_f64());
                measures.written.inc_by(outcomes.iter().filter(|o| matches!(o, Outcome::Written)).count() as u64);
            }
            measures.conflicts.inc_by(outcomes.iter().filter(|o| matches!(o, Outcome::Stale)).count() as u64);
            // The sink has answered, and dropped its share of them.
            self.remember(Arc::unwrap_or_clone(writes), &outcomes);
            batch.answered(outcomes);
        }
        tracing::debug!(generation = self.calls.generation, ms = started.elapsed().as_millis(), "batch written");
        let finished = batch.finish();
        debug_assert!(!saved || finished.parked.is_empty() && finished.stops.is_empty(), "what was saved was to hold");
        Ok(Folded { finished, wrote, saved })
    }

    /// The documents that name parents, all searches at once.
    async fn search(&self, searches: Vec<Search>) -> Result<Vec<(Search, Vec<String>)>, HostError> {
        let all = searches.into_iter().map(|search| async {
            let asked = Arc::new(search.clone());
            let found = self
                .calls
                .store(|sink| {
                    let asked = Arc::clone(&asked);
                    Box::pin(async move { sink.children(&asked.parent, asked.after.as_deref(), asked.limit).await })
                })
                .await?;
            Ok((search, found))
        });
        futures::future::try_join_all(all).await
    }

    /// The documents of `keys`: those that we wrote last from the cache, the others from the store.
    async fn load(&self, keys: Vec<String>) -> Result<Vec<Option<Stored>>, HostError> {
        // What we have is taken out of the cache: it comes back with the answer to its write.
        let mut known: Vec<Option<Stored>> = {
            let mut cache = self.cache();
            keys.iter().map(|key| cache.take(key)).collect()
        };
        let (all, is_missing) = (keys.len(), known.iter().map(Option::is_none));
        let missing: Vec<String> = keys.into_iter().zip(is_missing).filter_map(|(key, is)| is.then_some(key)).collect();
        let (mut loaded, measures, loading) = (Vec::new(), &self.calls.stats.measures, Instant::now());
        measures.cache_misses.inc_by(missing.len() as u64);
        measures.cache_hits.inc_by((all - missing.len()) as u64);
        for missing in missing.chunks(LOAD_MAX) {
            let missing = Arc::new(missing.to_vec());
            let more = self.calls.store(|sink| {
                let missing = Arc::clone(&missing);
                Box::pin(async move { sink.load(&missing).await })
            });
            loaded.extend(more.await?);
        }
        if !missing.is_empty() {
            measures.load_seconds.observe(loading.elapsed().as_secs_f64());
        }
        let mut loaded = loaded.into_iter();
        known.iter_mut().filter(|known| known.is_none()).for_each(|known| *known = loaded.next().flatten());
        Ok(known)
    }

    fn remember(&self, writes: Vec<Write>, outcomes: &[Outcome]) {
        // Facts are never loaded. A join's guarantee is that it looks at the store after it has written. What is put off is at hand.
        if matches!(self.calls.reader.compiled.kind, ReadModelKind::Facts | ReadModelKind::Join)
            || self.calls.sink.puts_off()
        {
            return;
        }
        let mut cache = self.cache();
        for (write, outcome) in writes.into_iter().zip(outcomes) {
            // Of what the store has in another form than we know nothing is kept.
            if *outcome == Outcome::Written {
                let Write { key, version, fields, state, .. } = write;
                cache.put(key, Stored { version, fields, state });
            }
        }
    }
}
