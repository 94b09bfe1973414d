//! How what was expected and what was found differ, as lines that a person reads.

use super::outcome::Outcome;
use crate::projection::{DeadLetter, Expect};
use chrono::DateTime;
use serde::Serialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::cli) struct Difference {
    /// Where: a document, a row, a dead letter, and the field in it.
    pub(in crate::cli) place: String,
    /// What was expected; none where nothing was.
    pub(in crate::cli) expected: Option<String>,
    /// What was found; none where nothing was.
    pub(in crate::cli) found: Option<String>,
}

/// All differences between what a test expects and what it found.
pub(super) fn compare(expect: &Expect, found: &Outcome) -> Vec<Difference> {
    let mut differences = Differences(Vec::new());
    // A test that names nothing expects that there is nothing.
    let nothing = expect.fields.is_empty() && expect.documents.is_none() && expect.rows.is_none();
    let none = (BTreeMap::new(), Vec::new());
    let documents = expect.documents.as_ref().or(nothing.then_some(&none.0));
    let rows = expect.rows.as_ref().or(nothing.then_some(&none.1));
    if let Some(documents) = documents {
        for (key, expected) in documents {
            differences.value(&format!("document `{key}`"), expected, found.documents.get(key), true);
        }
        for (key, extra) in found.documents.iter().filter(|(key, _)| !documents.contains_key(*key)) {
            differences.value(&format!("document `{key}`"), &Json::Null, Some(extra), true);
        }
    }
    for (key, expected) in &expect.fields {
        differences.value(&format!("document `{key}`"), expected, found.documents.get(key), false);
    }
    if let Some(rows) = rows {
        for n in 0..rows.len().max(found.rows.len()) {
            let place = format!("row {}", n + 1);
            differences.value(&place, rows.get(n).unwrap_or(&Json::Null), found.rows.get(n), true);
        }
    }
    differences.letters(&expect.dead_letters, found);
    differences.0
}

/// Between two data of an event.
pub(in crate::cli) fn compare_data(expected: &Json, found: &Json) -> Vec<Difference> {
    let mut differences = Differences(Vec::new());
    differences.value("data", expected, Some(found), true);
    differences.0
}

/// Between two outcomes of the same events.
pub(super) fn compare_outcomes(first: &Outcome, other: &Outcome) -> Vec<Difference> {
    let expect = Expect {
        documents: Some(first.documents.clone()),
        rows: Some(first.rows.clone()),
        fields: BTreeMap::new(),
        dead_letters: first.letters.iter().map(letter).collect(),
    };
    compare(&expect, other)
}

/// A dead letter as a test would expect it.
pub(super) fn letter(letter: &super::outcome::Letter) -> DeadLetter {
    DeadLetter { event: letter.event.clone(), of: Some(letter.of.clone()), because: letter.reason.clone() }
}

struct Differences(Vec<Difference>);

impl Differences {
    fn value(&mut self, place: &str, expected: &Json, found: Option<&Json>, whole: bool) {
        match (expected, found) {
            (Json::Object(expected), Some(Json::Object(found))) => {
                let field = |name: &str| {
                    let inner = place.contains("field ");
                    if inner { format!("{place}.{name}") } else { format!("{place}, field {name}") }
                };
                for (name, value) in expected {
                    self.value(&field(name), value, found.get(name), whole);
                }
                for (name, value) in found.iter().filter(|(name, _)| whole && !expected.contains_key(*name)) {
                    self.value(&field(name), &Json::Null, Some(value), whole);
                }
            }
            (Json::Array(expected), Some(Json::Array(found))) => {
                for n in 0..expected.len().max(found.len()) {
                    let place = format!("{place}[{n}]");
                    self.value(&place, expected.get(n).unwrap_or(&Json::Null), found.get(n), whole);
                }
            }
            (expected, found) if same(expected, found.unwrap_or(&Json::Null)) => {}
            (expected, found) => self.0.push(Difference {
                place: place.to_owned(),
                expected: (!expected.is_null()).then(|| expected.to_string()),
                found: found.map(ToString::to_string),
            }),
        }
    }

    fn letters(&mut self, expected: &[DeadLetter], found: &Outcome) {
        for n in 0..expected.len().max(found.letters.len()) {
            let (expected, found) = (expected.get(n), found.letters.get(n).map(letter));
            let fits = match (expected, &found) {
                (Some(e), Some(f)) => {
                    let reason = f.because.as_deref().unwrap_or_default();
                    let because = e.because.as_ref().map_or(f.because.is_none(), |part| reason.contains(part.as_str()));
                    e.event == f.event && e.of.as_ref().is_none_or(|of| f.of.as_ref() == Some(of)) && because
                }
                _ => false,
            };
            if !fits {
                self.0.push(Difference {
                    place: format!("dead letter {}", n + 1),
                    expected: expected.map(describe),
                    found: found.as_ref().map(describe),
                });
            }
        }
    }
}

fn describe(letter: &DeadLetter) -> String {
    let of = letter.of.as_ref().map(|of| format!(" of {of}")).unwrap_or_default();
    let why = letter
        .because
        .as_ref()
        .map_or_else(|| "behind an earlier one of its aggregate".to_owned(), |b| format!("because {b}"));
    format!("{}{of}, {why}", letter.event)
}

/// Whether two values are the same to a reader: of numbers their size, of times the moment.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(x), Json::Number(y)) if x.is_f64() || y.is_f64() => x.as_f64() == y.as_f64(),
        (Json::String(x), Json::String(y)) if x != y => {
            matches!((DateTime::parse_from_rfc3339(x), DateTime::parse_from_rfc3339(y)), (Ok(x), Ok(y)) if x == y)
        }
        _ => a == b,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn differences(expected: Json, found: Json) -> Vec<String> {
        let expect = Expect { documents: Some(BTreeMap::from([("l-1".to_owned(), expected)])), ..Expect::default() };
        let found = Outcome { documents: BTreeMap::from([("l-1".to_owned(), found)]), ..Outcome::default() };
        compare(&expect, &found).into_iter().map(|d| format!("{}: {:?} {:?}", d.place, d.expected, d.found)).collect()
    }

    #[test]
    fn each_difference_has_its_place() {
        let expected = json!({"title": "Emma", "copies": [{"shelf": "A"}], "days": 3});
        let found = json!({"title": "Emma", "copies": [{"shelf": "B"}, {"shelf": "C"}], "note": "x"});
        assert_eq!(
            differences(expected, found),
            [
                r#"document `l-1`, field copies[0].shelf: Some("\"A\"") Some("\"B\"")"#,
                r#"document `l-1`, field copies[1]: None Some("{\"shelf\":\"C\"}")"#,
                r#"document `l-1`, field days: Some("3") None"#,
                r#"document `l-1`, field note: None Some("\"x\"")"#,
            ]
        );
    }

    #[test]
    fn null_is_no_field_and_a_time_is_a_moment() {
        let expected = json!({"at": "2026-01-01T00:00:00Z", "rate": 5});
        assert!(
            differences(expected, json!({"at": "2026-01-01T00:00:00.000000Z", "rate": 5.0, "note": null})).is_empty()
        );
    }
}
