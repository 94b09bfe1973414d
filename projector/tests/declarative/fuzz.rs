//! Whatever stands in a file or in a payload, there is an answer and never a panic. `FUZZ=100000` takes more cases than CI does.

use apache_avro::Schema;
use projector::event::{Catalog, Envelope, Raw, Shape};
use projector::projection::{Compiled, Projection, Source};
use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::load(Path::new("tests/library/schemas")).unwrap());

/// Files that are right, to be spoilt.
static SEEDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let files = ["projections", "failing", "bad"].map(|folder| format!("tests/library/{folder}"));
    let entries = files.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut paths: Vec<_> =
        entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "yaml")).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
});

const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    "|",
    ">",
    "&a",
    "*a",
    "<<",
    "\"",
    "'",
    "#",
    "-",
    "%",
    ".",
    "%data",
    "??",
    "!",
    "=",
    "null",
    "0",
    "-1",
    "9223372036854775808",
    "1e999",
    "\t",
    "\n",
    "  ",
    "for_each(",
    "map_values(",
    "-> |x| {",
    "del(.)",
    ". = .",
    "if",
    "abort",
    "ä",
    "\u{0}",
    "!!binary",
    "---",
    "...",
    "~",
    "t'x'",
    "r'('",
    "s'",
    "{{ x }}",
    "(",
    ")",
    ".a[0]",
    ".a[-1]",
    "%data.copies[0].fee",
    "\u{feff}",
];

fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A file with some of its parts taken away, doubled, or replaced.
fn spoilt() -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), 0..40_usize, prop::sample::select(PIECES), 0..3_u8);
    (prop::sample::select(SEEDS.clone()), prop::collection::vec(change, 1..6)).prop_map(|(mut text, changes)| {
        for (at, length, piece, kind) in changes {
            let mut places: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
            places.push(text.len());
            let from = at.index(places.len());
            let to = (from + length).min(places.len() - 1);
            let (from, to) = (places[from], places[to]);
            match kind {
                0 => text.replace_range(from..to, piece),
                1 => text.insert_str(from, piece),
                _ => {
                    let part = text[from..to].to_owned();
                    text.insert_str(from, &part);
                }
            }
        }
        text
    })
}

/// JSON of any type, often of the right one.
fn leaf() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value as Json, json};
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "[0-9TZ:.-]{0,24}".prop_map(Json::from),
        Just(json!([{ "copy_id": "c", "shelf": "A", "fee_cents": 3 }])),
        Just(json!([{ "copy_id": 1 }, [], {}])),
        Just(json!("2026-05-23T10:00:00Z")),
    ]
}

proptest! {
    #![proptest_config(cases(192))]

    #[test]
    fn a_file_is_loaded_or_refused(text in spoilt()) {
        let source = Source { name: "fuzz.yaml".into(), text: text.as_str().into() };
        match Compiled::new(&source, &CATALOG) {
            Ok(_) => {}
            Err(findings) => {
                prop_assert!(!findings.is_empty());
                for finding in findings {
                    _ = finding.position();
                    _ = format!("{:?}", miette::Report::new(finding));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(4096))]

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,200}|[ -~\\n\\t]{0,400}") {
        _ = Projection::parse(&Source { name: "fuzz.yaml".into(), text: text.into() });
    }

    #[test]
    fn any_payload_is_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
        for event in ["Borrowed", "Renewed", "Returned"] {
            let shape = Shape::new(CATALOG.reader(event, 1).unwrap()).unwrap();
            if let Ok(value) = shape.read(&bytes) {
                // What can be read is of the type that programs were compiled for.
                prop_assert!(shape.kind().is_superset(&projector::expr::Kind::from(&value)).is_ok());
            }
            _ = shape.read(&bytes[..cut.index(bytes.len() + 1)]);
        }
    }

    #[test]
    fn any_json_is_a_payload_or_refused(values in prop::collection::vec(leaf(), 7), present in any::<u8>()) {
        let names = ["loan_id", "member_id", "title", "days", "due", "note", "copies"];
        let fields = names.into_iter().zip(values).enumerate().filter(|(n, _)| present & (1 << n) != 0);
        let json = serde_json::Value::Object(fields.map(|(_, (name, value))| (name.to_owned(), value)).collect());
        let shape = Shape::new(CATALOG.reader("Borrowed", 1).unwrap()).unwrap();
        if let Ok(value) = shape.read_json(&json) {
            prop_assert!(shape.kind().is_superset(&projector::expr::Kind::from(&value)).is_ok(), "{json}");
        }
    }

    #[test]
    fn any_headers_are_an_envelope_or_refused(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 10), key in prop::collection::vec(any::<u8>(), 0..20)) {
        let names = ["id", "event_type", "schema_version", "aggregate_type", "sequence", "epoch", "txid", "tx_min", "occurred_at", "metadata"];
        let headers: Vec<_> = names.into_iter().zip(values).collect();
        _ = Envelope::read(&Raw::new(Some(&key), &headers, None));
    }

    #[test]
    fn any_json_is_a_schema_or_refused(text in "[\\[\\]{}:,\"a-z0-9]{0,80}") {
        if let Ok(schema) = Schema::parse_str(&text) {
            _ = Shape::new(&schema);
        }
    }
}
