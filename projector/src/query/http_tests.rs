#![allow(clippy::unwrap_used)]

use super::*;
use crate::control::{Generation, ProgressMap};
use crate::event::{Catalog, EventRef};
use crate::query::feed::ProgressSource;
use crate::query::partition_of;
use crate::sink::{Partition, StoreUrls};
use axum::extract::Path as UrlPath;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;
use tokio::net::TcpListener;

/// A search engine that notes what it is asked.
#[derive(Clone, Default)]
struct Engine {
    calls: Arc<Mutex<Vec<(String, Json)>>>,
}

async fn listen(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

impl Engine {
    async fn start(&self) -> String {
        let calls = Arc::clone(&self.calls);
        let handle = move |UrlPath((index, call)): UrlPath<(String, String)>, body: String| async move {
            let body = serde_json::from_str(&body).unwrap_or(Json::Null);
            calls.lock().unwrap().push((format!("{index}/{call}"), body));
            let shards = json!({"total": 1, "successful": 1, "failed": 0});
            let hit = json!({"_source": {"order_id": "o-1", "_seq": 3}});
            json!({"_shards": shards, "timed_out": false, "hits": {"total": {"value": 41}, "hits": [hit]}}).to_string()
        };
        listen(Router::new().route("/{index}/{call}", post(handle))).await
    }

    fn called(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|(call, _)| call.clone()).collect()
    }
}

/// Published progress that tests move on.
#[derive(Default)]
struct Published(Mutex<ProgressMap>);

#[async_trait::async_trait]
impl ProgressSource for Published {
    async fn read(&self, _: i64) -> Result<ProgressMap, String> {
        Ok(self.0.lock().unwrap().clone())
    }
}

struct World {
    url: String,
    engine: Engine,
    keeper: Arc<Keeper>,
    published: Arc<Published>,
}

const CONFIG: &str = "
name: found
store: { elasticsearch: {} }
on:
  OrderPlaced: |
    .order_id = %data.order_id
queries:
  - get: /things/{id}
    parameters: { id: { type: string }, q: { type: string } }
    paging: {}
    search: { query: { bool: { filter: [{ term: { id: { param: id } } }, { match: { text: { param: q } } }] } } }
    response: '{ \"total\": .total, \"page\": .params.page, \"ids\": map_values(.hits) -> |hit| { hit.order_id } }'
";

impl World {
    async fn new() -> Self {
        let engine = Engine::default();
        let nowhere = "http://127.0.0.1:9".to_owned();
        let urls = StoreUrls {
            redis_url: "redis://127.0.0.1:9".into(),
            elasticsearch_url: engine.start().await,
            clickhouse_url: nowhere,
            clickhouse_database: "d".into(),
            postgres_read_url: "postgres://127.0.0.1:9/d".into(),
            ..StoreUrls::default()
        };
        let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("schemas");
        let keeper = Keeper::new(urls, Catalog::load(&schemas).unwrap()).unwrap();
        let url = listen(router(Arc::clone(&keeper))).await;
        Self { url, engine, keeper, published: Arc::default() }
    }

    async fn serving(config: &str) -> Self {
        let world = Self::new().await;
        world.serve(config);
        world
    }

    fn serve(&self, config: &str) {
        let generation = Generation {
            generation_id: 1,
            read_model: "found".into(),
            generation: 2,
            state: "live".into(),
            fingerprint: String::new(),
            config: config.into(),
            topics: BTreeMap::from([("events.order".into(), 12)]),
        };
        self.keeper.serve(vec![generation], &(Arc::clone(&self.published) as Arc<dyn ProgressSource>));
    }

    /// The projector has handled an event; the notification comes as it would by the listening connection.
    fn handle(&self, id: &str, txid: u64, sequence: i64) {
        let partition = Partition { topic: "events.order".into(), number: partition_of(id, 12) };
        let event = EventRef { epoch: "e".into(), txid, tx_min: txid, aggregate_id: id.into(), sequence };
        self.published.0.lock().unwrap().entry(partition).or_default().handled(&event, 0);
        self.keeper.live().unwrap().models[&1].feed.notify();
    }

    async fn get(&self, path: &str) -> (StatusCode, reqwest::header::HeaderMap, Json) {
        let response = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.text().await.unwrap();
        (StatusCode::from_u16(status.as_u16()).unwrap(), headers, serde_json::from_str(&body).unwrap_or(Json::Null))
    }
}

fn token(epoch: &str, txid: u64, id: &str, sequence: i64) -> String {
    URL_SAFE_NO_PAD
        .encode(json!({"v": 1, "epoch": epoch, "txid": txid, "streams": [["order", id, sequence]]}).to_string())
}

#[tokio::test]
async fn before_anything_is_live_it_is_up_but_not_ready() {
    let world = World::new().await;
    assert_eq!(world.get("/health/live").await.0, 200);
    for path in ["/health/ready", "/things/7"] {
        let (status, headers, body) = world.get(path).await;
        assert_eq!((status.as_u16(), &body["type"]), (503, &json!("/problems/not-ready")), "{path}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn a_declared_query_is_answered_under_both_paths() {
    let world = World::serving(CONFIG).await;
    for path in ["/things/o%201?q=blue%20cup&page=2", "/api/things/o%201?q=blue+cup&page=2"] {
        let (status, headers, body) = world.get(path).await;
        assert_eq!((status.as_u16(), body), (200, json!({"total": 41, "page": 2, "ids": ["o-1"]})));
        assert_eq!(
            (&headers["read-model"], &headers["read-model-generation"]),
            (&"found".parse().unwrap(), &"2".parse().unwrap())
        );
        assert!(headers.contains_key("x-request-id"));
    }
    assert_eq!(world.engine.called(), ["found-g2/_search", "found-g2/_search"], "no refresh without a token");
    let body = world.engine.calls.lock().unwrap()[0].1.clone();
    assert_eq!((&body["from"], &body["size"]), (&json!(20), &json!(20)));
    let filters = &body["query"]["bool"]["must"][0]["bool"]["filter"];
    assert_eq!(*filters, json!([{"term": {"id": "o 1"}}, {"match": {"text": "blue cup"}}]));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_a_named_problem() {
    let world = World::serving(CONFIG).await;
    let cases = [
        ("/things", 404, "no-such-path"),
        ("/things/1?colour=red", 400, "invalid-parameter"),
        ("/things/1?page=0", 400, "invalid-parameter"),
        ("/things/1?page=101&size=100", 400, "invalid-parameter"),
        ("/things/1?min_seq=3", 400, "invalid-parameter"),
        ("/things/1?wait_ms=9999", 400, "invalid-parameter"),
        ("/things/%FF", 400, "invalid-parameter"),
        ("/things/1?consistency_token=AAAA", 400, "invalid-token"),
    ];
    for (path, status, name) in cases {
        let (found, _, body) = world.get(path).await;
        assert_eq!((found.as_u16(), &body["type"]), (status, &json!(format!("/problems/{name}"))), "{path}");
    }
    assert!(world.engine.called().is_empty());
    let posted = reqwest::Client::new().post(format!("{}/things/1", world.url)).send().await.unwrap();
    assert_eq!((posted.status().as_u16(), posted.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD"));
}

#[tokio::test]
async fn a_search_with_a_token_waits_then_refreshes_then_searches() {
    let world = Arc::new(World::serving(CONFIG).await);
    let path = format!("/things/1?consistency_token={}&wait_ms=5000", token("e", 9, "o-1", 1));
    let answer = tokio::spawn({
        let (world, path) = (Arc::clone(&world), path.clone());
        async move { world.get(&path).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(world.engine.called().is_empty() && !answer.is_finished(), "nothing is read before the progress is there");
    world.handle("o-1", 9, 1);
    assert_eq!(answer.await.unwrap().0, 200);
    assert_eq!(world.engine.called(), ["found-g2/_refresh", "found-g2/_search"]);
    assert_eq!(world.get(&path).await.1["read-model-position"], "1");
}

#[tokio::test]
async fn freshness_is_answered_when_all_readers_will_see_it() {
    let world = Arc::new(World::serving(CONFIG).await);
    let path =
        |wait_ms: u64| format!("/freshness/found?consistency_token={}&wait_ms={wait_ms}", token("e", 9, "o-1", 1));
    let (status, headers, body) = world.get(&path(100)).await;
    assert_eq!((status.as_u16(), &body["type"]), (503, &json!("/problems/read-model-behind")));
    assert_eq!(headers["read-model"], "found");
    let answer = tokio::spawn({
        let (world, path) = (Arc::clone(&world), path(5_000));
        async move { world.get(&path).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!answer.is_finished());
    world.handle("o-1", 9, 1);
    let (status, _, body) = answer.await.unwrap();
    assert_eq!((status.as_u16(), body), (200, json!({"read_model": "found", "generation": 2, "position": 1})));
    assert_eq!(world.engine.called(), ["found-g2/_refresh"], "a search without a token finds it from now on");
    for (path, status, name) in [
        ("/freshness/lost", 404, "no-such-read-model"),
        ("/freshness/found?colour=red", 400, "invalid-parameter"),
        ("/freshness/found?consistency_token=AAAA", 400, "invalid-token"),
    ] {
        let (found, _, body) = world.get(path).await;
        assert_eq!((found.as_u16(), &body["type"]), (status, &json!(format!("/problems/{name}"))), "{path}");
    }
}

#[tokio::test]
async fn at_the_time_limit_there_is_no_answer() {
    let world = World::serving(CONFIG).await;
    world.handle("o-1", 5, 1);
    let begin = Instant::now();
    let (status, headers, body) =
        world.get(&format!("/things/1?consistency_token={}&wait_ms=200", token("e", 9, "o-1", 2))).await;
    assert_eq!((status.as_u16(), &body["type"]), (503, &json!("/problems/read-model-behind")));
    assert!((200..1_000).contains(&begin.elapsed().as_millis()));
    assert_eq!((&headers["retry-after"], &body["read_model"]), (&"1".parse().unwrap(), &json!("found")));
    assert_eq!(body["required"]["streams"][0]["stream"], json!(["order", "o-1", 2]));
    assert_eq!(body["reached"]["partitions"][0]["watermark"], 5);
    assert!(body["lag_ms"].as_u64().unwrap() >= 200);
    let (status, _, body) = world.get(&format!("/things/1?consistency_token={}", token("restored", 9, "o-1", 1))).await;
    assert_eq!((status.as_u16(), &body["type"]), (409, &json!("/problems/unknown-epoch")));
    assert!(world.engine.called().is_empty());
}

#[tokio::test]
async fn a_store_that_is_down_is_said_and_changed_queries_show_without_a_restart() {
    let world = World::serving(CONFIG).await;
    world.serve(&CONFIG.replace("/things/", "/stuff/"));
    assert_eq!(world.get("/things/1").await.0, 404);
    assert_eq!(world.get("/stuff/1").await.0, 200);
    world.serve(&CONFIG.replace("get: /things/{id}", "get: no path"));
    assert_eq!(world.get("/stuff/1").await.0, 200, "what can't be compiled changes nothing");
    assert!(world.get("/health/ready").await.2["not_served"]["found"].as_str().unwrap().contains("begins with `/`"));

    let other = World::new().await;
    let sql = "    sql: 'select {q:Nullable(String)}, {id:String} from {table} limit {limit:UInt64}'";
    let lines = CONFIG
        .lines()
        .filter(|l| !l.contains("response:"))
        .map(|l| if l.trim_start().starts_with("search:") { sql } else { l });
    let config = lines.collect::<Vec<_>>().join("\n").replace("elasticsearch: {}", "clickhouse: { day: order_id }");
    other.serve(&config);
    let (_, _, ready) = other.get("/health/ready").await;
    assert_eq!(ready["not_served"], json!({}), "{ready}");
    let (status, headers, body) = other.get("/things/1").await;
    assert_eq!((status.as_u16(), &body["type"]), (503, &json!("/problems/store-unavailable")));
    assert_eq!(headers["read-model"], "found");
}
