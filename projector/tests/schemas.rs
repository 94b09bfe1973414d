//! The repository's own folder of schemas, as the projector takes it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use projector::event::{Catalog, Upcaster};
use projector::expr::{Kind, Value, json};
use serde_json::json;
use std::path::Path;

fn catalog() -> Catalog {
    Catalog::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")).unwrap()
}

#[test]
fn every_event_has_a_type_and_a_way_to_its_newest_version() {
    let catalog = catalog();
    assert_eq!(catalog.names().count(), 28);
    let registered = catalog.event("CustomerRegistered").unwrap();
    assert_eq!((&*registered.aggregate_type, registered.version), ("customer", 2));
    assert_eq!(catalog.upcaster("CustomerRegistered", 1).map(|upcaster| upcaster.to), Some(2));
    assert!(catalog.upcaster("CustomerRegistered", 2).is_none());
}

#[test]
fn a_customer_registered_with_one_name_gets_first_and_last() {
    let catalog = catalog();
    let upcaster: &Upcaster = catalog.upcaster("CustomerRegistered", 1).unwrap();
    let lift = |data: serde_json::Value| {
        let Value::Object(lifted) = upcaster.lift(json::from_json(data, &Kind::any())).unwrap() else { panic!() };
        serde_json::Value::Object(json::object_to_json(&lifted))
    };
    let id = "01939f6e-7c5a-7000-8000-000000000001";
    let cases = [
        ("Ada King Lovelace", "Ada", "King Lovelace"),
        ("Ada Lovelace", "Ada", "Lovelace"),
        ("  Ada   Lovelace ", "Ada", "Lovelace"),
        ("Plato", "Plato", ""),
        ("", "", ""),
    ];
    for (name, first, last) in cases {
        let lifted =
            lift(json!({"customer_id": id, "name": name, "email": "ada@example.org", "credit_limit_cents": 50_000}));
        let expected = json!({
            "customer_id": id, "first_name": first, "last_name": last, "email": "ada@example.org", "credit_limit_cents": 50_000,
        });
        assert_eq!(lifted, expected, "{name:?}");
    }
    let unlimited =
        lift(json!({"customer_id": id, "name": "Ada", "email": "a@example.org", "credit_limit_cents": null}));
    assert_eq!(unlimited["credit_limit_cents"], json!(null));
}
