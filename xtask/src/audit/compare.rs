//! Two sets of documents, field by field, both ways.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

/// A document's fields.
pub(super) type Document = BTreeMap<String, Value>;
/// Documents by their key in the store.
pub(super) type Documents = BTreeMap<String, Document>;

/// What [`compare`] found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Comparison {
    /// Documents that the write database asks for.
    pub(crate) expected: usize,
    /// Documents that the store has.
    pub(crate) actual: usize,
    /// Keys looked at: those of either side.
    pub(crate) compared: usize,
    /// Keys whose documents differ, or are on one side only.
    pub(crate) different: usize,
    /// The first of them, a difference a field.
    pub(crate) differences: Vec<Difference>,
}

/// One difference; `expected` is the write database's side.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Difference {
    /// The store lacks the document.
    Missing { key: String },
    /// The store has a document that it shouldn't have.
    Extra { key: String },
    /// A field differs; `null` stands for a field that isn't there.
    Field { key: String, field: String, expected: Value, actual: Value },
}

/// Compares by key, then by field. At most `first` documents are listed with their differences; all are counted.
pub(super) fn compare(expected: &Documents, actual: &Documents, first: usize) -> Comparison {
    let keys: BTreeSet<_> = expected.keys().chain(actual.keys()).collect();
    let mut result =
        Comparison { expected: expected.len(), actual: actual.len(), compared: keys.len(), ..Comparison::default() };
    for key in keys {
        let found = match (expected.get(key), actual.get(key)) {
            (Some(expected), Some(actual)) => fields(key, expected, actual),
            (Some(_), None) => vec![Difference::Missing { key: key.clone() }],
            (None, _) => vec![Difference::Extra { key: key.clone() }],
        };
        if found.is_empty() {
            continue;
        }
        if result.different < first {
            result.differences.extend(found);
        }
        result.different += 1;
    }
    result
}

fn fields(key: &str, expected: &Document, actual: &Document) -> Vec<Difference> {
    let names: BTreeSet<_> = expected.keys().chain(actual.keys()).collect();
    names
        .into_iter()
        .filter(|name| !hidden(name))
        .filter_map(|name| {
            let side = |document: &Document| document.get(name).map_or(Value::Null, canonical);
            let (expected, actual) = (side(expected), side(actual));
            (expected != actual).then(|| Difference::Field {
                key: key.to_owned(),
                field: name.clone(),
                expected,
                actual,
            })
        })
        .collect()
}

/// Fields that begin with `_` belong to the projector.
pub(super) fn hidden(name: &str) -> bool {
    name.starts_with('_')
}

/// A nested field that is null and one that isn't there are the same; so is any order of fields, and a whole number however it
/// is written (`5`, `5.0`).
fn canonical(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(canonical).collect(),
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields
                .iter()
                .filter(|(name, value)| !hidden(name) && !value.is_null())
                .map(|(name, value)| (name.clone(), canonical(value)))
                .collect();
            Value::Object(sorted.into_iter().collect())
        }
        #[allow(clippy::cast_possible_truncation, reason = "whole and small enough to be exact")]
        Value::Number(number) => match number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15) {
            Some(whole) if number.is_f64() => Value::from(whole as i64),
            _ => value.clone(),
        },
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn documents(value: Value) -> Documents {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn equal_sides_have_no_difference() {
        let side = documents(json!({"a": {"x": 1, "y": "t"}, "b": {"x": 2}}));
        let result = compare(&side, &side, 10);
        assert_eq!((result.compared, result.different), (2, 0));
        assert!(result.differences.is_empty());
    }

    #[test]
    fn missing_extra_and_different_are_told_apart() {
        let expected = documents(json!({"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 3}}));
        let actual = documents(json!({"b": {"x": 2}, "c": {"x": 4}, "d": {"x": 5}}));
        let result = compare(&expected, &actual, 10);
        assert_eq!((result.expected, result.actual), (3, 3));
        assert_eq!((result.compared, result.different), (4, 3));
        assert_eq!(
            result.differences,
            [
                Difference::Missing { key: "a".into() },
                Difference::Field { key: "c".into(), field: "x".into(), expected: json!(3), actual: json!(4) },
                Difference::Extra { key: "d".into() },
            ]
        );
    }

    #[test]
    fn a_field_on_one_side_only_is_a_difference_on_either_side() {
        let (less, more) = (json!({"a": {"x": 1}}), json!({"a": {"x": 1, "y": 2}}));
        let (less, more) = (documents(less), documents(more));
        assert_eq!(compare(&less, &more, 10).different, 1);
        assert_eq!(compare(&more, &less, 10).different, 1);
    }

    #[test]
    fn text_and_number_differ_and_so_does_the_order_of_a_list() {
        let number = documents(json!({"a": {"x": 1}}));
        let text = documents(json!({"a": {"x": "1"}}));
        assert_eq!(compare(&number, &text, 10).different, 1);
        let ascending = documents(json!({"a": {"x": [1, 2]}}));
        let descending = documents(json!({"a": {"x": [2, 1]}}));
        assert_eq!(compare(&ascending, &descending, 10).different, 1);
    }

    #[test]
    fn a_whole_number_is_the_same_however_it_is_written() {
        let written = |text: &str| documents(serde_json::from_str(&format!("{{\"a\": {{\"x\": {text}}}}}")).unwrap());
        assert_eq!(compare(&written("5"), &written("5.0"), 10).different, 0);
        assert_eq!(compare(&written("4.33"), &written("4.34"), 10).different, 1);
        assert_eq!(compare(&written("9007199254740993"), &written("9007199254740992"), 10).different, 1);
    }

    #[test]
    fn hidden_fields_and_nulls_do_not_count_at_any_depth() {
        let expected = documents(json!({"a": {"x": [{"n": 1, "image": null}], "none": null}}));
        let actual = documents(json!({"a": {"x": [{"_w": 7, "n": 1}], "_seq": 3}}));
        assert_eq!(compare(&expected, &actual, 10).different, 0);
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let expected: Documents =
            (0..100).map(|n| (format!("k{n:03}"), Document::from([("x".to_owned(), json!(n))]))).collect();
        let result = compare(&expected, &Documents::new(), 5);
        assert_eq!((result.different, result.differences.len()), (100, 5));
    }
}
