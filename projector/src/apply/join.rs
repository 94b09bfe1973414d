//! Joins: documents that show something of other aggregates (their parents) too.
//!
//! **Parts.** Each aggregate's events are folded into a part of their own, with a sequence of its own. A parent's part is kept
//! once, in its **entry**: a document without fields, so that readers never see it, whose hidden state is the part. A document
//! keeps, in its hidden state, its own part and a copy of its parents' parts, each with its sequence; its fields are derived
//! from these by a pure program. A part only ever goes forward, whoever writes it, so all interleavings end in the same document.
//!
//! **Who writes what.** An entry has one source, so its version is its part's sequence. A document is written by the owners of
//! its own events and of its parents' events, so its version counts its writes, and each is a compare-and-set.
//!
//! **Nothing is missed** between an owner that makes a document name a parent, and another that changes that parent:
//!
//! - whoever names a parent anew reads its entry *after* the document is written, once more, and redoes it if the entry is
//!   further than the copy;
//! - whoever changes an entry looks for the documents that name it *after* the entry is written, and brings them the part.
//!
//! Whichever of the two writes lands last, its writer finds the other one. Either may die in between: then its event isn't
//! covered by progress, comes again, and is done with only after the same look, though there is nothing left to fold.

use super::Stored;
use crate::expr::{Kind, Object, json};
use crate::projection::Join;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A document's parts. A [`Stored`] is a part here: its version is the part's sequence, its fields are none if the aggregate was
/// deleted or has not come yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) own: Stored,
    /// By the keys of their entries.
    pub(super) parents: BTreeMap<String, Stored>,
}

/// A part as text.
#[derive(Serialize, Deserialize)]
struct Text {
    sequence: i64,
    part: Option<serde_json::Map<String, Json>>,
}

#[derive(Serialize, Deserialize)]
struct PartsText {
    own: Text,
    parents: BTreeMap<String, Text>,
}

/// The key of a parent's entry. No document has such a key: see [`is_entry`].
pub(super) fn entry_key(aggregate: &str, id: &str) -> String {
    format!("_{aggregate}:{id}")
}

/// Whether a key can only be an entry's; an aggregate with such an id can't have a document.
pub(super) fn is_entry(key: &str) -> bool {
    key.starts_with('_')
}

fn kind_of(join: &Join, key: &str) -> Kind {
    let aggregate = key.strip_prefix('_').and_then(|key| key.split_once(':')).map_or("", |(aggregate, _)| aggregate);
    join.parts.get(aggregate).cloned().unwrap_or_else(Kind::any)
}

impl Text {
    fn of(part: &Stored) -> Self {
        Self { sequence: part.version, part: part.fields.as_deref().map(json::object_to_json) }
    }

    fn read(self, kind: &Kind) -> Stored {
        let fields = self.part.map(|part| Arc::new(json::object_from_json(part, kind)));
        Stored { version: self.sequence, fields, state: None }
    }
}

fn text(value: &impl Serialize) -> Arc<str> {
    // Maps with text keys, numbers, texts: there is nothing in it that JSON lacks.
    serde_json::to_string(value).unwrap_or_default().into()
}

fn unreadable(error: &serde_json::Error) -> String {
    format!("the document's hidden state can't be read: {error}")
}

/// The part that an entry holds.
pub(super) fn part_of(join: &Join, key: &str, entry: Stored) -> Result<Stored, String> {
    let Some(state) = &entry.state else { return Ok(Stored { version: entry.version, ..Stored::default() }) };
    let text: Text = serde_json::from_str(state).map_err(|e| unreadable(&e))?;
    Ok(text.read(&kind_of(join, key)))
}

/// The entry that holds a part.
pub(super) fn entry_of(part: &Stored) -> Stored {
    Stored { version: part.version, fields: None, state: Some(text(&Text::of(part))) }
}

impl Parts {
    pub(super) fn read(join: &Join, state: Option<&Arc<str>>) -> Result<Self, String> {
        let Some(state) = state else { return Ok(Self::default()) };
        let text: PartsText = serde_json::from_str(state).map_err(|e| unreadable(&e))?;
        let own = text.own.read(join.parts.get(&join.own).unwrap_or(&Kind::any()));
        let parents = text.parents.into_iter().map(|(key, part)| {
            let kind = kind_of(join, &key);
            (key, part.read(&kind))
        });
        Ok(Self { own, parents: parents.collect() })
    }

    pub(super) fn write(&self) -> Arc<str> {
        let parents = self.parents.iter().map(|(key, part)| (key.clone(), Text::of(part))).collect();
        text(&PartsText { own: Text::of(&self.own), parents })
    }

    /// The entries of the parents that the own part names.
    pub(super) fn named(&self, join: &Join) -> Result<BTreeSet<String>, String> {
        let Some(part) = &self.own.fields else { return Ok(BTreeSet::new()) };
        Ok(join.named(part)?.into_iter().map(|(aggregate, id)| entry_key(&aggregate, &id)).collect())
    }

    /// What readers see.
    pub(super) fn document(&self, join: &Join) -> Result<Option<Object>, String> {
        let Some(part) = &self.own.fields else { return Ok(None) };
        let parent = |aggregate: &Arc<str>, id: &str| self.parents.get(&entry_key(aggregate, id))?.fields.as_deref();
        join.derive(part, parent).map_err(|error| format!("`derive`: {error}"))
    }
}

/// The sequence of a document's own aggregate, as its hidden state has it.
pub(super) fn own_sequence(state: Option<&Arc<str>>) -> i64 {
    #[derive(Deserialize)]
    struct Own {
        sequence: i64,
    }
    #[derive(Deserialize)]
    struct Only {
        own: Own,
    }
    state.and_then(|state| serde_json::from_str::<Only>(state).ok()).map_or(0, |text| text.own.sequence)
}
