//! Documents as this owner last wrote them, so that the next event on one needn't load it again.
//!
//! Only an owner's own writes are kept, and every write stays conditional: where somebody else was faster the store refuses,
//! the document is forgotten and loaded. So the cache may be wrong without harm, and is simply emptied when it grows too large
//! or when partitions change hands.

use crate::sink::Stored;
use std::collections::HashMap;

/// Documents kept at most, for each generation: those that the next events may be about. A flood of new ones isn't worth more
/// memory, since none of them is asked for again.
const DOCUMENTS_MAX: usize = 4_000;

#[derive(Debug, Default)]
pub(super) struct Cache(HashMap<String, Stored>);

impl Cache {
    pub(super) fn get(&self, key: &str) -> Option<&Stored> {
        self.0.get(key)
    }

    pub(super) fn put(&mut self, key: String, document: Stored) {
        if self.0.len() >= DOCUMENTS_MAX {
            self.0.clear();
        }
        self.0.insert(key, document);
    }

    pub(super) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
