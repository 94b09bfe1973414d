//! Values as JSON and back. JSON has no timestamps, so reading needs the type that was inferred for the document.

use super::{Field, KeyString, Kind, Object, Value};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::ser::{Serialize, Serializer};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::cell::LazyCell;

/// RFC 3339 in UTC with exactly six digits, the one textual form of a time in every store and answer.
pub fn time_text(at: &DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A value that writes itself as JSON, without a tree of JSON values made first: times as [`time_text`], bytes as (lossy) text, null for a
/// number that isn't finite.
pub struct AsJson<'a>(pub &'a Value);

impl Serialize for AsJson<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Integer(n) => to.serialize_i64(*n),
            Value::Float(f) if !is_null(self.0) => to.serialize_f64(f.into_inner()),
            Value::Boolean(b) => to.serialize_bool(*b),
            Value::Object(map) => to.collect_map(map.iter().map(|(name, value)| (name.as_str(), AsJson(value)))),
            Value::Array(items) => to.collect_seq(items.iter().map(AsJson)),
            value => match as_text(value) {
                Some(text) => to.serialize_str(&text),
                None => to.serialize_unit(),
            },
        }
    }
}

/// Whether a value is null in JSON.
pub fn is_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Float(f) => !f.into_inner().is_finite(),
        _ => false,
    }
}

/// What is a string in JSON, without its quotes; none for all else.
pub fn as_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes)),
        Value::String(text) => Some(text.to_string().into()),
        Value::Timestamp(at) => Some(time_text(at).into()),
        Value::Regex(r) => Some(r.to_string().into()),
        _ => None,
    }
}

/// A value's JSON as text.
pub fn to_text(value: &Value) -> String {
    // Texts, numbers, maps with text keys: there is nothing in it that JSON lacks.
    serde_json::to_string(&AsJson(value)).unwrap_or_default()
}

/// A value as a plain text: [`as_text`], or else [`to_text`]; none for null.
pub fn to_plain(value: &Value) -> Option<Cow<'_, str>> {
    (!is_null(value)).then(|| as_text(value).unwrap_or_else(|| to_text(value).into()))
}

/// A value's JSON, to look into.
pub fn to_json(value: &Value) -> Json {
    // See `to_text`.
    serde_json::to_value(AsJson(value)).unwrap_or_default()
}

/// [`to_json`] for a whole document.
pub fn object_to_json(map: &Object) -> serde_json::Map<String, Json> {
    map.iter().map(|(k, v)| (k.to_string(), to_json(v))).collect()
}

/// A value from JSON. Text becomes a timestamp where `kind` says that the place holds one.
pub fn from_json(json: Json, kind: &Kind) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Boolean(b),
        Json::Number(n) => match n.as_i64() {
            Some(i) if !only_float(kind) => Value::Integer(i),
            _ => Value::from_f64_or_zero(n.as_f64().unwrap_or(0.0)),
        },
        Json::String(text) => {
            if kind.contains_timestamp()
                && let Ok(at) = DateTime::parse_from_rfc3339(&text)
            {
                return Value::Timestamp(at.to_utc());
            }
            Value::from(text)
        }
        Json::Array(items) => {
            let array = kind.as_array();
            let inner = array.map_or_else(Kind::any, |c| c.unknown_kind());
            let known = |i: usize| array.and_then(|c| c.known().get(&i.into())).unwrap_or(&inner);
            Value::Array(items.into_iter().enumerate().map(|(i, item)| from_json(item, known(i))).collect())
        }
        Json::Object(map) => Value::Object(object_from_json(map, kind)),
    }
}

/// [`from_json`] for a whole document.
pub fn object_from_json(map: serde_json::Map<String, Json>, kind: &Kind) -> Object {
    let fields = kind.as_object();
    // Types are large: one that isn't needed isn't made.
    let unknown = LazyCell::new(|| fields.map_or_else(Kind::any, |c| c.unknown_kind()));
    map.into_iter()
        .map(|(name, value)| {
            let key = KeyString::from(name);
            let kind = fields.and_then(|c| c.known().get(&Field::from(key.as_str()))).unwrap_or_else(|| &unknown);
            let value = from_json(value, kind);
            (key, value)
        })
        .collect()
}

fn only_float(kind: &Kind) -> bool {
    kind.contains_float() && !kind.contains_integer()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_form_in_json() {
        let at = DateTime::from_timestamp_micros(1_000_001).unwrap_or_default();
        let items =
            vec![Value::from(-5), Value::from_f64_or_zero(2.5), Value::from_f64_or_zero(f64::INFINITY), Value::Null];
        let value = Value::Object(Object::from([
            ("a\"b".into(), Value::Timestamp(at)),
            ("items".into(), Value::Array(items)),
            ("none".into(), Value::Object(Object::new())),
            ("text".into(), Value::from(&b"caf\xc3\xa9\n\xff"[..])),
            ("true".into(), Value::Boolean(true)),
        ]));
        let text = "{\"a\\\"b\":\"1970-01-01T00:00:01.000001Z\",\"items\":[-5,2.5,null,null],\"none\":{},\"text\":\"café\\n\u{fffd}\",\"true\":true}";
        assert_eq!(to_text(&value), text);
        assert_eq!(to_json(&value), serde_json::from_str::<Json>(text).unwrap_or_default());
    }

    #[test]
    fn a_plain_text_has_no_quotes_and_null_is_none() {
        let plain = |value: &Value| to_plain(value).map(Cow::into_owned);
        assert_eq!(plain(&Value::from("a\"b")).as_deref(), Some("a\"b"));
        assert_eq!(plain(&Value::Array(vec![Value::from("a")])).as_deref(), Some("[\"a\"]"));
        assert_eq!(plain(&Value::from_f64_or_zero(5.0)).as_deref(), Some("5.0"));
        assert_eq!([&Value::Null, &Value::from_f64_or_zero(f64::NEG_INFINITY)].map(plain), [None, None]);
    }
}
