#![allow(clippy::unwrap_used)]

use super::*;
use crate::apply::Write;
use crate::expr::{Kind, Value};
use crate::sink::Place;
use crate::sink::memory::{MemorySink, MemoryStore};
use serde_json::json;
use std::sync::Arc;

async fn place(generation: u32, documents: &[(&str, Json)]) -> MemorySink {
    let place = Place { read_model: "books".into(), generation, document: Kind::any() };
    let sink = MemorySink::open(Arc::new(MemoryStore::default()), &place);
    sink.prepare().await.unwrap();
    for (key, document) in documents {
        let Value::Object(fields) = json::from_json(document.clone(), &Kind::any()) else { panic!("no object") };
        let write = Write { key: (*key).to_owned(), version: 1, fields: Some(Arc::new(fields)), ..Write::default() };
        sink.write(&[write]).await.unwrap();
    }
    sink
}

#[tokio::test]
async fn all_documents_are_compared_both_ways() {
    let live = place(1, &[("a", json!({"n": 1, "t": "x"})), ("b", json!({"n": 2})), ("c", json!({"n": 3}))]).await;
    let shadow =
        place(2, &[("a", json!({"n": 1, "t": "y"})), ("b", json!({"n": 2, "t": null})), ("d", json!({"n": 4}))]).await;
    let found = compare(&live, &shadow, Verify::All, &[]).await.unwrap();
    assert_eq!((found.compared, found.differing, found.missing, found.extra), (4, 1, 1, 1));
    assert_eq!(found.fields, BTreeMap::from([("t".to_owned(), 1)]), "null is no field");
    assert_eq!(found.refusal(None), None, "all was announced");
    let refusal = found.refusal(Some(&["t".to_owned()])).unwrap();
    assert!(refusal.starts_with("1 documents are missing, 1 documents are new"), "{refusal}");
    let refusal = found.refusal(Some(&[])).unwrap();
    assert!(refusal.contains("`t` differs in 1 of 4 documents") && refusal.contains(r#"`a`: "x" → "y""#), "{refusal}");
}

#[tokio::test]
async fn a_sample_is_spread_over_all_and_finds_what_is_missing() {
    let documents: Vec<(String, Json)> = (0..2_500).map(|n| (format!("{n:05}"), json!({"n": n}))).collect();
    let documents: Vec<(&str, Json)> =
        documents.iter().map(|(key, document)| (key.as_str(), document.clone())).collect();
    let (live, shadow) = (place(1, &documents).await, place(2, &documents[..1_250]).await);
    let keys = sample(&live, 100).await.unwrap();
    assert_eq!((keys.len(), keys[0].as_str(), keys[99].as_str()), (100, "00000", "02475"));
    let found = compare(&live, &shadow, Verify::Sample(100), &keys).await.unwrap();
    assert_eq!((found.compared, found.differing, found.missing, found.extra), (100, 0, 50, 0));
    assert!(found.refusal(Some(&[])).unwrap().starts_with("1250 documents are missing"));
    let all = compare(&live, &shadow, Verify::All, &[]).await.unwrap();
    assert_eq!((all.compared, all.differing, all.missing, all.extra), (2_500, 0, 1_250, 0), "page by page");
    let same = compare(&live, &live, Verify::Sample(100), &keys).await.unwrap();
    assert_eq!((same.refusal(Some(&[])), same.lines().len()), (None, 1));
}
