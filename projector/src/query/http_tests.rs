#![allow(clippy::unwrap_used)]

use super::*;
use crate::control::{Generation, ProgressMap};
use crate::event::{Catalog, EventRef};
use crate::query::feed::ProgressSource;
use crate::query::live::Keeper;
use crate::query::partition_of;
use crate::sink::{Partition, StoreUrls};
use axum::extract::Path as UrlPath;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::net::TcpListener;

/// A search engine that notes what it is asked.
#[derive(Clone)]
struct Engine {
    calls: Arc<Mutex<Vec<(String, Json)>>>,
    total: Arc<AtomicI64>,
    /// How long the hit's id is made.
    long: Arc<AtomicUsize>,
    /// How long a refresh takes.
    refresh_ms: Arc<AtomicUsize>,
}

impl Default for Engine {
    fn default() -> Self {
        Self { calls: Arc::default(), total: Arc::new(41.into()), long: Arc::default(), refresh_ms: Arc::default() }
    }
}

async fn listen(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

impl Engine {
    async fn start(&self) -> String {
        let Self { calls, total, long, refresh_ms } = self.clone();
        let handle = move |UrlPath((index, call)): UrlPath<(String, String)>, body: String| async move {
            if call == "_refresh" {
                let took = refresh_ms.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(took.try_into().unwrap())).await;
            }
            let body = serde_json::from_str(&body).unwrap_or(Json::Null);
            calls.lock().unwrap().push((format!("{index}/{call}"), body));
            let shards = json!({"total": 1, "successful": 1, "failed": 0});
            let hit =
                json!({"_source": {"order_id": format!("o-1{}", "x".repeat(long.load(Ordering::SeqCst))), "_seq": 3}});
            json!({"_shards": shards, "timed_out": false, "hits": {"total": {"value": total.load(Ordering::SeqCst)}, "hits": [hit]}}).to_string()
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
    service: Service,
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
    search: { query: { bool: { filter: [{ term: { order_id: { param: id } } }, { match: { order_id: { param: q } } }] } } }
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
        let limits = ServiceLimits::default();
        let service = Service::new(Arc::clone(&keeper), None, &limits);
        let url = listen(router(service.clone(), &limits)).await;
        Self { url, engine, keeper, service, published: Arc::default() }
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
        let event =
            EventRef { epoch: "e".into(), txid, tx_min: txid, snapshot: None, aggregate_id: id.into(), sequence };
        let mut published = self.published.0.lock().unwrap();
        let progress = published.entry(partition).or_default();
        progress.handled(&event, progress.next_offset);
        drop(published);
        self.keeper.live().unwrap().models[&1].feed.notify();
    }

    async fn get(&self, path: &str) -> (StatusCode, HeaderMap, Json) {
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
    assert_eq!(*filters, json!([{"term": {"order_id": "o 1"}}, {"match": {"order_id": "blue cup"}}]));
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
async fn a_slow_refresh_takes_the_callers_wait_and_not_the_querys_time_and_places() {
    let world = Arc::new(
        World::serving(&CONFIG.replace("    paging", "    limits: { time_ms: 200, concurrency: 1 }\n    paging")).await,
    );
    world.handle("o-1", 9, 1);
    world.engine.refresh_ms.store(600, Ordering::SeqCst);
    let path = |wait_ms| format!("/things/1?consistency_token={}&wait_ms={wait_ms}", token("e", 9, "o-1", 1));
    let waiting = tokio::spawn({
        let (world, path) = (Arc::clone(&world), path(5_000));
        async move { world.get(&path).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.get("/things/1").await.0, 200, "one that asks for nothing isn't held up");
    assert!(!waiting.is_finished());
    assert_eq!(waiting.await.unwrap().0, 200);
    let (status, _, body) = world.get(&path(100)).await;
    assert_eq!((status.as_u16(), &body["type"]), (503, &json!("/problems/timed-out")), "who doesn't wait for it");
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

const CACHED: &str = "
name: found
store: { elasticsearch: {} }
on:
  OrderPlaced: |
    .order_id = %data.order_id
    .status = \"new\"
queries:
  - get: /things
    also: ['/stuff?view=things']
    parameters: { status: { type: string, values: [new, old], doc: The state. } }
    cache: { ttl_s: 60 }
    paging: {}
    search: { query: { bool: { filter: [{ term: { status: { param: status } } }] } } }
    response: '{ \"total\": .total, \"things\": map_values(.hits) -> |hit| { { \"id\": hit.order_id } } }'
";

impl World {
    async fn send(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let request = reqwest::Client::new().get(format!("{}{path}", self.url));
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
    }
}

#[tokio::test]
async fn a_kept_answer_is_given_only_to_whom_it_is_enough() {
    let world = World::serving(CACHED).await;
    let many = futures::future::join_all((0..20).map(|_| world.get("/things?status=new"))).await;
    assert!(many.iter().all(|(status, ..)| *status == 200));
    assert_eq!(world.engine.called(), ["found-g2/_search"], "those who ask at once share one read");
    world.get("/stuff?view=things&status=new").await;
    world.get("/things?status=new").await;
    assert_eq!(world.engine.called().len(), 1, "kept, under its other path too");
    assert_eq!(world.get("/stuff?status=new").await.0, 404);

    world.handle("o-1", 9, 1);
    let path = format!("/things?status=new&consistency_token={}", token("e", 9, "o-1", 1));
    world.get(&path).await;
    let own = ["found-g2/_search", "found-g2/_refresh", "found-g2/_search"];
    assert_eq!(world.engine.called(), own, "what was kept held less than the token asks");
    world.get(&path).await;
    world.get("/things?status=new").await;
    assert_eq!(world.engine.called(), own, "the newer one is kept, with what it covers");
}

#[tokio::test]
async fn an_answer_has_a_name_and_other_forms() {
    let world = World::serving(CACHED).await;
    let first = world.send("/things", &[]).await;
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    let again = world.send("/things", &[("if-none-match", &etag)]).await;
    assert_eq!((again.status().as_u16(), &again.headers()["read-model"]), (304, &"found".parse().unwrap()));
    assert_eq!(world.send("/things?size=3", &[("if-none-match", "\"other\"")]).await.status(), 200);
    let table = world.send("/things", &[("accept", "text/csv")]).await;
    assert_eq!(table.headers()["content-type"], "text/csv; charset=utf-8");
    assert_eq!(table.text().await.unwrap(), "id\r\no-1\r\n");
    let described = world.get("/openapi.json").await.2;
    assert_eq!(described["openapi"], "3.1.0");
    let things = &described["paths"]["/things"]["get"];
    assert_eq!(things["parameters"][2]["schema"]["enum"], json!(["new", "old"]), "{things}");
    let schema = &things["responses"]["200"]["content"]["application/json"]["schema"];
    assert_eq!(schema["properties"]["things"]["items"]["properties"]["id"], json!({"type": "string"}), "{schema}");
}

#[tokio::test]
async fn whoever_prefers_it_gets_the_stale_answer_marked_as_such() {
    let world = World::serving(CACHED).await;
    let asked = token("e", 9, "o-1", 1);
    let path = format!("/things?wait_ms=100&consistency_token={asked}");
    assert_eq!(world.send(&path, &[]).await.status(), 503);
    let stale = world.send(&path, &[("prefer", "stale-ok")]).await;
    let headers = stale.headers().clone();
    assert_eq!((stale.status().as_u16(), &headers["read-model-freshness"]), (200, &"stale".parse().unwrap()));
    assert_eq!(headers["preference-applied"], "stale-ok");
    let body: Json = stale.json().await.unwrap();
    assert_eq!(body["freshness"], "stale");
    world.handle("o-1", 9, 1);
    let current = world.send(&path, &[("prefer", "stale-ok")]).await;
    assert!(!current.headers().contains_key("read-model-freshness"), "a stale answer isn't kept");
    let several = format!("/things?consistency_token={asked},{}", token("e", 8, "o-1", 1));
    assert_eq!(world.send(&several, &[]).await.status(), 200);
}

#[tokio::test]
async fn subscribers_get_what_changes_and_resume() {
    let world = World::serving(CACHED).await;
    let mut stream = world.send("/things", &[("accept", "text/event-stream")]).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut next = async || {
        let chunk = timeout(Duration::from_secs(5), stream.chunk()).await.unwrap().unwrap().unwrap();
        String::from_utf8(chunk.to_vec()).unwrap()
    };
    let first = next().await;
    assert!(first.starts_with("event: snapshot\n") && first.contains("\"total\":41"), "{first}");
    let id = first.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    world.engine.total.store(42, Ordering::SeqCst);
    world.handle("o-1", 9, 1);
    let second = next().await;
    assert!(second.starts_with("event: change\n") && second.contains("\"total\":42"), "{second}");

    world.engine.total.store(41, Ordering::SeqCst);
    world.handle("o-1", 10, 2);
    assert!(next().await.contains("41"));
    let mut resumed = world.send("/things", &[("accept", "text/event-stream"), ("last-event-id", &id)]).await;
    let silent = timeout(Duration::from_secs(1), resumed.chunk()).await;
    assert!(silent.is_err(), "nothing changed since: {silent:?}");
    assert_eq!(world.send("/nothing", &[("accept", "text/event-stream")]).await.status(), 404);
}

#[tokio::test]
async fn a_slow_subscriber_is_dropped_with_a_message() {
    let world = World::serving(CACHED).await;
    // Long enough to fill the sockets' buffers soon.
    world.engine.long.store(4_000_000, Ordering::SeqCst);
    let mut stream = world.send("/things", &[("accept", "text/event-stream")]).await;
    let mut txid = 100;
    let free = 1_000;
    let mut subscribers = 999;
    for n in 0..80 {
        world.engine.total.store(1_000 + n, Ordering::SeqCst);
        txid += 1;
        world.handle("o-1", txid, n + 1);
        tokio::time::sleep(Duration::from_millis(300)).await;
        subscribers = world.service.subscribers.available_permits();
        if subscribers == free {
            break;
        }
    }
    assert_eq!(subscribers, free, "it was never dropped");
    let mut last = String::new();
    while let Some(chunk) = timeout(Duration::from_secs(5), stream.chunk()).await.unwrap().unwrap() {
        last.push_str(&String::from_utf8_lossy(&chunk));
        let from = (0..=last.len().saturating_sub(400)).rev().find(|at| last.is_char_boundary(*at)).unwrap();
        last.drain(..from);
    }
    assert!(last.contains("event: dropped"), "{last}");
}
