//! One document, one event: the innermost step.

use super::join;
use crate::event::{Envelope, SeenEvent};
use crate::expr::{KeyString, Names, Object, Program, RunError, Value};
use crate::projection::{ReadModelKind, Ttl};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A topic's partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Partition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub number: i32,
}

/// By number first: each message is looked for by its partition, and numbers are compared more quickly than topics.
impl Ord for Partition {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number).then_with(|| self.topic.cmp(&other.topic))
    }
}

impl PartialOrd for Partition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What an entry of a map or list costs beside what it holds.
const ENTRY_BYTES: usize = 64;

/// About what a document takes in memory.
fn bytes_of(fields: Option<&Object>, state: Option<&Arc<str>>) -> usize {
    fn value(of: &Value) -> usize {
        ENTRY_BYTES
            + match of {
                Value::Bytes(bytes) => bytes.len(),
                Value::Object(fields) => object(fields),
                Value::Array(values) => values.iter().map(value).sum(),
                _ => 0,
            }
    }
    fn object(fields: &Object) -> usize {
        fields.iter().map(|(key, field)| key.len() + value(field)).sum()
    }
    2 * ENTRY_BYTES + fields.map_or(0, object) + state.map_or(0, |state| state.len())
}

/// A document as the store holds it. Copying it copies none of its fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// The version that its last write gave it.
    pub version: i64,
    /// The fields; `None` for a tombstone.
    pub fields: Option<Arc<Object>>,
    /// What folding needs and readers never see (a rollup's slices with their guards), as the core wrote it.
    pub state: Option<Arc<str>>,
}

/// One conditional write. Copying it copies none of its fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Write {
    /// The document's key; for facts the row's stable id, `<event id>/<row>`.
    pub key: String,
    /// The version that the document reaches with this write: lands only where the store has a smaller one or none.
    /// Always 1 for facts, which only have to be there.
    pub version: i64,
    /// The new fields, whole; `None` leaves a tombstone.
    pub fields: Option<Arc<Object>>,
    /// Kept beside the fields, hidden from readers; see [`Stored::state`]. A tombstone may have one too.
    pub state: Option<Arc<str>>,
    /// When readers must no longer find the document; an event's time and a span, never the clock's.
    pub expires: Option<DateTime<Utc>>,
    /// The names of the parents it was derived from, by which the store finds it again.
    pub parents: Vec<String>,
    /// Lands on this very version too: the document is made anew.
    pub again: bool,
    /// What is new in it, where that is known; a store may replace all fields all the same.
    pub changed: Option<Changed>,
}

/// What is new in a document since a version of it that had fields: a store that holds that very version needs to be given no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// That version.
    pub since: i64,
    sets: Vec<Names>,
}

impl Changed {
    /// Nothing yet.
    #[must_use]
    pub fn since(version: i64) -> Self {
        Self { since: version, sets: Vec::new() }
    }

    /// These fields may be others now, or gone.
    pub fn add(&mut self, names: &Names) {
        if !self.sets.iter().any(|known| Arc::ptr_eq(known, names)) {
            self.sets.push(Arc::clone(names));
        }
    }

    /// All of them.
    #[must_use]
    pub fn fields(&self) -> BTreeSet<&KeyString> {
        self.sets.iter().flat_map(|names| names.iter()).collect()
    }
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
    /// Whether it leaves nothing but a version, which is needed as long as old events may be read again. State is needed for good:
    /// a join's parents live in documents that have nothing else.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.fields.is_none() && self.state.is_none()
    }

    /// About what it takes in memory, without its key.
    #[must_use]
    pub fn bytes(&self) -> usize {
        bytes_of(self.fields.as_deref(), self.state.as_ref())
    }

    /// What the store holds once it has taken this write.
    #[must_use]
    pub fn stored(&self) -> Stored {
        Stored { version: self.version, fields: self.fields.clone(), state: self.state.clone() }
    }

    /// [`Write::stored`], made from what changed alone where a store holds the very version that it changed from; none if it holds a
    /// newer one.
    #[must_use]
    pub fn stored_over(&self, held: &Stored) -> Option<Stored> {
        let Some(changed) = self.changed.as_ref().filter(|changed| held.version >= changed.since) else {
            return Some(self.stored());
        };
        let (mut fields, new) =
            held.fields.clone().filter(|_| held.version == changed.since).zip(self.fields.as_ref())?;
        let known = Arc::make_mut(&mut fields);
        for name in changed.fields() {
            match new.get(name) {
                Some(value) => _ = known.insert(name.clone(), value.clone()),
                None => _ = known.remove(name),
            }
        }
        Some(Stored { version: self.version, fields: Some(fields), state: self.state.clone() })
    }
}

impl Stored {
    /// About what it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        bytes_of(self.fields.as_deref(), self.state.as_ref())
    }

    /// The sequence of the aggregate that has this document, where it has one; see [`ReadModelKind`].
    #[must_use]
    pub fn sequence(&self, kind: ReadModelKind) -> i64 {
        if kind == ReadModelKind::Join { join::own_sequence(self.state.as_ref()) } else { self.version }
    }

    /// Folds one event in: gives the fields that may be others now, `None` if any of them may. The document is unchanged if that fails.
    pub(super) fn fold<'a>(
        &mut self,
        program: &'a Program,
        event: &Event,
        data: &Value,
        looked_up: Option<&Object>,
    ) -> Result<Option<&'a Names>, Poison> {
        // The program may fail half way; then the fields must still be what they were.
        let kept = if program.can_fail() { self.fields.clone() } else { None };
        // Copied where they are still kept: here, or by who gave them.
        let mut document = Value::Object(self.fields.take().map(Arc::unwrap_or_clone).unwrap_or_default());
        let seen = SeenEvent::new(&event.envelope, data, looked_up);
        let result = program.change(&mut document, &seen).map_err(Poison::from).and_then(|names| match document {
            Value::Object(fields) => Ok((Some(Arc::new(fields)), names)),
            Value::Null => Ok((None, None)),
            other => Err(Poison::NotADocument(other.kind_str().to_owned())),
        });
        match result {
            Ok((fields, names)) => {
                self.fields = fields;
                self.version = event.envelope.reference.sequence;
                Ok(names)
            }
            Err(poison) => {
                self.fields = kept;
                Err(poison)
            }
        }
    }
}

/// When a document expires, by the field that its time to live counts from or else by its last event. The clock has no say.
pub(super) fn expires(
    ttl: Option<&Ttl>,
    fields: Option<&Object>,
    last: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, String> {
    let (Some(ttl), Some(fields)) = (ttl, fields) else { return Ok(None) };
    let from = match &ttl.after {
        None => Some(last),
        Some(name) => match fields.get(name.as_str()) {
            Some(Value::Timestamp(at)) => Some(*at),
            Some(Value::Bytes(text)) => time(&String::from_utf8_lossy(text)),
            Some(Value::String(text)) => time(text),
            None | Some(Value::Null) => return Ok(None),
            Some(_) => None,
        },
    };
    let name = ttl.after.as_deref().unwrap_or_default();
    let from =
        from.ok_or_else(|| format!("`{name}`, from which its time to live counts, is neither a day nor a time"))?;
    Ok(ttl.span().and_then(|span| from.checked_add_signed(span)))
}

/// A day (from midnight, UTC) or a time.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let day = || text.parse::<NaiveDate>().ok().map(|day| day.and_time(NaiveTime::MIN).and_utc());
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc()).or_else(day)
}

/// The rows that one event adds: an object is one, an array several, null none.
pub(super) fn rows(
    program: &Program,
    event: &Event,
    data: &Value,
    looked_up: Option<&Object>,
) -> Result<Vec<Write>, Poison> {
    let mut document = Value::Object(Object::new());
    program.run(&mut document, &SeenEvent::new(&event.envelope, data, looked_up))?;
    let values = match document {
        Value::Array(values) => values,
        Value::Null => Vec::new(),
        one => vec![one],
    };
    let row = |(number, value): (usize, Value)| match value {
        Value::Object(fields) => {
            let key = format!("{}/{number}", event.envelope.id);
            Ok(Write { key, fields: Some(Arc::new(fields)), ..Write::default() })
        }
        other => Err(Poison::NotADocument(other.kind_str().to_owned())),
    };
    values.into_iter().enumerate().map(row).collect()
}
