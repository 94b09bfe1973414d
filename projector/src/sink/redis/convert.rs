//! A document as a hash and back. Fields are the plain text that people expect; a field's type comes from the type that was
//! inferred for it. Where that leaves more than one reading (a field that is now text, now a number), the field's name stands in
//! the hidden `_types` with the reading that is right.

use crate::apply::{Stored, Write};
use crate::expr::{Kind, Object, Value, json};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The field with the version.
pub(crate) const SEQ: &str = "_seq";
/// The field with the state.
const STATE: &str = "_state";
/// The field that a tombstone has.
pub(crate) const DELETED: &str = "_deleted";
/// The readings that the inferred types don't give.
const TYPES: &str = "_types";

/// Fields of a patch: the number of arguments of a call is limited.
const PATCH_MAX: usize = 500;

/// What is known of a document's fields; made once, for types are large.
#[derive(Debug)]
pub(crate) struct Fields {
    known: HashMap<String, Reading>,
    /// Of a field that has no type.
    other: Reading,
}

/// How a field's text is read.
#[derive(Debug)]
struct Reading {
    kind: Kind,
    is_ambiguous: bool,
}

impl Fields {
    /// The fields of a document of this type.
    pub(crate) fn new(document: &Kind) -> Self {
        let known = document.as_object().into_iter().flat_map(|fields| fields.known());
        let known = known.map(|(name, kind)| (name.to_string(), Reading::new(kind.clone()))).collect();
        Self { known, other: Reading::new(Kind::any()) }
    }

    fn of(&self, name: &str) -> &Reading {
        self.known.get(name).unwrap_or(&self.other)
    }
}

impl Reading {
    fn new(kind: Kind) -> Self {
        Self { is_ambiguous: is_ambiguous(&kind), kind }
    }
}

/// The fields of a hash, without its version.
pub(super) fn to_hash<'a>(write: &'a Write, fields: &Fields) -> Vec<(&'a str, Cow<'a, str>)> {
    let mut hash = match &write.fields {
        Some(document) => fields_to_hash(document, fields),
        None => vec![(DELETED, "1".into())],
    };
    if let Some(state) = &write.state {
        hash.push((STATE, state.as_ref().into()));
    }
    hash
}

/// What of a hash is set, and which of its fields go.
pub(super) struct Patch<'a> {
    pub(super) since: i64,
    pub(super) set: Vec<(&'a str, Cow<'a, str>)>,
    pub(super) gone: Vec<&'a str>,
}

/// The changed fields of a hash; none where all of it has to be written.
pub(super) fn to_patch<'a>(write: &'a Write, fields: &Fields) -> Option<Patch<'a>> {
    let (changed, document) = write.changed.as_ref().zip(write.fields.as_ref())?;
    if write.again || write.state.is_some() || write.expires.is_some() {
        return None;
    }
    let names = changed.fields();
    // How an ambiguous field is read stands in a field for all of them.
    if names.len() > PATCH_MAX || names.iter().any(|name| fields.of(name.as_str()).is_ambiguous) {
        return None;
    }
    let mut patch = Patch { since: changed.since, set: Vec::with_capacity(names.len()), gone: Vec::new() };
    for name in names {
        match document.get(name).and_then(json::to_plain) {
            Some(text) => patch.set.push((name.as_str(), text)),
            None => patch.gone.push(name.as_str()),
        }
    }
    Some(patch)
}

fn fields_to_hash<'a>(document: &'a Object, fields: &Fields) -> Vec<(&'a str, Cow<'a, str>)> {
    let mut hash = Vec::with_capacity(document.len() + 1);
    let mut types = BTreeMap::new();
    for (name, value) in document {
        let Some(text) = json::to_plain(value) else { continue };
        let field = fields.of(name.as_str());
        if field.is_ambiguous && from_text(&text, &field.kind).kind_str() != value.kind_str() {
            types.insert(name.as_str(), reading(value));
        }
        hash.push((name.as_str(), text));
    }
    if !types.is_empty() {
        hash.push((TYPES, Json::from_iter(types).to_string().into()));
    }
    hash
}

/// A hash as a document. `None` where there is none.
///
/// # Errors
/// When the hash has no version: something else wrote it.
pub(crate) fn from_hash(mut hash: HashMap<String, String>, fields: &Fields) -> Result<Option<Stored>, String> {
    if hash.is_empty() {
        return Ok(None);
    }
    let version = hash.get(SEQ).and_then(|seq| seq.parse().ok());
    let version = version.ok_or_else(|| format!("a hash without `{SEQ}`: not written by a projector"))?;
    let state = hash.remove(STATE).map(Into::into);
    if hash.contains_key(DELETED) {
        return Ok(Some(Stored { version, fields: None, state }));
    }
    let types: HashMap<String, String> =
        hash.remove(TYPES).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let visible = hash.into_iter().filter(|(name, _)| !name.starts_with('_'));
    let fields = visible.map(|(name, text)| {
        let value = match types.get(&name).map(String::as_str) {
            Some("json") => serde_json::from_str(&text).map_or(Value::Null, |v| json::from_json(v, &any_but_time())),
            Some("time") => json::from_json(Json::String(text), &Kind::timestamp()),
            Some(_) => Value::from(text),
            None => from_text(&text, &fields.of(&name).kind),
        };
        (name.into(), value)
    });
    Ok(Some(Stored { version, fields: Some(Arc::new(fields.collect())), state }))
}

fn from_text(text: &str, kind: &Kind) -> Value {
    if kind.contains_timestamp() {
        return json::from_json(text.into(), kind);
    }
    if kind.contains_bytes() {
        return Value::from(text);
    }
    serde_json::from_str(text).map_or_else(|_| Value::from(text), |value| json::from_json(value, kind))
}

fn reading(value: &Value) -> &'static str {
    match value {
        Value::Timestamp(_) => "time",
        Value::Bytes(_) | Value::String(_) | Value::Regex(_) => "text",
        _ => "json",
    }
}

/// Whether text of this field can be read in more than one way.
fn is_ambiguous(kind: &Kind) -> bool {
    let json = kind.contains_integer() || kind.contains_float() || kind.contains_boolean();
    let json = json || kind.contains_array() || kind.contains_object();
    let ways = [json, kind.contains_timestamp(), kind.contains_bytes() || kind.contains_regex()];
    ways.into_iter().filter(|way| *way).count() != 1
}

fn any_but_time() -> Kind {
    let mut kind = Kind::json();
    kind.remove_timestamp();
    kind
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::expr::Collection;

    fn hash(document: &Object, kind: &Kind) -> HashMap<String, String> {
        let write = Write { fields: Some(Arc::new(document.clone())), ..Write::default() };
        let hash = to_hash(&write, &Fields::new(kind));
        hash.into_iter().map(|(name, text)| (name.to_owned(), text.into_owned())).collect()
    }

    fn round_trip(document: &Object, kind: &Kind) -> Object {
        let mut hash = hash(document, kind);
        hash.insert(SEQ.into(), "7".into());
        let stored = from_hash(hash, &Fields::new(kind)).unwrap().unwrap();
        assert_eq!(stored.version, 7);
        Arc::unwrap_or_clone(stored.fields.unwrap())
    }

    fn object(json: Json, kind: &Kind) -> Object {
        match json::from_json(json, kind) {
            Value::Object(map) => map,
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn typed_fields_come_back_as_they_were_and_are_plain_text() {
        let kind = Kind::object(
            Collection::empty()
                .with_known("n", Kind::integer())
                .with_known("at", Kind::timestamp())
                .with_known("ok", Kind::boolean())
                .with_known("code", Kind::bytes())
                .with_known("list", Kind::array(Collection::from_unknown(Kind::bytes()))),
        );
        let json = serde_json::json!({
            "n": 9_007_199_254_740_993_i64, "at": "2026-11-21T05:00:00.123456Z", "ok": true, "code": "007", "list": ["1", "ä"]
        });
        let document = object(json, &kind);
        assert_eq!(round_trip(&document, &kind), document);
        let hash = hash(&document, &kind);
        assert_eq!(hash["n"], "9007199254740993");
        assert_eq!(hash["at"], "2026-11-21T05:00:00.123456Z");
        assert_eq!(hash["code"], "007");
        assert_eq!(hash["list"], r#"["1","ä"]"#);
        assert!(!hash.contains_key(TYPES));
    }

    #[test]
    fn a_field_of_several_types_keeps_each() {
        let kind = Kind::object(Collection::empty().with_known("v", Kind::bytes().or_integer().or_timestamp()));
        let time = json::from_json("2026-11-21T05:00:00Z".into(), &Kind::timestamp());
        for value in [Value::from(5), Value::from("5"), Value::from("true"), Value::from("2026-11-21T05:00:00Z"), time]
        {
            let document = Object::from([("v".into(), value)]);
            assert_eq!(round_trip(&document, &kind), document);
        }
    }

    #[test]
    fn null_is_no_field_and_an_empty_document_is_one() {
        let kind = Kind::object(Collection::empty().with_known("v", Kind::bytes().or_null()));
        assert!(round_trip(&Object::from([("v".into(), Value::Null)]), &kind).is_empty());
    }

    #[test]
    fn state_stands_beside_the_fields_of_a_document_and_of_a_tombstone() {
        let kind = Kind::object(Collection::empty().with_known("v", Kind::bytes()));
        for fields in [Some(Object::from([("v".into(), Value::from("x"))])), None] {
            let write = Write { fields: fields.map(Arc::new), state: Some("{\"a\":1}".into()), ..Write::default() };
            let hash = to_hash(&write, &Fields::new(&kind)).into_iter();
            let mut hash: HashMap<_, _> = hash.map(|(name, text)| (name.to_owned(), text.into_owned())).collect();
            hash.insert(SEQ.into(), "0".into());
            assert_eq!(from_hash(hash, &Fields::new(&kind)).unwrap(), Some(write.stored()));
        }
    }

    #[test]
    fn a_foreign_hash_is_refused() {
        assert!(from_hash(HashMap::from([("a".into(), "b".into())]), &Fields::new(&Kind::any())).is_err());
    }
}
