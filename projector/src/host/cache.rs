//! Documents as this owner last wrote them, so that the next event on one needn't load it again.
//!
//! Only an owner's own writes are kept, and every write stays conditional: where somebody else was faster the store refuses,
//! the document is forgotten and loaded. So the cache may be wrong without harm, and is simply emptied when it grows too large
//! or when partitions change hands.
//!
//! Its size is counted in bytes, and the owners of a host share them evenly: a host's memory doesn't depend on how many read
//! models it feeds, nor on how large their documents are.

use crate::apply::QuickMap;
use crate::sink::Stored;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Bytes of documents that a host keeps, in all: those that the next events may be about. A flood of new ones isn't worth more
/// memory, since none of them is asked for again.
const HOST_BYTES: usize = 32 << 20;
/// Events in batches, and waiting for one, that a host holds in all, with the documents that they are folded into.
const HOST_EVENTS: usize = 16_000;
/// The least and the most that one owner may hold of them.
const OWNER_EVENTS: RangeInclusive<usize> = 500..=4_000;
/// A replay may hold so many times as many: the more events are in a batch, the fewer documents they come to, and the less often one
/// partition's batch is over while the next one's messages are still behind the others'.
const REPLAY_TIMES: usize = 4;

/// One owner's part of [`HOST_BYTES`] and [`HOST_EVENTS`]; it is the smaller the more of them there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Share(Arc<()>);

impl Share {
    fn bytes(&self) -> usize {
        // The host itself holds one, too.
        HOST_BYTES / Arc::strong_count(&self.0)
    }

    /// How many events the owner may hold.
    pub(super) fn events(&self, replaying: bool) -> usize {
        let share = (HOST_EVENTS / Arc::strong_count(&self.0)).clamp(*OWNER_EVENTS.start(), *OWNER_EVENTS.end());
        if replaying { share * REPLAY_TIMES } else { share }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cache {
    documents: QuickMap<String, (Stored, usize)>,
    bytes: usize,
    share: Share,
}

impl Cache {
    pub(super) fn new(share: Share) -> Self {
        Self { documents: QuickMap::default(), bytes: 0, share }
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Stored> {
        let (document, bytes) = self.documents.remove(key)?;
        self.bytes -= bytes;
        Some(document)
    }

    pub(super) fn put(&mut self, key: String, document: Stored) {
        self.take(&key);
        let bytes = key.len() + document.bytes();
        if self.bytes + bytes > self.share.bytes() {
            self.clear();
        }
        self.bytes += bytes;
        self.documents.insert(key, (document, bytes));
    }

    pub(super) fn clear(&mut self) {
        // A new map, since an emptied one keeps its memory.
        (self.documents, self.bytes) = (QuickMap::default(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Object, Value};

    fn document(bytes: usize) -> Stored {
        let fields = Object::from([("list".into(), Value::Array(vec![Value::from("x".repeat(bytes)); 4]))]);
        Stored { version: 1, fields: Some(Arc::new(fields)), state: None }
    }

    #[test]
    fn owners_share_the_host_evenly() {
        let share = Share::default();
        let mut caches = [(); 3].map(|()| Cache::new(share.clone()));
        for cache in &mut caches {
            for i in 0..1_000 {
                cache.put(i.to_string(), document(10_000));
                assert!(cache.bytes <= HOST_BYTES / 4, "a quarter each, and one the host's");
            }
            assert!(cache.take("999").is_some());
        }
        let [mut last, ..] = caches;
        last.clear();
        assert_eq!((last.bytes, last.take("999").is_some()), (0, false));
        last.put("a".into(), document(10));
        last.put("a".into(), document(20));
        last.take("a");
        assert_eq!(last.bytes, 0, "what is replaced or taken counts no longer");
        last.put("vast".into(), document(HOST_BYTES));
        assert!(last.take("vast").is_some(), "the last one is kept whatever its size");
    }
}
