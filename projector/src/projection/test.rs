//! The shape of a projection's tests: given events, the documents that they make. Doc comments here are the reference manual.

use crate::event::Node;
use serde::Deserialize;
use serde_json::Value as Json;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

/// One test. Besides as written, the events are delivered one by one, all in one batch, all twice, and aggregate after
/// aggregate from the last to the first: each must come to the same.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestCase {
    /// What it shows, in a few words.
    pub name: Spanned<String>,
    /// The events, in the order of their delivery. Each is its type with its data (`Borrowed: { title: Emma }`; fields that are left
    /// out get a value made from their name), and beside it, where wanted: `of` (the aggregate's id), `at` (when it happened; by
    /// default a second after the one before), `version` (an older major version of its schema), `sequence` (by default the
    /// next one of its aggregate), `aggregate` (its aggregate's type, if its own isn't meant). `again: 2` delivers the second of
    /// the events once more. `unreadable: …` in place of data is a payload that can't be decoded.
    #[serde(default)]
    pub given: Vec<Spanned<Node>>,
    /// What lookups find, by name and key: `book: { b-1: { title: Emma } }`. What isn't named here isn't found.
    #[serde(default)]
    pub lookup: BTreeMap<String, Spanned<BTreeMap<String, Json>>>,
    /// What they come to.
    #[serde(default)]
    pub expect: Expect,
}

/// What a test's events come to. Everything there is must be named, but for what `fields` leaves out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// All documents by key, with all their fields; null for one that must not be there.
    #[serde(default)]
    pub documents: Option<BTreeMap<String, Json>>,
    /// Some fields of some documents, by key. Other fields and documents don't matter.
    #[serde(default)]
    pub fields: BTreeMap<String, Json>,
    /// All rows, in the order of their events (ClickHouse).
    #[serde(default)]
    pub rows: Option<Vec<Json>>,
    /// All events that end as dead letters, in the order in which they were given.
    #[serde(default)]
    pub dead_letters: Vec<DeadLetter>,
}

/// An event that ends as a dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    /// The event's type.
    pub event: String,
    /// Its aggregate's id.
    #[serde(default)]
    pub of: Option<String>,
    /// A part of the reason. Left out for an event that only waits behind an earlier one of its aggregate.
    #[serde(default)]
    pub because: Option<String>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_given_event_has_its_place() {
        let text = "name: t\ngiven:\n  - Borrowed:\n      title: Emma\n      copies: [{ shelf: A }, { shelf: B }]\n    of: l-1\n";
        let case: TestCase = serde_saphyr::from_str(text).unwrap();
        let given = &case.given[0];
        let place = |path: &[&str]| {
            let path: Vec<String> = path.iter().map(|s| (*s).to_owned()).collect();
            let at = given.value.place(&path, given.defined);
            (at.line(), at.column())
        };
        assert_eq!(place(&["of"]), (6, 5));
        assert_eq!(place(&["Borrowed", "title"]), (4, 7));
        assert_eq!(place(&["Borrowed", "copies", "1", "shelf"]), (5, 32));
        assert_eq!(given.value.to_json()["Borrowed"]["copies"][1]["shelf"], "B");
    }

    #[test]
    fn anchors_and_merges_keep_the_places_where_things_are_written() {
        let text = "name: t\ngiven:\n  - Borrowed: &first\n      title: Emma\n  - Borrowed:\n      <<: *first\n      days: 3\n  - Borrowed: *first\n";
        let case: TestCase = serde_saphyr::from_str(text).unwrap();
        let title = |n: usize| {
            let given: &Spanned<Node> = &case.given[n];
            let at = given.value.place(&["Borrowed".into(), "title".into()], given.defined);
            (given.value.to_json()["Borrowed"]["title"].clone(), at.line())
        };
        assert_eq!(title(0), ("Emma".into(), 4));
        assert_eq!(title(1).0, "Emma");
        assert_eq!(title(2), ("Emma".into(), 4));
    }
}
