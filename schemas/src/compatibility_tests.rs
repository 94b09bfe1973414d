#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

const ITEMS: &str =
    r#"{"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "Item", "fields": [FIELDS]}}}"#;

fn file(minor: u32, fields: &str) -> SchemaFile {
    let text = format!(r#"{{"type": "record", "namespace": "x.a.v1", "name": "E", "fields": [{fields}]}}"#);
    SchemaFile {
        path: format!("a/E.v1.{minor}.avsc").into(),
        aggregate: "a".into(),
        event: "E".into(),
        major: 1,
        minor,
        schema: Schema::parse_str(&text).unwrap(),
        text,
    }
}

/// What [`compare`] says of two lists of fields.
fn found(older: &str, newer: &str) -> Vec<String> {
    compare(&file(0, older).schema, &file(1, newer).schema).iter().map(ToString::to_string).collect()
}

fn field(name: &str, type_: &str) -> String {
    format!(r#"{{"name": "{name}", "type": {type_}}}"#)
}

#[test]
fn what_has_a_default_comes_and_goes() {
    let a = field("a", r#""string""#);
    let more = format!(r#"{a}, {{"name": "b", "type": ["null", "long"], "default": null}}"#);
    assert_eq!(found(&a, &a), [""; 0]);
    assert_eq!(found(&a, &more), [""; 0]);
    assert_eq!(found(&more, &a), [""; 0]);
}

#[test]
fn what_has_no_default_stays() {
    let a = field("a", r#""string""#);
    let more = format!("{a}, {}", field("b", r#""long""#));
    assert_eq!(found(&a, &more), ["`b`: added without default: events of the older version don't have it"]);
    assert_eq!(found(&more, &a), ["`b`: removed without default: readers of the older version require it"]);
}

#[test]
fn nested_fields_have_paths() {
    let items = |fields: String| ITEMS.replace("FIELDS", &fields);
    let (old, new) = (items(field("quantity", r#""int""#)), items(field("quantity", r#""long""#)));
    assert_eq!(found(&old, &new), ["`items[].quantity`: type changed from int to long"]);

    let place = |fields: &str| {
        let record = format!(r#"{{"type": "record", "name": "Place", "fields": [{fields}]}}"#);
        field("places", &format!(r#"{{"type": "map", "values": ["null", {record}]}}"#))
    };
    let zip = field("zip", r#""string""#);
    let both = format!("{zip}, {}", field("city", r#""string""#));
    assert_eq!(
        found(&place(&zip), &place(&both)),
        ["`places{}.city`: added without default: events of the older version don't have it"]
    );
}

#[test]
fn types_keep_their_meaning() {
    let micros = r#"{"type": "long", "logicalType": "timestamp-micros"}"#;
    let millis = r#"{"type": "long", "logicalType": "timestamp-millis"}"#;
    let decimal =
        |scale: u8| format!(r#"{{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": {scale}}}"#);
    let fixed = |size: u8| format!(r#"{{"type": "fixed", "name": "F", "size": {size}}}"#);
    let changed = |old: &str, new: &str| found(&field("f", old), &field("f", new));
    assert_eq!(changed(micros, millis), ["`f`: type changed from long (timestamp-micros) to long (timestamp-millis)"]);
    assert_eq!(changed(r#""long""#, micros), ["`f`: type changed from long to long (timestamp-micros)"]);
    assert_eq!(changed(r#""bytes""#, r#""string""#), ["`f`: type changed from bytes to string"]);
    assert_eq!(changed(&decimal(2), &decimal(2)), [""; 0]);
    assert_eq!(changed(&decimal(2), &decimal(3)).len(), 1);
    assert!(changed(&decimal(2), &decimal(3))[0].contains("scale 2"), "{:?}", changed(&decimal(2), &decimal(3)));
    assert_eq!(changed(&fixed(8), &fixed(16)), ["`f`: type changed from fixed F of 8 bytes to fixed F of 16 bytes"]);
    assert_eq!(changed(r#"{"type": "array", "items": "int"}"#, r#""int""#), ["`f`: type changed from array to int"]);
}

#[test]
fn unions_keep_their_branches() {
    let changed = |old: &str, new: &str| found(&field("f", old), &field("f", new));
    let nullable = r#"["null", "long"]"#;
    assert_eq!(changed(nullable, r#"["long", "null"]"#), [""; 0]);
    assert_eq!(changed(r#""long""#, nullable), ["`f`: made nullable: readers of the older version don't take null"]);
    assert_eq!(changed(nullable, r#""long""#), ["`f`: no longer nullable: older events may hold null"]);
    assert_eq!(changed(nullable, r#"["null", "int"]"#), ["`f`: type changed from long to int"]);
    assert_eq!(
        changed(nullable, r#"["null", "long", "string"]"#),
        ["`f`: string now allowed: readers of the older version don't take it"]
    );
}

#[test]
fn enums_keep_their_symbols_unless_the_reader_has_a_default() {
    let of = |symbols: &str, rest: &str| {
        field("f", &format!(r#"{{"type": "enum", "name": "K", "symbols": [{symbols}]{rest}}}"#))
    };
    let (ab, a) = (of(r#""A", "B""#, ""), of(r#""A""#, ""));
    assert_eq!(found(&ab, &a), ["`f`: enum symbol B removed: older events hold it, and the newer enum has no default"]);
    assert!(found(&a, &ab)[0].starts_with("`f`: enum symbol B added: "));
    let with_default = of(r#""A""#, r#", "default": "A""#);
    assert_eq!(found(&ab, &with_default), [""; 0]);
    assert_eq!(found(&with_default, &ab), [""; 0]);
}

#[test]
fn references_are_followed_and_records_may_hold_themselves() {
    let tree = |leaf: &str| {
        let node = format!(
            r#"{{"type": "record", "name": "Node", "fields": [{}, {}]}}"#,
            field("leaf", leaf),
            r#"{"name": "next", "type": ["null", "Node"], "default": null}"#
        );
        format!("{}, {}", field("first", &node), field("second", r#""Node""#))
    };
    assert_eq!(found(&tree(r#""int""#), &tree(r#""int""#)), [""; 0]);
    assert_eq!(found(&tree(r#""int""#), &tree(r#""string""#)), ["`first.leaf`: type changed from int to string"]);
}

#[test]
fn all_pairs_of_a_major_are_checked() {
    let a = field("a", r#""string""#);
    let b = |type_: &str| format!(r#"{a}, {{"name": "b", "type": {type_}, "default": 0}}"#);
    // 1.0 and 1.1 fit, 1.1 and 1.2 fit; but 1.2 brings `b` back with another type.
    let files = [file(0, &b(r#""int""#)), file(1, &a), file(2, &b(r#""long""#))];
    let error = check(&files).unwrap_err();
    assert_eq!(error.to_string(), "a/E.v1.2.avsc: E 1.2 isn't compatible with 1.0: `b`: type changed from int to long");

    // The same mistake against two versions is told once, against the nearest.
    let files = [file(0, &a), file(1, &a), file(2, &field("a", r#""int""#))];
    let error = check(&files).unwrap_err();
    assert_eq!(error.0.len(), 1, "{error}");
    assert!(error.to_string().contains("E 1.2 isn't compatible with 1.1"), "{error}");
}

#[test]
fn majors_may_differ() {
    let mut second = file(0, &field("b", r#""int""#));
    second.major = 2;
    assert!(check(&[file(0, &field("a", r#""string""#)), second]).is_ok());
}

#[test]
fn personal_fields_name_a_subject_of_the_top_record() {
    let marked = |marks: &str| format!(r#"{{"name": "name", "type": "string"{marks}}}"#);
    let said = |fields: &str| check(&[file(0, fields)]).map_err(|e| e.to_string());
    let id = field("id", r#"{"type": "string", "logicalType": "uuid"}"#);

    assert_eq!(said(&format!("{id}, {}", marked(r#", "personal": true, "subject": "id""#))), Ok(()));
    let nested = |subject: &str| {
        let name = marked(&format!(r#", "personal": true, "subject": "{subject}""#));
        format!("{id}, {}", ITEMS.replace("FIELDS", &format!("{}, {name}", field("item_id", r#""string""#))))
    };
    assert_eq!(said(&nested("id")), Ok(()));

    let cases = [
        (nested("item_id"), "a/E.v1.0.avsc: `items[].name`: its subject \"item_id\" isn't a field of E"),
        (marked(r#", "personal": true"#), "`name`: is personal, but has no `subject`"),
        (marked(r#", "subject": "name""#), "`name`: has a `subject` but not `\"personal\": true`"),
        (marked(r#", "personal": "yes", "subject": "name""#), "`name`: `personal` must be true, or left out"),
        (
            format!("{}, {}", field("n", r#""long""#), marked(r#", "personal": true, "subject": "n""#)),
            "`name`: its subject \"n\" must be a string, not long",
        ),
    ];
    for (fields, expected) in cases {
        let said = said(&fields).unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
}
