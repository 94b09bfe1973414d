//! Writes what was found into a file as what its tests expect, and leaves all else in it as it stands.

use super::compare::letter;
use super::outcome::Outcome;
use crate::projection::{Expect, TestCase};
use anyhow::{Context, bail};
use serde_json::{Map, Value as Json, json};
use std::fmt::Write;

/// A line is at most this long where it can be.
const WIDTH: usize = 130;

/// The file's text with the `expect` of each of these tests replaced.
///
/// # Errors
/// A test that isn't written in block style.
pub(super) fn update(text: &str, cases: &[(&TestCase, &Outcome)]) -> anyhow::Result<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut cases = cases.to_vec();
    // From the last one up: what is above keeps its lines.
    cases.sort_by_key(|(case, _)| std::cmp::Reverse(case.name.defined.line()));
    for (case, found) in cases {
        replace(&mut lines, case, found)?;
    }
    Ok(lines.join("\n") + "\n")
}

fn replace(lines: &mut Vec<String>, case: &TestCase, found: &Outcome) -> anyhow::Result<()> {
    let at = usize::try_from(case.name.defined.line()).unwrap_or(0).saturating_sub(1);
    let by_hand = || format!("test `{}`: write it in block style, `name:` on a line of its own", case.name.value);
    let indent = lines.get(at).and_then(|line| line.find("name:")).with_context(by_hand)?;
    let depth = |line: &str| line.len() - line.trim_start().len();
    let outside = |line: &&String| !line.trim().is_empty() && depth(line) < indent;
    let end = at + 1 + lines[at + 1..].iter().take_while(|line| !outside(line)).count();
    let of_test = |n: usize| depth(&lines[n]) == indent && lines[n].trim_start().starts_with("expect:");
    let (from, to) = match (at + 1..end).find(|n| of_test(*n)) {
        Some(from) => {
            let inside = |line: &&String| line.trim().is_empty() || depth(line) > indent;
            (from, from + 1 + lines[from + 1..end].iter().take_while(inside).count())
        }
        None if lines[at].contains('{') => bail!(by_hand()),
        None => (end, end),
    };
    let trailing = lines[from..to].iter().rev().take_while(|line| line.trim().is_empty()).count();
    let mut block = String::new();
    entry(&mut block, indent, "expect", &expectation(&case.expect, found));
    lines.splice(from..to - trailing, block.lines().map(str::to_owned));
    Ok(())
}

/// What was found, in the words of what was expected: fields where fields were, otherwise all.
fn expectation(expect: &Expect, found: &Outcome) -> Json {
    let mut all = Map::new();
    if !expect.fields.is_empty() {
        let fields = expect.fields.iter().map(|(key, named)| {
            let found = found.documents.get(key).unwrap_or(&Json::Null);
            (key.clone(), named_part(named, found))
        });
        all.insert("fields".into(), Json::Object(fields.collect()));
    }
    if expect.documents.is_some() || expect.fields.is_empty() && found.rows.is_empty() {
        let documents = found.documents.iter().map(|(key, document)| (key.clone(), document.clone()));
        all.insert("documents".into(), Json::Object(documents.collect()));
    }
    if expect.rows.is_some() || !found.rows.is_empty() {
        all.insert("rows".into(), found.rows.clone().into());
    }
    if !found.letters.is_empty() {
        let letters = found.letters.iter().map(letter).map(|letter| match letter.because {
            Some(because) => json!({"event": letter.event, "of": letter.of, "because": because}),
            None => json!({"event": letter.event, "of": letter.of}),
        });
        all.insert("dead_letters".into(), letters.collect());
    }
    Json::Object(all)
}

fn named_part(named: &Json, found: &Json) -> Json {
    match (named, found) {
        (Json::Object(named), Json::Object(found)) => {
            let part = |(name, named): (&String, &Json)| {
                (name.clone(), named_part(named, found.get(name).unwrap_or(&Json::Null)))
            };
            Json::Object(named.iter().map(part).collect())
        }
        _ => found.clone(),
    }
}

fn entry(text: &mut String, indent: usize, name: &str, value: &Json) {
    let space = " ".repeat(indent);
    // `expect` and its parts stand on lines of their own.
    let opened = matches!(name, "expect" | "documents" | "fields" | "rows" | "dead_letters") && !is_empty(value);
    let name = scalar(&Json::from(name));
    let flow = flow(value);
    if !opened && indent + name.len() + 2 + flow.len() <= WIDTH || is_empty(value) {
        _ = writeln!(text, "{space}{name}: {flow}");
        return;
    }
    _ = writeln!(text, "{space}{name}:");
    match value {
        Json::Object(map) => map.iter().for_each(|(name, value)| entry(text, indent + 2, name, value)),
        Json::Array(items) => items.iter().for_each(|item| list_item(text, indent + 2, item)),
        scalar => _ = writeln!(text, "{space}  {scalar}"),
    }
}

fn list_item(text: &mut String, indent: usize, item: &Json) {
    let flow = flow(item);
    match item {
        Json::Object(map) if indent + 2 + flow.len() > WIDTH && !map.is_empty() => {
            let mut block = String::new();
            map.iter().for_each(|(name, value)| entry(&mut block, indent + 2, name, value));
            text.push_str(&block.replacen(&" ".repeat(indent + 2), &format!("{}- ", " ".repeat(indent)), 1));
        }
        _ => _ = writeln!(text, "{}- {flow}", " ".repeat(indent)),
    }
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Object(map) => map.is_empty(),
        Json::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn flow(value: &Json) -> String {
    match value {
        Json::Object(map) if map.is_empty() => "{}".to_owned(),
        Json::Object(map) => {
            let entries =
                map.iter().map(|(name, value)| format!("{}: {}", scalar(&Json::from(name.as_str())), flow(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        value => scalar(value),
    }
}

/// Text without quotes where YAML surely reads it as text.
fn scalar(value: &Json) -> String {
    let Json::String(text) = value else { return value.to_string() };
    // A whole second, as people write it.
    if text.ends_with(".000000Z") && chrono::DateTime::parse_from_rfc3339(text).is_ok() {
        return format!("\"{}\"", text.replace(".000000Z", "Z"));
    }
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@'))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if plain { text.clone() } else { value.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const FILE: &str = "\
tests:
  # The first.
  - name: one
    given:
      - Borrowed: { title: Emma }
    expect:
      documents:
        loan-1: { title: Old }

  - name: two
    expect:
      fields: { loan-1: { days: 1 } }
    given: []
  - name: three
    given: []
";

    fn cases() -> Vec<TestCase> {
        #[derive(serde::Deserialize)]
        struct File {
            tests: Vec<TestCase>,
        }
        serde_saphyr::from_str::<File>(FILE).unwrap().tests
    }

    #[test]
    fn only_what_is_expected_changes() {
        let found = Outcome {
            documents: BTreeMap::from([(
                "loan-1".into(),
                json!({"title": "Emma: a novel", "days": 14, "copies": [{"shelf": "A"}]}),
            )]),
            ..Outcome::default()
        };
        let cases = cases();
        let cases: Vec<_> = cases.iter().map(|case| (case, &found)).collect();
        let updated = update(FILE, &cases).unwrap();
        let expected = "\
tests:
  # The first.
  - name: one
    given:
      - Borrowed: { title: Emma }
    expect:
      documents:
        loan-1: { title: \"Emma: a novel\", days: 14, copies: [{ shelf: A }] }

  - name: two
    expect:
      fields:
        loan-1: { days: 14 }
    given: []
  - name: three
    given: []
    expect:
      documents:
        loan-1: { title: \"Emma: a novel\", days: 14, copies: [{ shelf: A }] }
";
        assert_eq!(updated, expected);
    }

    #[test]
    fn what_is_written_reads_as_what_was_found() {
        let texts = ["true", "5", "1e5", "a b", "a: b", "# x", "-", "", "ä", "2026-01-01", "no", "null", "\"", "x\ny"];
        let value = Json::Object(texts.iter().map(|t| ((*t).to_owned(), json!([t, {"k": t}]))).collect());
        let mut block = String::new();
        entry(&mut block, 0, "expect", &value);
        let read: Json = serde_saphyr::from_str(&block).unwrap();
        assert_eq!(read["expect"], value, "{block}");
    }
}
