//! `projector test`.

use super::support::{kept, library, projector, projector_with, scratch};

/// Of a text, the lines that a run of another length leaves as they are.
fn without_times(text: &str) -> String {
    let lines = text.lines().map(|line| line.split(", in ").next().unwrap());
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_library_and_the_reference_projections_pass_and_test_every_event() {
    for (schemas, folder) in
        [(library("schemas"), library("projections")), ("../schemas".to_owned(), "../projections".to_owned())]
    {
        let ran = projector_with(&schemas, &["test", &folder, "--output", "json"]);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(report["failed"], 0);
        for (file, untested) in report["untested"].as_object().unwrap() {
            assert_eq!(untested.as_array().unwrap().len(), 0, "{file}: no test gives {untested}");
        }
        for test in report["tests"].as_array().unwrap() {
            assert!(test["ms"].as_f64().unwrap() < 1_000.0, "{test}");
        }
    }
}

#[test]
fn each_reference_projection_is_tested_with_events_that_come_again_and_late() {
    let all = std::fs::read_dir("../projections").unwrap().map(|entry| entry.unwrap().path());
    for path in all.filter(|path| path.extension().is_some_and(|e| e == "yaml")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let (projection, tests) = text.split_once("\ntests:\n").unwrap_or((&text, ""));
        // Facets under filters and suggestions make one query side long; its documents are short all the same.
        let (documents, _) = projection.split_once("\nqueries:\n").unwrap_or((projection, ""));
        let counted = if path.ends_with("order_search.yaml") { documents } else { projection };
        assert!(counted.lines().count() < 80, "{}: a model of brevity has fewer lines", path.display());
        assert!(documents.lines().count() < 60, "{}: what makes its documents takes fewer lines", path.display());
        assert!(tests.contains("again:"), "{}: no event comes again", path.display());
        assert!(tests.contains("sequence:") || tests.contains("at: "), "{}: no event comes late", path.display());
    }
}

#[test]
fn what_differs_is_shown_for_people_and_for_scripts() {
    let ran = projector(&["test", &library("failing")]);
    assert_eq!(ran.code, 1);
    kept("failing/expected.txt", &without_times(&ran.out));

    let ran = projector(&["test", &library("failing/loans.yaml"), "--output", "json", "--name", "a letter"]);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &report["failed"]), (1, &1.into()));
    let test = &report["tests"][0];
    assert_eq!(test["line"], 26);
    assert_eq!(test["differences"][0]["expected"], "Renewed, because too late");
}

#[test]
fn a_given_event_is_typed_against_its_schema_and_each_mistake_has_its_place() {
    let ran = projector(&["check", &library("bad/given.yaml")]);
    assert_eq!(ran.code, 1);
    for place in ["14:21: no such field: `titel`", "14:34: `days` is \"two\"", "15:9: no schema has the event `Burned`"]
    {
        assert!(ran.err.contains(place), "{place}\n{}", ran.err);
    }
}

#[test]
fn junit_has_a_case_a_test_and_the_reason_of_each_failure() {
    let path = scratch("junit").join("report.xml");
    let ran = projector(&["test", &library("failing"), "--junit", path.to_str().unwrap()]);
    assert_eq!(ran.code, 1);
    let xml = std::fs::read_to_string(path).unwrap();
    assert!(xml.contains(r#"<testsuite name="tests/library/failing/loans.yaml" tests="3" failures="3""#), "{xml}");
    assert!(xml.contains("found    &quot;Emma&quot;"), "{xml}");
    assert_eq!((xml.matches("<testcase").count(), xml.matches("<failure").count()), (7, 4), "{xml}");
}

#[test]
fn update_accepts_what_is_found_and_then_it_passes() {
    let path = scratch("update").join("loans.yaml");
    std::fs::copy(library("failing/loans.yaml"), &path).unwrap();
    let file = path.to_str().unwrap();
    assert_eq!(projector(&["test", file, "--update"]).code, 0);
    let ran = projector(&["test", file]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, std::fs::read_to_string(&path).unwrap());
    let before = std::fs::read_to_string(library("failing/loans.yaml")).unwrap();
    let after = std::fs::read_to_string(&path).unwrap();
    assert_eq!(before.split("expect:").next(), after.split("expect:").next());
}

/// The table of docs/projections.md, carried out.
#[test]
fn each_operation_that_the_manual_shows_does_what_it_says() {
    let file = scratch("operations").join("desk.yaml");
    let text = r#"
name: desk
store: { postgres: {} }
on:
  Borrowed: |
    .title = %data.title
    .note = %data.note
    .copies = push(array(.copies) ?? [], { "id": "c-0", "state": "new" })
    .copies = append(.copies, map_values(%data.copies) -> |copy| { { "id": copy.copy_id, "state": "lent" } })
    .seen = (int(.seen) ?? 0) + 1
  Renewed: |
    del(.note)
    .seen = (int(.seen) ?? 0) + 1
    if .title == "Walden" { .title = "Walden, again" }
    .copies = map_values(array(.copies) ?? []) -> |copy| {
      if copy.id == "c-2" { copy.state = "renewed" }
      copy
    }
    .copies = filter(.copies) -> |_i, copy| { copy.id != "c-1" }
  Returned: . = null
tests:
  - name: all of them
    given:
      - Borrowed: { loan_id: l-1, title: Emma, note: wet, copies: [{ copy_id: c-1 }, { copy_id: c-2 }] }
      - Renewed: { loan_id: l-1 }
      - Borrowed: { loan_id: l-2 }
      - Returned: { loan_id: l-2 }
    expect:
      documents:
        l-1: { title: Emma, seen: 2, copies: [{ id: c-0, state: new }, { id: c-2, state: renewed }] }
        l-2: null
"#;
    std::fs::write(&file, text).unwrap();
    let ran = projector(&["test", file.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
}
