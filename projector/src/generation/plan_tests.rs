#![allow(clippy::unwrap_used)]

use super::*;
use std::collections::BTreeMap;
use std::path::Path;

fn catalog() -> Catalog {
    Catalog::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schemas")).unwrap()
}

const FILE: &str = "
name: loans
store: { redis: { prefix: 'loan:' } }
on:
  Borrowed: |
    .title = %data.title
    .times = 1
  Renewed: |
    .times = (int(.times) ?? 0) + 1
";

fn file(text: &str) -> (Compiled, Source) {
    let source = Source { name: "loans.yaml".into(), text: text.into() };
    (Compiled::new(&source, &catalog()).unwrap(), source)
}

fn live(text: &str) -> Generation {
    Generation {
        generation_id: 1,
        read_model: "loans".into(),
        generation: 3,
        state: "live".into(),
        fingerprint: file(text).0.fingerprint(),
        config: text.into(),
        topics: BTreeMap::new(),
    }
}

fn one(live: &[Generation], text: &str) -> Change {
    changes(live, &[file(text)], true, &catalog()).remove(0)
}

#[test]
fn a_file_is_created_left_alone_or_changed_in_place() {
    assert_eq!(one(&[], FILE).what, What::Create);
    assert_eq!(one(&[live(FILE)], FILE).what, What::Nothing);
    let prose = FILE.replace("name: loans", "name: loans\ndescription: who has what");
    assert_eq!((one(&[live(FILE)], &prose).what, one(&[live(FILE)], &prose).generation), (What::InPlace, Some(3)));
}

#[test]
fn a_rebuild_names_the_fields_that_may_differ() {
    let change = one(&[live(FILE)], &FILE.replace("?? 0) + 1", "?? 0) + 2"));
    assert_eq!(
        (change.what, change.why.as_slice()),
        (What::Rebuild, &["the program of Renewed changed".to_owned()][..])
    );
    assert_eq!(change.fields, Some(vec!["times".to_owned()]));
    let change = one(&[live(FILE)], &FILE.replace(".title = %data.title", ".title = upcase(%data.title)"));
    assert_eq!(change.fields, Some(vec!["times".to_owned(), "title".to_owned()]));
    let change = one(&[live(FILE)], &FILE.replace("loan:", "borrowed:"));
    assert_eq!((change.fields, change.why.as_slice()), (Some(vec![]), &["settings in redis changed".to_owned()][..]));
}

#[test]
fn where_documents_may_come_and_go_anything_may_differ() {
    let fewer = FILE.split("  Renewed").next().unwrap();
    let change = one(&[live(FILE)], fewer);
    assert_eq!((change.fields, change.why.as_slice()), (None, &["Renewed is no longer taken".to_owned()][..]));
}

#[test]
fn what_has_no_file_is_retired_only_if_the_files_are_all() {
    let other = live(FILE);
    let others = [Generation { read_model: "books".into(), ..other.clone() }, other];
    let of = |whole| changes(&others, &[file(FILE)], whole, &catalog()).iter().map(|c| c.what).collect::<Vec<_>>();
    assert_eq!((of(true), of(false)), (vec![What::Retire, What::Nothing], vec![What::Nothing]));
}

#[test]
fn what_is_looked_up_may_differ_and_a_changed_lookup_is_named() {
    let lookup = "lookup:\n  title: { read_model: titles, fields: { long: string }, key: title }\non:";
    let text = FILE.replace("on:", lookup).replace(".title = %data.title", ".title = %title.long");
    assert_eq!(one(&[live(&text)], &text).what, What::Nothing);
    let kept = text.replace("key: title }", "key: title, cache_ms: 5 }");
    assert_eq!(one(&[live(&text)], &kept).what, What::InPlace);
    let change = one(&[live(&text)], &text.replace("key: title }", "key: title, missing: dlq }"));
    assert_eq!((change.fields, change.why.as_slice()), (None, &["`lookup` changed".to_owned()][..]));
    let change = one(&[live(&text)], &text.replace("?? 0) + 1", "?? 0) + 2"));
    assert_eq!(change.fields, Some(vec!["times".to_owned(), "title".to_owned()]));
    let change = one(&[live(FILE)], &FILE.replace("on:", "ttl: { for: 3d }\non:"));
    assert_eq!((change.fields, change.why.as_slice()), (None, &["`ttl` changed".to_owned()][..]));
}
