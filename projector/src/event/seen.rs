//! An event as programs see it, as `%`.

use super::Envelope;
use crate::expr::{Fields, Kind, Object, Value};
use std::cell::OnceCell;

/// What programs see as `%`: the envelope's fields, the payload as `data`, and what was looked up. A field of the envelope is
/// made when it is first read; nothing else is copied.
#[derive(Debug)]
pub struct SeenEvent<'a> {
    envelope: &'a Envelope,
    data: &'a Value,
    looked_up: Option<&'a Object>,
    /// By the place in [`FIELDS`].
    made: [OnceCell<Value>; FIELDS.len()],
    whole: OnceCell<Value>,
}

/// One field of the envelope.
type Field = (&'static str, fn() -> Kind, fn(&Envelope) -> Value);

const FIELDS: [Field; 7] = [
    ("id", Kind::bytes, |envelope| Value::from(envelope.id.to_string())),
    ("type", Kind::bytes, |envelope| Value::from(&*envelope.event_type)),
    ("version", Kind::integer, |envelope| Value::Integer(i64::from(envelope.schema_version))),
    ("aggregate_type", Kind::bytes, |envelope| Value::from(&*envelope.aggregate_type)),
    ("aggregate_id", Kind::bytes, |envelope| Value::from(&*envelope.reference.aggregate_id)),
    ("sequence", Kind::integer, |envelope| Value::Integer(envelope.reference.sequence)),
    ("occurred_at", Kind::timestamp, |envelope| Value::Timestamp(envelope.occurred_at)),
];

impl<'a> SeenEvent<'a> {
    /// The field that holds the payload.
    pub const DATA: &'static str = "data";

    /// An event with its payload, and what was looked up for it.
    #[must_use]
    pub fn new(envelope: &'a Envelope, data: &'a Value, looked_up: Option<&'a Object>) -> Self {
        Self { envelope, data, looked_up, made: Default::default(), whole: OnceCell::new() }
    }

    /// The names of the fields that every event has.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FIELDS.iter().map(|(name, _, _)| *name).chain([Self::DATA])
    }

    /// The type of an event whose payload is of type `data`, with what is looked up.
    pub fn kind_with<'k>(data: Kind, looked_up: impl IntoIterator<Item = (&'k str, Kind)>) -> Kind {
        let fields = FIELDS.iter().map(|(name, kind, _)| (*name, kind())).chain([(Self::DATA, data)]);
        let fields = fields.chain(looked_up);
        Kind::object(fields.fold(crate::expr::Collection::empty(), |all, (name, kind)| all.with_known(name, kind)))
    }
}

impl Fields for SeenEvent<'_> {
    fn field(&self, name: &str) -> Option<&Value> {
        if name == Self::DATA {
            return Some(self.data);
        }
        match FIELDS.iter().position(|(field, _, _)| *field == name) {
            Some(at) => Some(self.made[at].get_or_init(|| FIELDS[at].2(self.envelope))),
            None => self.looked_up?.get(name),
        }
    }

    fn whole(&self) -> &Value {
        self.whole.get_or_init(|| {
            let own = Self::names().filter_map(|name| Some((name.into(), self.field(name)?.clone())));
            let looked_up = self.looked_up.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone()));
            Value::Object(own.chain(looked_up).collect())
        })
    }
}
