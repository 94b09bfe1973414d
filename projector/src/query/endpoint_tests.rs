#![allow(clippy::unwrap_used)]

use super::*;
use crate::event::Catalog;
use serde_json::json;
use std::path::Path;

fn catalog() -> Catalog {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    Catalog::load(&root.join("schemas")).unwrap()
}

fn source(text: &str) -> Source {
    Source { name: "test.yaml".into(), text: text.into() }
}

/// Compiles a file with one query; `store` decides which template is right.
fn compile(store: &str, query: &str) -> Result<Vec<Endpoint>, String> {
    let text = format!(
        "name: test\nstore: {{ {store} }}\non:\n  OrderPlaced: |\n    .order_id = %data.order_id\n    .day = \"2026-01-01\"\n    .at = %occurred_at\nqueries:\n  - {}",
        query.trim().replace('\n', "\n    ")
    );
    let source = source(&text);
    let said = |f: Vec<Finding>| f.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let compiled = Compiled::new(&source, &catalog()).map_err(said)?;
    Endpoint::compile_all(&source, &compiled).map_err(said)
}

const REDIS: &str = "redis: { prefix: 'x:' }";
const SEARCH: &str = "elasticsearch: {}";
const CLICKHOUSE: &str = "clickhouse: { day: day }";
const POSTGRES: &str = "postgres: {}";

fn refused(store: &str, query: &str) -> String {
    compile(store, query).expect_err(query)
}

#[test]
fn the_projections_of_this_repository_have_good_queries() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let catalog = catalog();
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(root.join("projections")).unwrap() {
        let path = entry.unwrap().path();
        let (compiled, source) = Compiled::load(&path, &catalog).unwrap_or_else(|f| panic!("{}", f[0]));
        let endpoints = Endpoint::compile_all(&source, &compiled).unwrap_or_else(|f| panic!("{}", f[0]));
        paths.extend(endpoints.into_iter().map(|e| e.path));
    }
    for path in ["/orders/{id}", "/customers/{id}/orders", "/reports/revenue"] {
        assert!(paths.contains(&PathPattern::parse(path).unwrap()), "{path}");
    }
}

#[test]
fn a_response_is_shaped_by_its_program_and_typed() {
    let query = "
get: /x/{id}
parameters: { id: { type: string }, n: { type: integer } }
document: { key: '{id}' }
response: |
  { \"id\": .document.order_id, \"at\": .document.at, \"n\": .params.n }";
    let endpoints = compile(REDIS, query).unwrap();
    let arguments = json!({"id": "7", "n": null}).as_object().unwrap().clone();
    let at = chrono::DateTime::parse_from_rfc3339("2026-05-23T10:00:00.5Z").unwrap().to_utc();
    let document = Object::from([("order_id".into(), Value::from("7")), ("at".into(), Value::Timestamp(at))]);
    let list = List::new(1, "/x", &arguments);
    let answer = endpoints[0].respond(&arguments, Found::Document(document), &list).unwrap();
    assert_eq!(answer.body, json!({"id": "7", "at": "2026-05-23T10:00:00.500000Z", "n": null}));
}

#[test]
fn rules_are_about_all_parameters() {
    let query = "
get: /x
parameters: { from: { type: date, default: today }, to: { type: date, default: today+1d } }
rules: [{ that: .params.from < .params.to, otherwise: turn them round }]
sql: 'select {from:Date}, {to:Date} from {table}'";
    let endpoint = compile(CLICKHOUSE, query).unwrap().remove(0);
    let check = |from: &str, to: &str| endpoint.check(json!({"from": from, "to": to}).as_object().unwrap());
    assert_eq!(check("2026-01-01", "2026-01-02"), Ok(()));
    assert_eq!(check("2026-01-02", "2026-01-02").unwrap_err().body()["detail"], "turn them round");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let good = "get: /x/{id}\nparameters: { id: { type: string } }\ndocument: { key: '{id}' }";
    assert!(compile(REDIS, good).is_ok());
    let with = |more: &str| format!("{good}\n{more}");
    let cases = [
        (REDIS, "get: /x/{id}\ndocument: { key: '{id}' }".to_owned(), "`id` is not among the `parameters`"),
        (REDIS, "get: x\ndocument: { key: k }".into(), "begins with `/`"),
        (REDIS, "get: /health\ndocument: { key: k }".into(), "service's own"),
        (REDIS, "get: /x\nsearch: {}".into(), "has `document`"),
        (REDIS, with("sql: select 1"), "none of the others"),
        (REDIS, with("paging: {}"), "has no pages"),
        (REDIS, "get: /x\nparameters: { a: { type: string } }\ndocument: { key: '{a}' }".into(), "must be required"),
        (
            REDIS,
            "get: /x\nparameters: { min_seq: { type: integer } }\ndocument: { key: k }".into(),
            "`min_seq` is there without",
        ),
        (REDIS, with("response: .document.order"), "test.yaml:12:"),
        (REDIS, with("response: .documents"), "`.documents`"),
        (REDIS, with("response: .params.it"), "`.params.it`"),
        (REDIS, with("rules: [{ that: .params.id, otherwise: x }]"), "true or false"),
        (REDIS, with("colour: red"), "colour"),
        (SEARCH, "get: /x\nsearch: { query: { term: { a: { param: b } } } }".into(), "`b` is not among"),
        (SEARCH, "get: /x\nsearch: { size: 3 }".into(), "paging"),
        (SEARCH, "get: /x\npaging: { size: 200 }\nsearch: {}".into(), "size_max"),
        (CLICKHOUSE, "get: /x\nsql: 'select {a:String} from {table}'".into(), "`a` is not among"),
        (CLICKHOUSE, "get: /x\nsql: 'select 1 from {rollup}'".into(), "needs `rollup`"),
        (
            CLICKHOUSE,
            "get: /x\nparameters: { a: { type: string } }\nsql: 'select {a:String} from {table}'".into(),
            "Nullable(String)",
        ),
        (
            REDIS,
            "get: /x/{id}\nparameters: { id: { type: string }, z: { type: string } }\ndocument: { key: '{id}' }".into(),
            "nothing uses it",
        ),
        (REDIS, with("also: ['/y/{other}']"), "other parameters"),
        (REDIS, with("also: ['/y/{id}?view']"), "behind `?`"),
        (REDIS, with("about: { book: id }"), "no event of `book`"),
        (REDIS, with("about: { order: di }"), "`di` is not among"),
        (REDIS, with("one: true"), "for a search or SQL"),
        (REDIS, with("cache: { ttl_s: 0 }"), "from 1 to 86400"),
        (REDIS, with("limits: { concurrency: 0 }"), "concurrency"),
        (REDIS, with("limits: { time_ms: 60000 }"), "time_ms"),
        (REDIS, with("limits: { answer_bytes: 1 }"), "answer_bytes"),
        (REDIS, with("row_filter: { me: sub }"), "row_filter: `me`"),
        (REDIS, with("fallback: { sql: 'select {it:text}' }"), "fallback: `it`"),
        (REDIS, with("fallback: { sql: 'select {table}' }"), "`{table}` is none of"),
        (REDIS, with("sort: { default: a, keys: { a: x } }"), "no order"),
        (SEARCH, "get: /x\nsearch: { query: { term: { order: 1 } } }".into(), "no field `order`"),
        (SEARCH, "get: /x\nsearch: { query: { term: { orderid: 1 } } }".into(), "did you mean `order_id`"),
        (SEARCH, "get: /x\nsearch: { script_fields: {} }".into(), "`script_fields` is none of"),
        (SEARCH, "get: /x\nsort: { default: b, keys: { a: [{ at: asc }] } }\nsearch: {}".into(), "none of its keys"),
        (
            SEARCH,
            "get: /x\nsort: { default: a, keys: { a: [{ at: asc }] } }\nsearch: { sort: [] }".into(),
            "own `sort`",
        ),
        (SEARCH, "get: /x\npaging: { cursor: [] }\nsearch: { sort: [{ at: desc }] }".into(), "tells entries apart"),
        (
            SEARCH,
            "get: /x\npaging: { cursor: [at] }\nsearch: { sort: [{ at: desc }, { order_id: asc }] }".into(),
            "cursor: []",
        ),
        (SEARCH, "get: /x\nfallback: { sql: select 1 }\nsearch: {}".into(), "only for one document"),
        (POSTGRES, "get: /x\nsql: 'select 1 from {table} order by {sort}'".into(), "needs `sort`"),
        (
            POSTGRES,
            "get: /x\nsort: { default: a, keys: { a: at } }\nsql: 'select 1 from {table}'".into(),
            "no `{sort}` stands",
        ),
        (
            POSTGRES,
            "get: /x\npaging: { cursor: [at] }\nsql: 'select 1 from {table} limit {limit:bigint}'".into(),
            "{after_at:Type}",
        ),
    ];
    for (store, query, said) in cases {
        let error = refused(store, &query);
        assert!(error.contains(said), "{query}\n→ {error}");
        assert!(error.starts_with("test.yaml:"), "{error}");
    }
}

#[test]
fn sql_for_postgres_takes_nulls_as_they_are() {
    let query = "
get: /things
parameters: { day: { type: date } }
paging: {}
sql: select order_id from {table} where {day:date} is null or day = {day:date} limit {limit:bigint} offset {offset:bigint}";
    assert!(compile(POSTGRES, query).is_ok());
    assert!(refused(CLICKHOUSE, query).contains("Nullable(date)"));
    assert!(refused(POSTGRES, &query.replace("{day:date} is", "{other:date} is")).contains("`other`"));
    assert!(refused(POSTGRES, "get: /x\ndocument: { key: x }").contains("`sql`"));
}

#[test]
fn a_cursor_of_sql_binds_the_last_rows_fields() {
    let query = "
get: /things
paging: { size: 2, cursor: [at, order_id] }
sort: { default: newest, keys: { newest: 'at desc, order_id desc' } }
sql: |
  select order_id, at from {table}
  where {after_order_id:text} is null or (at, order_id) < ({after_at:timestamptz}, {after_order_id:text})
  order by {sort} limit {limit:bigint}
response: '{ \"rows\": .rows, \"next\": .next_cursor }'";
    let endpoint = compile(POSTGRES, query).unwrap().remove(0);
    let arguments = json!({"page": 1, "size": 2, "cursor": null, "sort": "newest"}).as_object().unwrap().clone();
    let list = List::new(1, "/things", &arguments);
    let row = |id: &str| json::from_json(json!({"order_id": id, "at": "2026-01-01T00:00:00Z"}), &Kind::any());
    let whole = endpoint.respond(&arguments, Found::Rows(vec![row("b"), row("a")]), &list).unwrap();
    let cursor = whole.next_cursor.unwrap();
    assert_eq!(whole.body["next"], json!(cursor));
    let mut bound = arguments.clone();
    endpoint.bind_after(&mut bound, &list.read(&cursor).unwrap()).unwrap();
    assert_eq!((&bound["after_at"], &bound["after_order_id"]), (&json!("2026-01-01T00:00:00.000000Z"), &json!("a")));
    let Template::Sql(sql) = &endpoint.template else { panic!("not SQL") };
    assert!(sql.numbered("t", sql.sort(&bound)).contains("order by at desc, order_id desc limit"));
    let last = endpoint.respond(&arguments, Found::Rows(vec![row("a")]), &list).unwrap();
    assert_eq!((last.next_cursor, &last.body["next"]), (None, &json!(null)));
}
