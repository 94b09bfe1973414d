//! One document, one event: the innermost step.

use super::join;
use crate::event::Envelope;
use crate::expr::{Object, Program, RunError, Value};
use crate::projection::ReadModelKind;
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// A topic's partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub number: i32,
}

/// A document as the store holds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// The version that its last write gave it.
    pub version: i64,
    /// The fields; `None` for a tombstone.
    pub fields: Option<Object>,
    /// What folding needs and readers never see (a rollup's slices with their guards), as the core wrote it.
    pub state: Option<Arc<str>>,
}

/// One conditional write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Write {
    /// The document's key; for facts the row's stable id, `<event id>/<row>`.
    pub key: String,
    /// The version that the document reaches with this write: lands only where the store has a smaller one or none.
    /// Always 0 for facts.
    pub version: i64,
    /// The new fields, whole; `None` leaves a tombstone.
    pub fields: Option<Object>,
    /// Kept beside the fields, hidden from readers; see [`Stored::state`]. A tombstone may have one too.
    pub state: Option<Arc<str>>,
    /// When readers must no longer find the document; an event's time and a span, never the clock's.
    pub expires: Option<DateTime<Utc>>,
    /// The names of the parents it was derived from, by which the store finds it again.
    pub parents: Vec<String>,
}

/// What became of one [`Write`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The store has it.
    Written,
    /// The store already held this version or a newer one; nothing was changed.
    Stale,
    /// The store refuses this content, and would refuse it again.
    Rejected(String),
}

/// An event that the projection takes.
#[derive(Clone, Debug)]
pub struct Event {
    /// All but the payload.
    pub envelope: Envelope,
    /// The payload in its newest version, or why it can't be read; none where the projection has no program for this type.
    pub data: Option<Result<Value, String>>,
}

/// Why an event can't be folded, now or later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// The program stopped.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The program left something that isn't a document.
    #[error("the program left {0} where a document must be an object, or null to delete it")]
    NotADocument(String),
    /// A rollup's row can't be added up.
    #[error("the program left a row that can't be added: {0}")]
    NotAnAddition(String),
}

impl Write {
    /// What the store holds once it has taken this write.
    #[must_use]
    pub fn stored(&self) -> Stored {
        Stored { version: self.version, fields: self.fields.clone(), state: self.state.clone() }
    }
}

impl Stored {
    /// The sequence of the aggregate that has this document, where it has one; see [`ReadModelKind`].
    #[must_use]
    pub fn sequence(&self, kind: ReadModelKind) -> i64 {
        if kind == ReadModelKind::Join { join::own_sequence(self.state.as_ref()) } else { self.version }
    }

    /// Folds one event in. The document is unchanged if that fails.
    pub(super) fn fold(&mut self, program: &Program, event: &Event, data: &Value) -> Result<(), Poison> {
        // The program may fail half way; then the fields must still be what they were.
        let kept = if program.can_fail() { self.fields.clone() } else { None };
        let mut document = Value::Object(self.fields.take().unwrap_or_default());
        let mut seen = event.envelope.to_value(data.clone());
        let result = program.run(&mut document, &mut seen).map_err(Poison::from).and_then(|_| match document {
            Value::Object(fields) => Ok(Some(fields)),
            Value::Null => Ok(None),
            other => Err(Poison::NotADocument(other.kind_str().to_owned())),
        });
        match result {
            Ok(fields) => {
                self.fields = fields;
                self.version = event.envelope.reference.sequence;
                Ok(())
            }
            Err(poison) => {
                self.fields = kept;
                Err(poison)
            }
        }
    }
}

/// The rows that one event adds: an object is one, an array several, null none.
pub(super) fn rows(program: &Program, event: &Event, data: &Value) -> Result<Vec<Write>, Poison> {
    let mut document = Value::Object(Object::new());
    program.run(&mut document, &mut event.envelope.to_value(data.clone()))?;
    let values = match document {
        Value::Array(values) => values,
        Value::Null => Vec::new(),
        one => vec![one],
    };
    let row = |(number, value): (usize, Value)| match value {
        Value::Object(fields) => {
            let key = format!("{}/{number}", event.envelope.id);
            Ok(Write { key, fields: Some(fields), ..Write::default() })
        }
        other => Err(Poison::NotADocument(other.kind_str().to_owned())),
    };
    values.into_iter().enumerate().map(row).collect()
}
