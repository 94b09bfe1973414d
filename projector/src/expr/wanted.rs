//! Which part of a value is read, by whoever reads it, so that the rest of it need not be made.

use super::KeyString;
use std::collections::BTreeMap;
use vrl::path::OwnedSegment;

/// What of a value is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The whole of it.
    All,
    /// Of an object these fields, and of each of them that much.
    Fields(BTreeMap<KeyString, Wanted>),
}

impl Wanted {
    /// Nothing yet.
    #[must_use]
    pub fn nothing() -> Self {
        Self::Fields(BTreeMap::new())
    }

    /// Wants what lies at this path too. Of a list it is all or nothing.
    pub(super) fn add(&mut self, path: &[OwnedSegment]) {
        match (&mut *self, path) {
            (Self::All, _) => {}
            (Self::Fields(fields), [OwnedSegment::Field(name), rest @ ..]) => {
                fields.entry(name.clone()).or_insert_with(Self::nothing).add(rest);
            }
            _ => *self = Self::All,
        }
    }

    /// How much of a field is wanted; none if nothing is.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&Self> {
        match self {
            Self::All => Some(self),
            Self::Fields(fields) => fields.get(name),
        }
    }
}
