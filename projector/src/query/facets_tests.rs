#![allow(clippy::unwrap_used)]

use super::super::parameters::Arguments;
use super::super::template::SearchTemplate;
use super::*;

const LOANS: &str = "
get: /loans
parameters:
  q: { type: string }
  member: { type: string, filter: { is: member_id } }
  state: { type: string, filter: { is: state } }
  from: { type: date, filter: { gte: due } }
  to: { type: date, filter: { lt: due } }
  fee: { type: integer, filter: { lte: fee_cents } }
  by: { type: string, values: [day, month], default: day }
facets:
  states: { field: state, size: 3 }
  due: { field: due, interval: { param: by } }
  fees: { field: fee_cents, bounds: [100, 250.5] }
search: { query: { match: { title: { query: { param: q } } } } }";

fn document() -> Kind {
    let fields = [
        ("title", Kind::bytes()),
        ("member_id", Kind::bytes()),
        ("state", Kind::bytes().or_null()),
        ("due", Kind::timestamp()),
        ("fee_cents", Kind::integer()),
        ("lent", Kind::boolean()),
    ];
    Kind::object(fields.into_iter().fold(Collection::empty(), |all, (name, kind)| all.with_known(name, kind)))
}

fn refined() -> BTreeMap<String, Json> {
    serde_saphyr::from_str("title: { type: text, fields: { keyword: { type: keyword } } }").unwrap()
}

fn query(yaml: &str) -> Query {
    serde_saphyr::from_str(yaml).unwrap()
}

/// The body that a search sends for these arguments.
fn body(yaml: &str, arguments: Json) -> Json {
    let (query, document, refined) = (query(yaml), document(), refined());
    let made = Made::of(&query, Fields { document: &document, refined: &refined });
    let search = SearchTemplate::parse(query.search.as_ref().unwrap(), None).unwrap().with(made);
    let arguments: Arguments = arguments.as_object().unwrap().clone();
    search.render(&arguments, None)
}

fn filters_of(body: &Json, facet: &str) -> Json {
    body["aggs"][facet]["filter"]["bool"]["filter"].clone()
}

#[test]
fn a_facet_counts_under_all_filters_but_those_on_its_own_field() {
    let given = json!({"q": "emma", "member": "m-1", "state": "open", "from": "2026-05-01", "to": "2026-06-01", "fee": 300, "by": "month"});
    let body = body(LOANS, given);
    let state = json!({"term": {"state": "open"}});
    let from = json!({"range": {"due": {"gte": "2026-05-01"}}});
    let to = json!({"range": {"due": {"lt": "2026-06-01"}}});
    let fee = json!({"range": {"fee_cents": {"lte": 300}}});
    assert_eq!(filters_of(&body, "states"), json!([fee, from, to]));
    assert_eq!(filters_of(&body, "due"), json!([fee, state]));
    assert_eq!(filters_of(&body, "fees"), json!([from, state, to]));
    assert_eq!(body["post_filter"], json!({"bool": {"filter": [fee, from, state, to]}}), "hits pass all of them");
    let visible = &body["query"]["bool"];
    assert_eq!(visible["filter"], json!([{"term": {"member_id": "m-1"}}]), "no facet counts its choices");
    assert_eq!(visible["must"], json!([{"match": {"title": {"query": "emma"}}}]));
    let counts = |facet: &str| body["aggs"][facet]["aggs"]["counts"].clone();
    assert_eq!(counts("states"), json!({"terms": {"field": "state", "size": 3}}));
    assert_eq!(counts("due")["date_histogram"]["calendar_interval"], "month");
    let ranges = json!([{"key": "0", "to": 100}, {"key": "1", "from": 100, "to": 250.5}, {"key": "2", "from": 250.5}]);
    assert_eq!(counts("fees"), json!({"range": {"field": "fee_cents", "ranges": ranges}}));
}

#[test]
fn what_is_absent_leaves_nothing_out() {
    let given =
        json!({"q": null, "member": null, "state": null, "from": "2026-05-01", "to": null, "fee": null, "by": "day"});
    let body = body(LOANS, given);
    let from = json!([{"range": {"due": {"gte": "2026-05-01"}}}]);
    assert_eq!((filters_of(&body, "states"), filters_of(&body, "due")), (from.clone(), json!([])));
    assert_eq!(body["post_filter"], json!({"bool": {"filter": from}}));
    assert_eq!(body["query"]["bool"]["must"], json!([{"match_all": {}}]));
    assert_eq!(body["query"]["bool"]["filter"], json!([]));
}

#[test]
fn values_stay_values() {
    let hostile = r#"x"}},{"match_all":{}}"#;
    let given = json!({"q": "{param: fee}", "member": hostile, "state": "{param: q}", "from": null, "to": null, "fee": null, "by": "day"});
    let body = body(LOANS, given);
    assert_eq!(body["query"]["bool"]["filter"], json!([{"term": {"member_id": hostile}}]));
    assert_eq!(body["post_filter"]["bool"]["filter"], json!([{"term": {"state": "{param: q}"}}]));
}

#[test]
fn days_are_those_of_the_querys_time_zone() {
    let yaml = format!("{LOANS}\ntime_zone: Europe/Rome");
    let given =
        json!({"q": null, "member": null, "state": null, "from": "2026-05-01", "to": null, "fee": 1, "by": "day"});
    let body = body(&yaml, given);
    let from = json!({"range": {"due": {"gte": "2026-05-01", "time_zone": "Europe/Rome"}}});
    let fee = json!({"range": {"fee_cents": {"lte": 1}}});
    assert_eq!(filters_of(&body, "states"), json!([fee, from]), "a number has no zone");
    assert_eq!(body["aggs"]["due"]["aggs"]["counts"]["date_histogram"]["time_zone"], "Europe/Rome");
}

#[test]
fn counts_are_plain_lists() {
    let query = query(LOANS);
    let buckets = |buckets: Json| json!({"doc_count": 9, "counts": {"buckets": buckets}});
    let answer = json!({
        "states": buckets(json!([{"key": "open", "doc_count": 5}, {"key": 1, "key_as_string": "true", "doc_count": 1}])),
        "due": buckets(json!([{"key": 1_777_593_600_000_i64, "key_as_string": "2026-05-01", "doc_count": 2}])),
        "fees": buckets(json!([
            {"key": "0", "to": 100.0, "doc_count": 1}, {"key": "1", "from": 100.0, "to": 250.5, "doc_count": 0},
            {"key": "2", "from": 250.5, "doc_count": 4}])),
    });
    let expected = json!({
        "states": [{"value": "open", "count": 5}, {"value": true, "count": 1}],
        "due": [{"from": "2026-05-01", "count": 2}],
        "fees": [
            {"from": null, "to": 100, "count": 1}, {"from": 100, "to": 250.5, "count": 0},
            {"from": 250.5, "to": null, "count": 4}],
    });
    assert_eq!(counted(&query.facets, &answer), expected);
}

/// What is said of a query with this in place of the parameter `state`, the facet `states`.
fn said(parameter: &str, facet: &str) -> Vec<String> {
    let yaml = LOANS.replace("state: { type: string, filter: { is: state } }", parameter);
    let query = query(&yaml.replace("states: { field: state, size: 3 }", facet));
    let parameters = Parameters::new(&query.parameters, None, None);
    let (document, refined) = (document(), refined());
    let found = findings(&query, &parameters, Some(Fields { document: &document, refined: &refined }));
    found.into_iter().map(|(_, message)| message).collect()
}

#[test]
fn what_cannot_be_counted_or_filtered_is_refused() {
    let (parameter, facet) = ("state: { type: string, filter: { is: state } }", "states: { field: state, size: 3 }");
    assert_eq!(said(parameter, facet), Vec::<String>::new());
    for (parameter, expected) in [
        ("state: { type: string, filter: { is: stat } }", "no field `stat`; did you mean `state`?"),
        ("state: { type: string, filter: {} }", "`filter` is empty"),
        ("state: { type: string, filter: { is: title } }", "match them under `search`"),
    ] {
        let found = said(parameter, facet);
        assert!(found.len() == 1 && found[0].contains(expected), "{parameter}: {found:?}");
    }
    for (facet, expected) in [
        ("states: { field: stat }", "facet `states`: the read model has no field `stat`"),
        ("states: { field: title }", "count `title.keyword`"),
        ("states: { field: state, interval: day }", "no time"),
        ("states: { field: due, interval: hour }", "expected one of day, week"),
        ("states: { field: due, interval: { param: q } }", "`values` must be among"),
        ("states: { field: due, interval: { param: z } }", "`z` is not among"),
        ("states: { field: state, bounds: [1] }", "no number"),
        ("states: { field: fee_cents, bounds: [2, 1] }", "above the one before"),
        ("states: { field: state, size: 0 }", "from 1 to 1000"),
        ("states: { field: due, size: 3, interval: day }", "write one of them"),
    ] {
        let found = said(parameter, facet);
        assert!(found.len() == 1 && found[0].contains(expected), "{facet}: {found:?}");
    }
    assert_eq!(said(parameter, "states: { field: title.keyword }"), Vec::<String>::new());
    let by_hand = LOANS.replace("search: {", "search: { aggs: {}, ");
    let query = query(&by_hand);
    let (document, refined) = (document(), refined());
    let fields = Fields { document: &document, refined: &refined };
    let found = findings(&query, &Parameters::new(&query.parameters, None, None), Some(fields));
    assert!(found.len() == 1 && found[0].1.contains("`aggs`"), "{found:?}");
    let elsewhere = findings(&query, &Parameters::new(&query.parameters, None, None), None);
    assert_eq!(elsewhere.len(), 0, "its store says it");
}
