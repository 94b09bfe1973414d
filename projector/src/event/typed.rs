//! JSON taken at a schema's word.
//!
//! Events that people write by hand, in tests and examples: what the schema doesn't have is an error with its path; what the
//! writer left out gets a value that shows where it comes from. And events of outboxes that keep JSON: there, what the schema
//! doesn't have is passed over, as a reader of Avro would, and what is left out is null or an error.

use super::Shape;
use crate::expr::{Object, Value, json};
use chrono::{DateTime, NaiveDate, Utc};
use serde_json::Value as Json;

/// Something that isn't as the schema says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where, from the outside in; a list's items by their number.
    pub path: Vec<String>,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub help: String,
}

/// What fields that aren't given are made from.
#[derive(Clone, Debug)]
pub struct Sample {
    /// All times.
    pub at: DateTime<Utc>,
    /// Texts by the name of their field; a text's value is its field's name otherwise.
    pub texts: Vec<(String, String)>,
}

impl Shape {
    /// The value that `given` stands for.
    ///
    /// # Errors
    /// Everything in it that the schema doesn't allow.
    pub fn typed(&self, given: &Json, sample: &Sample) -> Result<Value, Vec<Mismatch>> {
        self.type_json(given, Some(sample))
    }

    /// The value that an event's JSON stands for. Times are RFC 3339 texts or numbers of the schema's unit.
    ///
    /// # Errors
    /// Everything in it that the schema doesn't allow.
    pub fn read_json(&self, given: &Json) -> Result<Value, Vec<Mismatch>> {
        self.type_json(given, None)
    }

    fn type_json(&self, given: &Json, sample: Option<&Sample>) -> Result<Value, Vec<Mismatch>> {
        let mut typing = Typing { sample, path: Vec::new(), found: Vec::new() };
        let value = typing.value(self, given);
        if typing.found.is_empty() { Ok(value) } else { Err(typing.found) }
    }

    fn takes_null(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Union(branches) => branches.contains(&Self::Null),
            _ => false,
        }
    }

    /// A value of this shape for a field that nobody gave.
    fn sample(&self, name: &str, sample: &Sample) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Boolean => Value::Boolean(false),
            Self::Integer => Value::Integer(0),
            Self::Float | Self::Double => Value::from_f64_or_zero(0.0),
            Self::Text | Self::Bytes | Self::Fixed(_) => {
                let known = sample.texts.iter().find(|(field, _)| field == name);
                Value::from(known.map_or(name, |(_, text)| text))
            }
            Self::Timestamp(_) | Self::Date => Value::Timestamp(sample.at),
            Self::Enum(symbols) => Value::from(symbols.first().map_or("", String::as_str)),
            Self::Array(_) => Value::Array(Vec::new()),
            Self::Map(_) => Value::Object(Object::new()),
            Self::Union(branches) if branches.contains(&Self::Null) => Value::Null,
            Self::Union(branches) => branches.first().map_or(Value::Null, |branch| branch.sample(name, sample)),
            Self::Unwanted(shape) => shape.sample(name, sample),
            Self::Record(fields, defaults) => {
                let given = fields.iter().map(|(name, shape)| (name.clone(), shape.sample(name, sample)));
                Value::Object(given.chain(defaults.iter().cloned()).collect())
            }
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Integer => "a whole number".to_owned(),
            Self::Float | Self::Double => "a number".to_owned(),
            Self::Text | Self::Bytes | Self::Fixed(_) => "text".to_owned(),
            Self::Timestamp(_) => "a time, such as 2026-05-23T10:00:00Z".to_owned(),
            Self::Date => "a day, such as 2026-05-23".to_owned(),
            Self::Enum(symbols) => format!("one of {}", symbols.join(", ")),
            Self::Array(items) => format!("a list of which each is {}", items.describe()),
            Self::Map(values) => format!("an object whose values are {}", values.describe()),
            Self::Union(branches) => branches.iter().map(Self::describe).collect::<Vec<_>>().join(" or "),
            Self::Record(..) => "an object".to_owned(),
            Self::Unwanted(shape) => shape.describe(),
        }
    }
}

struct Typing<'a> {
    /// None for events that are no examples.
    sample: Option<&'a Sample>,
    path: Vec<String>,
    found: Vec<Mismatch>,
}

impl Typing<'_> {
    fn value(&mut self, shape: &Shape, given: &Json) -> Value {
        match (shape, given) {
            (Shape::Null, Json::Null) => Value::Null,
            (Shape::Boolean, Json::Bool(b)) => Value::Boolean(*b),
            (Shape::Integer, Json::Number(n)) if n.is_i64() => Value::Integer(n.as_i64().unwrap_or_default()),
            (Shape::Float | Shape::Double, Json::Number(n)) => Value::from_f64_or_zero(n.as_f64().unwrap_or_default()),
            (Shape::Text | Shape::Bytes | Shape::Fixed(_), Json::String(text)) => Value::from(text.as_str()),
            (Shape::Enum(symbols), Json::String(text)) if symbols.contains(text) => Value::from(text.as_str()),
            (Shape::Timestamp(_), Json::String(text)) => match DateTime::parse_from_rfc3339(text) {
                Ok(at) => Value::Timestamp(at.to_utc()),
                Err(_) => self.mismatch(shape, given),
            },
            (Shape::Date, Json::String(text)) => {
                match text.parse::<NaiveDate>().map(|day| day.and_time(Default::default())) {
                    Ok(midnight) => Value::Timestamp(midnight.and_utc()),
                    Err(_) => self.mismatch(shape, given),
                }
            }
            (Shape::Timestamp(units), Json::Number(n)) if self.sample.is_none() => {
                let at = n.as_i64().and_then(|n| super::avro::timestamp(n, *units).ok());
                at.map_or_else(|| self.mismatch(shape, given), Value::Timestamp)
            }
            (Shape::Date, Json::Number(n)) if self.sample.is_none() => {
                let at = n.as_i64().and_then(|days| super::avro::timestamp(days.checked_mul(86_400)?, 1).ok());
                at.map_or_else(|| self.mismatch(shape, given), Value::Timestamp)
            }
            (Shape::Array(items), Json::Array(given)) => {
                let items =
                    given.iter().enumerate().map(|(n, item)| self.within(n.to_string(), |t| t.value(items, item)));
                Value::Array(items.collect())
            }
            (Shape::Map(values), Json::Object(given)) => {
                let entries = given.iter().map(|(name, value)| {
                    (name.as_str().into(), self.within(name.clone(), |typing| typing.value(values, value)))
                });
                Value::Object(entries.collect())
            }
            (Shape::Union(branches), given) => self.branch(shape, branches, given),
            (Shape::Record(fields, defaults), Json::Object(given)) => {
                let known = |name: &str| {
                    fields.iter().any(|(n, _)| n.as_str() == name) || defaults.iter().any(|(n, _)| n.as_str() == name)
                };
                let strict = self.sample.is_some();
                for name in given.keys().filter(|name| strict && !known(name)) {
                    let names = fields.iter().map(|(n, _)| n.as_str()).chain(defaults.iter().map(|(n, _)| n.as_str()));
                    let names = names.collect::<Vec<_>>().join(", ");
                    self.within(name.clone(), |t| {
                        t.say(format!("no such field: `{name}`"), format!("the schema has {names}"))
                    });
                }
                let mut record = Object::new();
                for (name, shape) in fields {
                    let value = match given.get(name.as_str()) {
                        Some(value) => self.within(name.to_string(), |typing| typing.value(shape, value)),
                        None => match self.sample {
                            Some(sample) => shape.sample(name, sample),
                            None if shape.takes_null() => Value::Null,
                            None => self.within(name.to_string(), |typing| typing.mismatch(shape, &Json::Null)),
                        },
                    };
                    record.insert(name.clone(), value);
                }
                for (name, default) in defaults {
                    // Added by a reader, of whatever type its default is.
                    let given = given.get(name.as_str()).map(|v| json::from_json(v.clone(), &crate::expr::Kind::any()));
                    record.insert(name.clone(), given.unwrap_or_else(|| default.clone()));
                }
                Value::Object(record)
            }
            _ => self.mismatch(shape, given),
        }
    }

    /// The first branch that takes it; where none does, what the only one that isn't null says.
    fn branch(&mut self, shape: &Shape, branches: &[Shape], given: &Json) -> Value {
        let mut real = branches.iter().filter(|branch| **branch != Shape::Null);
        if given.is_null() && branches.contains(&Shape::Null) {
            return Value::Null;
        }
        if let (Some(only), None) = (real.next(), real.next()) {
            return self.value(only, given);
        }
        let before = self.found.len();
        for branch in branches {
            let value = self.value(branch, given);
            if self.found.len() == before {
                return value;
            }
            self.found.truncate(before);
        }
        self.mismatch(shape, given)
    }

    fn within<T>(&mut self, step: String, work: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let result = work(self);
        self.path.pop();
        result
    }

    fn mismatch(&mut self, shape: &Shape, given: &Json) -> Value {
        let field = self.path.last().cloned().unwrap_or_default();
        self.say(format!("`{field}` is {given}"), format!("the schema wants {}", shape.describe()));
        Value::Null
    }

    fn say(&mut self, reason: String, help: String) {
        self.found.push(Mismatch { path: self.path.clone(), reason, help });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use apache_avro::Schema;
    use serde_json::json;

    fn loan() -> Shape {
        let schema = r#"{"type": "record", "name": "Borrowed", "fields": [
            {"name": "loan_id", "type": "string"},
            {"name": "title", "type": "string"},
            {"name": "days", "type": "int"},
            {"name": "note", "type": ["null", "string"], "default": null},
            {"name": "due", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "copies", "type": {"type": "array", "items": {"type": "record", "name": "Copy", "fields": [
                {"name": "shelf", "type": "string"}]}}}
        ]}"#;
        Shape::new(&Schema::parse_str(schema).unwrap()).unwrap()
    }

    fn sample() -> Sample {
        Sample { at: DateTime::UNIX_EPOCH, texts: vec![("loan_id".into(), "l-1".into())] }
    }

    #[test]
    fn what_is_left_out_shows_where_it_comes_from() {
        let value = loan().typed(&json!({"days": 14, "copies": [{}]}), &sample()).unwrap();
        let expected = json!({"loan_id": "l-1", "title": "title", "days": 14, "note": null, "due": "1970-01-01T00:00:00.000000Z",
            "copies": [{"shelf": "shelf"}]});
        assert_eq!(json::to_json(&value), serde_json::from_value::<Json>(expected).unwrap());
    }

    #[test]
    fn an_events_json_lacks_nothing_and_may_have_more() {
        let full = json!({"loan_id": "l-1", "title": "Emma", "days": 14, "due": 1_000_000, "copies": [{"shelf": "A"}], "new": 1});
        let value = loan().read_json(&full).unwrap();
        assert_eq!(json::to_json(&value)["due"], "1970-01-01T00:00:01.000000Z");
        assert_eq!((json::to_json(&value)["note"].clone(), json::to_json(&value).get("new")), (Json::Null, None));
        let found = loan().read_json(&json!({"loan_id": "l-1", "days": 1.5, "due": "soon", "copies": []})).unwrap_err();
        assert_eq!(found.iter().map(|m| m.path.join(".")).collect::<Vec<_>>(), ["title", "days", "due"], "{found:?}");
    }

    #[test]
    fn everything_that_is_wrong_is_named_with_its_path() {
        let given =
            json!({"days": "14", "note": 3, "due": "soon", "copies": [{"shelf": "A"}, {"shelve": "B"}], "titel": "x"});
        let found = loan().typed(&given, &sample()).unwrap_err();
        let paths: Vec<_> = found.iter().map(|m| m.path.join(".")).collect();
        assert_eq!(paths, ["titel", "days", "note", "due", "copies.1.shelve"], "{found:?}");
        assert!(found[0].help.contains("title"), "{found:?}");
    }
}
