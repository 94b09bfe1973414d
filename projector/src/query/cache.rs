//! Answers that are given again, where a query declares it.
//!
//! - Many who ask the same at once cost one read: the first makes the answer, the others wait for it.
//! - One is dropped after its time to live, or, where the query says so, as soon as the read model has moved on.
//! - A caller whose token asks for more than a kept answer covers gets one of its own, which replaces the kept one.
//! - Refusals and stale answers aren't kept.
//!
//! Bounded by bytes, over all queries.

use super::answer::Answer;
use super::feed::Feed;
use super::parameters::Arguments;
use super::wait::Halt;
use crate::projection::Cache as Settings;
use moka::Expiry;
use moka::future::Cache;
use serde_json::Value as Json;
use std::sync::Arc;
use std::time::Duration;

/// All kept answers together.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What an answer takes beside its text.
const OVERHEAD_BYTES: usize = 512;

/// A generation, a query, its arguments; whether it is for subscribers.
pub(crate) type Key = (i64, u64, Arc<str>, bool);

/// Kept answers.
#[derive(Clone)]
pub(crate) struct Cached(Cache<Key, Entry>);

#[derive(Clone)]
struct Entry {
    answer: Arc<Answer>,
    ttl: Duration,
}

struct ByEntry;

impl Expiry<Key, Entry> for ByEntry {
    fn expire_after_create(&self, _: &Key, entry: &Entry, _: std::time::Instant) -> Option<Duration> {
        Some(entry.ttl)
    }

    fn expire_after_update(
        &self,
        _: &Key,
        entry: &Entry,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}

impl Default for Cached {
    fn default() -> Self {
        // The body is there as text and as values, which take a few times as much.
        let weigh =
            |_: &Key, entry: &Entry| u32::try_from(entry.answer.text.len() * 4 + OVERHEAD_BYTES).unwrap_or(u32::MAX);
        Self(Cache::builder().weigher(weigh).max_capacity(BYTES_MAX).expire_after(ByEntry).build())
    }
}

impl Cached {
    pub(crate) fn key(generation_id: i64, endpoint: u64, arguments: &Arguments, is_watching: bool) -> Key {
        let mut sorted: Vec<_> = arguments.iter().collect();
        sorted.sort_unstable_by_key(|(name, _)| *name);
        let text = Json::from_iter(sorted.into_iter().map(|(name, value)| (name.clone(), value.clone()))).to_string();
        (generation_id, endpoint, text.into(), is_watching)
    }

    /// A kept answer, unless it is over.
    pub(crate) async fn get(&self, key: &Key, settings: &Settings, feed: &Feed) -> Option<Arc<Answer>> {
        let Entry { answer, .. } = self.0.get(key).await?;
        if settings.drop_on_progress && answer.moved != feed.moved() {
            self.0.invalidate(key).await;
            return None;
        }
        Some(answer)
    }

    /// The answer that `make` gives, or that another caller is making right now.
    pub(crate) async fn get_or_make(
        &self,
        key: Key,
        settings: &Settings,
        make: impl Future<Output = Result<Answer, Halt>>,
    ) -> Result<Arc<Answer>, Halt> {
        let ttl = Duration::from_secs(settings.ttl_s);
        let made = async {
            let answer = Arc::new(make.await.map_err(Refusal::No)?);
            if answer.stale.is_some() { Err(Refusal::NotKept(answer)) } else { Ok(Entry { answer, ttl }) }
        };
        match self.0.try_get_with(key, made).await {
            Ok(entry) => Ok(entry.answer),
            Err(refusal) => match &*refusal {
                Refusal::No(halt) => Err(halt.clone()),
                Refusal::NotKept(answer) => Ok(Arc::clone(answer)),
            },
        }
    }

    /// Keeps an answer that was made for one caller.
    pub(crate) async fn keep(&self, key: Key, settings: &Settings, answer: &Arc<Answer>) {
        if answer.stale.is_none() {
            let entry = Entry { answer: Arc::clone(answer), ttl: Duration::from_secs(settings.ttl_s) };
            self.0.insert(key, entry).await;
        }
    }
}

/// What came instead of an answer to keep.
enum Refusal {
    No(Halt),
    NotKept(Arc<Answer>),
}
