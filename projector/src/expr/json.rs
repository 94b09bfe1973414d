//! Values as JSON and back. JSON has no timestamps, so reading needs the type that was inferred for the document.

use super::{Field, KeyString, Kind, Object, Value};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value as Json;
use std::cell::LazyCell;

/// RFC 3339 in UTC with exactly six digits, the one textual form of a time in every store and answer.
pub fn time_text(at: &DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The JSON form of a value: times as [`time_text`], bytes as (lossy) text.
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Bytes(bytes) => Json::String(String::from_utf8_lossy(bytes).into_owned()),
        Value::String(text) => Json::String(text.to_string()),
        Value::Integer(n) => Json::from(*n),
        Value::Float(f) => serde_json::Number::from_f64(f.into_inner()).map_or(Json::Null, Json::Number),
        Value::Boolean(b) => Json::Bool(*b),
        Value::Timestamp(at) => Json::String(time_text(at)),
        Value::Regex(r) => Json::String(r.to_string()),
        Value::Object(map) => Json::Object(object_to_json(map)),
        Value::Array(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Null => Json::Null,
    }
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
