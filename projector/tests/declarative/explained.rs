//! `explain`, `schema`, `init`.

use super::support::{kept, library, projector, scratch};

#[test]
fn a_read_model_is_explained() {
    let all = ["explain", "--projections", "tests/library/projections"];
    kept("explained.txt", &projector(&all).out);
    kept("explained.mermaid", &projector(&[&all[..], &["--mermaid"]].concat()).out);
    let ran = projector(&[&all[..], &["shelves", "--field", "fees_cents"]].concat());
    assert!(ran.out.contains("[].fees_cents ← %data.copies[].fee_cents"), "{}{}", ran.out, ran.err);
    let ran = projector(&[&all[..], &["shelfs"]].concat());
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("there are loans, members, returns, shelves"), "{}", ran.err);
}

#[test]
fn the_schema_for_editors_is_that_of_the_code_and_knows_all_fields_in_use() {
    let ran = projector(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let file = "../docs/projection.schema.json";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(file, &ran.out).unwrap();
    }
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    assert!(kept == ran.out, "docs/projection.schema.json has drifted; `UPDATE=1 cargo test` writes it anew");
    for field in ["name", "store", "on", "queries", "tests", "sum_by"] {
        assert!(schema["properties"][field]["description"].as_str().is_some_and(|d| d.len() > 10), "{field}");
    }
    assert_eq!(schema["required"], serde_json::json!(["name", "store", "on"]));
    for folder in ["../projections", "tests/library/projections", "../tests/library/projections"] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let file: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
            check(&schema, &schema, &file, "");
        }
    }
}

/// As far as the schema goes: known fields, required ones, types.
fn check(root: &serde_json::Value, schema: &serde_json::Value, value: &serde_json::Value, at: &str) {
    if let Some(path) = schema["$ref"].as_str() {
        return check(root, &root["$defs"][path.trim_start_matches("#/$defs/")], value, at);
    }
    if let Some(one) = schema["oneOf"].as_array() {
        let Some(map) = value.as_object() else {
            return assert!(value.is_string() && one.iter().any(|s| s["type"] == "string"), "{at}: {value}");
        };
        let name = map.keys().next().unwrap();
        let fits = one.iter().find(|s| s["properties"].get(name).is_some());
        return check(root, fits.unwrap_or_else(|| panic!("{at}: {name}")), value, at);
    }
    match (schema["type"].as_str(), value) {
        (Some("object"), serde_json::Value::Object(map)) => {
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(map.contains_key(name.as_str().unwrap()), "{at}: {name} is missing");
            }
            for (name, value) in map {
                let inner = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
                let inner = inner.filter(|s| s.is_object()).unwrap_or_else(|| panic!("{at}: {name} isn't known"));
                check(root, inner, value, &format!("{at}/{name}"));
            }
        }
        (Some("array"), serde_json::Value::Array(items)) => {
            items.iter().for_each(|v| check(root, &schema["items"], v, at))
        }
        (Some("object" | "array"), other) => panic!("{at}: {other}"),
        _ => {}
    }
}

#[test]
fn a_first_projection_is_right_and_its_test_can_be_accepted() {
    for store in ["redis", "elasticsearch", "clickhouse", "postgres"] {
        let folder = scratch(&format!("init-{store}"));
        let folder = folder.to_str().unwrap();
        let init = ["init", "first", "--from", "Borrowed", "--store", store, "--projections", folder];
        let ran = projector(&init);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert_eq!(projector(&["check", folder]).code, 0, "{store}");
        assert_eq!(projector(&["test", folder, "--update"]).code, 0, "{store}");
        let ran = projector(&["test", folder]);
        assert_eq!(ran.code, 0, "{store}: {}", ran.out);
        assert_eq!(projector(&init).code, 1, "never over a file that is there");
    }
    let ran = projector(&["init", "x", "--from", "Burned", "--projections", &library("none")]);
    assert!(ran.err.contains("there are Borrowed, Renewed, Returned, MemberJoined"), "{}", ran.err);
}
