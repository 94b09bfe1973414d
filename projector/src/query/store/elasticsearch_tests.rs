//! Declared searches on real servers, Elasticsearch 7.17 and OpenSearch alike, over a place that the sink made.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::apply::Write;
use crate::event::Catalog;
use crate::expr::Object;
use crate::projection::{Compiled, Source};
use crate::query::cursor::List;
use crate::query::endpoint::{Endpoint, Found, Template};
use crate::sink::{Place, Sink, open};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const LOANS: &str = "
name: loans
store:
  elasticsearch:
    fields: { title: { type: text, fields: { typed: { type: search_as_you_type, max_shingle_size: 2 } } } }
on:
  Borrowed: |
    .loan_id = %data.loan_id
    .member_id = %data.member_id
    .title = %data.title
    .days = %data.days
    .due = %data.due
    .late = %data.days > 30
queries:
  - get: /loans
    parameters:
      q: { type: string }
      member: { type: string, filter: { is: member_id } }
      late: { type: boolean, filter: { is: late } }
      from: { type: date, filter: { gte: due } }
      to: { type: date, filter: { lt: due } }
      days: { type: integer, filter: { lte: days } }
      by: { type: string, values: [day, week, month, quarter, year], default: month }
    paging: { size: 10 }
    fields: [loan_id, days]
    facets:
      members: { field: member_id, size: 2 }
      late: { field: late }
      due: { field: due, interval: { param: by } }
      days: { field: days, bounds: [10, 30] }
    search:
      query: { match: { title: { query: { param: q } } } }
      highlight: { fields: { title: {} } }
      sort: [{ loan_id: asc }]
    response: |
      { \"total\": .total, \"facets\": .facets, \"ids\": map_values(.hits) -> |hit| { hit.loan_id }, \"last\": .hits[-1] }
  - get: /titles
    parameters:
      q: { type: string, required: true }
      member: { type: string, filter: { is: member_id } }
    suggest: { field: title, text: q }
";

struct Index {
    source: Source,
    compiled: Compiled,
    sink: Arc<dyn Sink>,
    reader: SearchReader,
    url: String,
}

impl Index {
    async fn new(url: &str, text: &str, schemas: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let source = Source { name: "test.yaml".into(), text: text.into() };
        let catalog = Catalog::load(Path::new(schemas)).unwrap();
        let compiled = Compiled::new(&source, &catalog).unwrap_or_else(|found| panic!("{}", found[0]));
        let urls = StoreUrls { elasticsearch_url: url.to_owned(), ..StoreUrls::default() };
        let read_model = format!("query_{}", uuid::Uuid::new_v4().simple());
        let document = compiled.document.clone();
        let place = Place { read_model: read_model.clone(), generation: 1, document: document.clone() };
        let sink = open(&compiled.projection.store, place, &urls).unwrap();
        sink.prepare().await.unwrap();
        let generation = Generation {
            generation_id: 1,
            read_model,
            generation: 1,
            state: "live".into(),
            fingerprint: String::new(),
            config: String::new(),
            topics: BTreeMap::new(),
        };
        let reader = SearchReader::open(&generation, &document, &urls, &reqwest::Client::new()).unwrap();
        Self { source, compiled, sink, reader, url: format!("{url}/{}", generation.id()) }
    }

    async fn put(&self, key: &str, fields: Json) {
        let fields: Object = json::object_from_json(fields.as_object().unwrap().clone(), &self.compiled.document);
        let write = Write { key: key.to_owned(), version: 1, fields: Some(Arc::new(fields)), ..Write::default() };
        assert_eq!(self.sink.write(&[write]).await.unwrap(), [crate::apply::Outcome::Written]);
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        Endpoint::compile_all(&self.source, &self.compiled).unwrap_or_else(|found| panic!("{}", found[0]))
    }

    async fn answer(&self, endpoint: &Endpoint, given: &[(&str, &str)]) -> Json {
        let given: Vec<_> = given.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let arguments = endpoint.parameters.read(&[], &given, endpoint.today()).unwrap();
        let Template::Search(search) = &endpoint.template else { panic!("no search") };
        let found = self.reader.search(&search.render(&arguments, None)).await.unwrap();
        let list = List::new(1, "/", &arguments);
        endpoint.respond(&arguments, Found::Hits(found), &list).unwrap().body
    }

    async fn drop(self) {
        reqwest::Client::new().delete(&self.url).send().await.unwrap();
    }
}

fn servers() -> [String; 2] {
    let env = |name: &str, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    [env("ELASTICSEARCH_URL", "http://127.0.0.1:19200"), env("ELASTICSEARCH7_URL", "http://127.0.0.1:19207")]
}

fn schemas() -> String {
    format!("{}/tests/library/schemas", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn facets_count_what_another_choice_would_find() {
    for server in servers() {
        let index = Index::new(&server, LOANS, &schemas()).await;
        for (id, member, title, days, due) in [
            ("l-1", "ada", "Emma", 7, "2026-04-30T23:30:00Z"),
            ("l-2", "ada", "Emil", 10, "2026-05-01T00:00:00Z"),
            ("l-3", "bob", "Emma", 29, "2026-05-17T12:00:00Z"),
            ("l-4", "bob", "Ulysses", 30, "2026-06-01T00:00:00Z"),
            ("l-5", "eve", "Emma", 31, "2026-06-02T00:00:00Z"),
        ] {
            let document = json!({"loan_id": id, "member_id": member, "title": title, "days": days, "due": due, "late": days > 30});
            index.put(id, document).await;
        }
        index.reader.refresh().await.unwrap();
        let endpoints = index.endpoints();
        let days = |low: i64, middle: i64, high: i64| json!([{"from": null, "to": 10, "count": low}, {"from": 10, "to": 30, "count": middle}, {"from": 30, "to": null, "count": high}]);
        let all = index.answer(&endpoints[0], &[]).await;
        let expected = json!({
            "total": 5, "ids": ["l-1", "l-2", "l-3", "l-4", "l-5"],
            "last": {"loan_id": "l-5", "days": 31, "highlight": null}, "facets": {
                "members": [{"value": "ada", "count": 2}, {"value": "bob", "count": 2}],
                "late": [{"value": false, "count": 4}, {"value": true, "count": 1}],
                "due": [{"from": "2026-04-01", "count": 1}, {"from": "2026-05-01", "count": 2}, {"from": "2026-06-01", "count": 2}],
                "days": days(1, 2, 2),
            },
        });
        assert_eq!(all, expected, "{server}");
        let some = [("q", "emma"), ("member", "bob"), ("from", "2026-05-01"), ("to", "2026-06-01"), ("by", "year")];
        let expected = json!({
            "total": 1, "ids": ["l-3"],
            "last": {"loan_id": "l-3", "days": 29, "highlight": {"title": ["<em>Emma</em>"]}}, "facets": {
                "members": [{"value": "bob", "count": 1}], "late": [{"value": false, "count": 1}],
                "due": [{"from": "2026-01-01", "count": 1}], "days": days(0, 1, 0),
            },
        });
        assert_eq!(index.answer(&endpoints[0], &some).await, expected, "{server}");
        // Each facet leaves its own choice out of account.
        let own = index.answer(&endpoints[0], &[("member", "eve"), ("days", "30")]).await;
        assert_eq!((&own["total"], &own["ids"]), (&json!(0), &json!([])), "{server}");
        let members = json!([{"value": "ada", "count": 2}, {"value": "bob", "count": 2}]);
        assert_eq!((&own["facets"]["members"], &own["facets"]["days"]), (&members, &days(0, 0, 1)), "{server}");
        for hostile in ["*", r#"x"}},{"match_all":{}}"#, "{param: q}"] {
            let none = index.answer(&endpoints[0], &[("member", hostile)]).await;
            assert_eq!((&none["total"], &none["facets"]["late"]), (&json!(0), &json!([])), "{server}: {hostile}");
        }
        index.drop().await;
    }
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn texts_are_suggested_while_they_are_typed() {
    for server in servers() {
        let index = Index::new(&server, LOANS, &schemas()).await;
        for (id, member, title) in [("l-1", "ada", "The Lighthouse"), ("l-2", "bob", "Ulysses"), ("l-3", "ada", "Emma")]
        {
            let document = json!({"loan_id": id, "member_id": member, "title": title, "days": 1, "due": "2026-05-01T00:00:00Z", "late": false});
            index.put(id, document).await;
        }
        index.reader.refresh().await.unwrap();
        let suggest = index.endpoints().remove(1);
        for (given, expected) in [
            (vec![("q", "lighth")], json!(["The Lighthouse"])),
            (vec![("q", "the li")], json!(["The Lighthouse"])),
            (vec![("q", "emna")], json!(["Emma"])),
            (vec![("q", "ulys"), ("member", "bob")], json!(["Ulysses"])),
            (vec![("q", "ulys"), ("member", "ada")], json!([])),
            (vec![("q", "zzzzzz")], json!([])),
        ] {
            assert_eq!(index.answer(&suggest, &given).await, expected, "{server}: {given:?}");
        }
        index.drop().await;
    }
}
