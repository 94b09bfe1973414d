#![allow(clippy::unwrap_used)]

use super::*;
use crate::expr::{Collection, json as values};
use std::collections::BTreeMap;

fn refined(yaml: &str) -> BTreeMap<String, Json> {
    serde_saphyr::from_str(yaml).unwrap()
}

fn query(suggest: &str) -> Query {
    let parameters = "{ q: { type: string, required: true }, maybe: { type: string } }";
    serde_saphyr::from_str(&format!("get: /titles\nparameters: {parameters}\nsuggest: {suggest}")).unwrap()
}

const TYPED: &str = "titles: { type: text, fields: { typed: { type: search_as_you_type, analyzer: simple } } }";

fn said(suggest: &str, mapping: &str) -> Vec<String> {
    let (query, refined) = (query(suggest), refined(mapping));
    let document = Kind::object(Collection::empty().with_known("titles", kind()));
    let parameters = Parameters::new(&query.parameters, None, None);
    let found = findings(&query, &parameters, Fields { document: &document, refined: &refined });
    found.into_iter().map(|(_, message)| message).collect()
}

#[test]
fn it_needs_a_field_that_keeps_beginnings_and_a_text() {
    assert_eq!(said("{ field: titles, text: q }", TYPED), Vec::<String>::new());
    assert_eq!(said("{ field: titles, text: q }", "titles: { type: search_as_you_type }"), Vec::<String>::new());
    for (suggest, mapping, expected) in [
        ("{ field: title, text: q }", TYPED, "no field `title`; did you mean `titles`?"),
        ("{ field: titles, text: q }", "titles: { type: text }", "search_as_you_type"),
        ("{ field: titles, text: q }", "{}", "search_as_you_type"),
        ("{ field: titles, text: z }", TYPED, "`z` is not among"),
        ("{ field: titles, text: maybe }", TYPED, "may be absent"),
        ("{ field: titles, text: q }\none: true", TYPED, "best first"),
    ] {
        let found = said(suggest, mapping);
        assert!(found.len() == 1 && found[0].contains(expected), "{suggest}, {mapping}: {found:?}");
    }
}

#[test]
fn beginnings_are_looked_for_as_the_mapping_made_them() {
    let (query, refined) = (query("{ field: titles, text: q }"), refined(TYPED));
    let body = body(query.suggest.as_ref().unwrap(), Fields { document: &Kind::any(), refined: &refined });
    let third = &body["query"]["bool"]["should"][2]["match"]["titles.typed._index_prefix"];
    assert_eq!((&third["analyzer"], &third["query"]), (&json!("simple"), &json!({"param": "q"})));
}

#[test]
fn the_texts_that_fit_come_once_the_best_first() {
    let suggest = Suggest { ..query("{ field: books.title, text: q }").suggest.unwrap() };
    let hit = |json: Json| values::from_json(json, &Kind::any());
    let hits = [
        hit(json!({"books": [{"title": "Emma"}, {"title": "Ulysses"}], "_highlight": {"books.title": ["Emma"]}})),
        hit(json!({"books": [{"title": "Emma"}, {"title": "Emil"}, {"pages": 3}]})),
        hit(json!({"books": null})),
    ];
    let found: Vec<_> = texts(&suggest, &hits).iter().map(|text| text.to_string_lossy().into_owned()).collect();
    assert_eq!(found, ["Emma", "Emil"]);
    let many: Vec<_> = (0..30).map(|n| hit(json!({"books": {"title": format!("b-{n}")}}))).collect();
    assert_eq!(texts(&suggest, &many).len(), TEXTS_MAX);
}
