#![allow(clippy::unwrap_used)]

use super::*;

fn arguments(of: Json) -> Arguments {
    of.as_object().unwrap().clone()
}

fn search(yaml: &str) -> SearchTemplate {
    SearchTemplate::parse(&serde_saphyr::from_str(yaml).unwrap(), None).unwrap()
}

const ORDERS: &str = "
    query:
      bool:
        filter: [{ term: { customer: { param: id } } }, { term: { status: { param: status } } }]
        must: [{ match: { 'products.name': { query: { param: q }, operator: and } } }]
    post_filter: { term: { flag: { param: flag } } }
    sort: [{ created_at: desc }]";

#[test]
fn keys_are_filled_in() {
    let key = KeyTemplate::parse("{a}:x:{b}").unwrap();
    assert_eq!(key.parameters().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(key.render(&arguments(json!({"a": "{b}", "b": 7}))), "{b}:x:7", "values aren't read as templates");
    assert!(KeyTemplate::parse("{a").is_err());
}

#[test]
fn a_clause_with_an_absent_parameter_vanishes() {
    let template = search(ORDERS);
    assert_eq!(template.parameters(), ["id", "status", "q", "flag"]);
    let body = template
        .render(&arguments(json!({"id": "c-1", "status": null, "q": null, "flag": null, "page": 3, "size": 20})), None);
    let expected = json!({
        "sort": [{"created_at": "desc"}],
        "query": {"bool": {
            "must": [{"bool": {"filter": [{"term": {"customer": "c-1"}}], "must": []}}],
            "must_not": [{"term": {"_deleted": true}}, {"range": {"_expires": {"lte": "now"}}}],
        }},
        "track_total_hits": true, "from": 40, "size": 20,
    });
    assert_eq!(body, expected);
}

#[test]
fn values_keep_their_type_and_stay_values() {
    let hostile = r#"x"}},{"match_all":{}}"#;
    let body = search(ORDERS)
        .render(&arguments(json!({"id": hostile, "status": "open", "q": "{param: id}", "flag": true})), None);
    let inner = &body["query"]["bool"]["must"][0]["bool"];
    assert_eq!(inner["filter"][0]["term"]["customer"], hostile);
    assert_eq!(inner["must"][0]["match"]["products.name"]["query"], "{param: id}");
    assert_eq!(body["post_filter"]["term"]["flag"], true);
    assert!(body.get("from").is_none());
}

#[test]
fn bodies_may_not_page_by_themselves() {
    assert!(SearchTemplate::parse(&json!({"size": 10_000}), None).unwrap_err().contains("paging"));
    assert!(SearchTemplate::parse(&json!([1]), None).is_err());
}

#[test]
fn sql_is_bound_by_the_server() {
    let sql = SqlTemplate::parse("select {a:String}, {n:Nullable(Int64)} from {table} final limit {limit:UInt64} offset {offset:UInt64} -- {a:String}", None).unwrap();
    assert!(sql.statement("`d`.`t_g1`", "", "").contains("from `d`.`t_g1` final"));
    let rollup = SqlTemplate::parse("select sum(n) from {rollup}", None).unwrap();
    assert!(rollup.reads_rollup() && !sql.reads_rollup());
    assert_eq!(rollup.statement("t", "(select 1)", ""), "select sum(n) from (select 1)");
    let values = sql.values(&arguments(json!({"a": "it's\\ a\ttab\n", "n": null, "page": 2, "size": 50})));
    let expected =
        [("param_a", "it's\\\\ a\\ttab\\n"), ("param_n", "\\N"), ("param_limit", "50"), ("param_offset", "50")];
    assert_eq!(values, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
}

#[test]
fn sql_for_postgres_has_numbered_parameters() {
    let sql = SqlTemplate::parse(
        "select {a:text}, '{table}' from {table} where n = { n : bigint } or {a:text} is null limit {limit:bigint}",
        None,
    )
    .unwrap();
    let expected = "select $1::text, 't' from t where n = $2::bigint or $1::text is null limit $3::bigint";
    assert_eq!(sql.numbered("t", ""), expected);
    let texts = sql.texts(&arguments(json!({"a": "it's {n:bigint}", "n": null, "page": 2, "size": 50})));
    assert_eq!(texts, [Some("it's {n:bigint}".to_owned()), None, Some("50".to_owned())]);
}

#[test]
fn sql_must_read_its_own_table_and_bind_what_it_names() {
    assert!(SqlTemplate::parse("select 1 from other", None).unwrap_err().contains("{table}"));
    assert!(SqlTemplate::parse("select {a} from {table}", None).unwrap_err().contains("{a}"));
    assert!(SqlTemplate::parse("select {a from {table", None).is_err());
}
