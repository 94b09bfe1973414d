//! On a real Elasticsearch or OpenSearch.

use super::documents::{Text, documents};
use super::fixtures::{apart, fenced, loan, named, place, put, run_name, speed, urls, urls_at, written};
use super::outages::outages;
use super::progress::NUMBERS;
use super::proxy::Proxy;
use anyhow::{Context as _, Result, ensure};
use projector::apply::{Outcome, Partition, Progress, Write};
use projector::expr::{Object, Value};
use projector::projection::{ElasticsearchStore, Store};
use projector::sink::{SinkError, StoreUrls, open};
use serde_json::json;

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn opensearch_keeps_the_contract() -> Result<()> {
    contract(urls()).await
}

/// OpenSearch looks at this setting only when it opens an index. One that is changed later says the same, and changes nothing.
#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn an_index_in_opensearch_is_created_with_refreshes_that_wait_for_no_merge() -> Result<()> {
    let (name, urls) = (run_name(), urls());
    let store = Store::Elasticsearch(ElasticsearchStore::default());
    open(&store, place(&name, 1), &urls)?.prepare().await?;
    let (client, url) = (reqwest::Client::new(), format!("{}/{name}-g1", urls.elasticsearch_url));
    let state = format!("{}/_cluster/state/metadata/{name}-g1", urls.elasticsearch_url);
    let state: serde_json::Value = client.get(state).send().await?.json().await?;
    client.delete(url).send().await?;
    let index = &state["metadata"]["indices"][format!("{name}-g1")];
    ensure!(index["settings"]["index"]["merge_on_flush"]["enabled"] == "false", "{state}");
    // The second version is the engine's own, of `auto_expand_replicas`.
    ensure!(index["settings_version"].as_i64().is_some_and(|version| version <= 2), "{state}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn elasticsearch_7_keeps_the_contract() -> Result<()> {
    let elasticsearch_url = std::env::var("ELASTICSEARCH7_URL").context("ELASTICSEARCH7_URL")?;
    contract(StoreUrls { elasticsearch_url, ..urls() }).await
}

async fn contract(urls: StoreUrls) -> Result<()> {
    let name = run_name();
    let result = {
        let (name, urls) = (name.clone(), urls.clone());
        apart(async move { steps(&name, &urls).await }).await
    };
    let (client, url) = (reqwest::Client::new(), urls.elasticsearch_url);
    for index in [1, 3, 4].map(|number| format!("{name}-g{number}")) {
        client.delete(format!("{url}/{index}")).send().await?;
    }
    let delete = |number| json!({ "delete": { "_id": format!("{name}-g1/events.ördér/{number}") } }).to_string() + "\n";
    let bulk = client.post(format!("{url}/projector-progress/_bulk")).header("content-type", "application/x-ndjson");
    bulk.body(NUMBERS.map(delete).concat()).send().await?;
    result
}

async fn steps(name: &str, urls: &StoreUrls) -> Result<()> {
    let store = Store::Elasticsearch(ElasticsearchStore {
        fields: [("products.name".to_owned(), json!({ "type": "text" }))].into(),
    });
    let sink = open(&store, place(name, 1), urls)?;
    let sink = sink.as_ref();
    documents(sink, Text::Any).await?;
    speed(&urls.elasticsearch_url, sink, loan).await?;

    // The server itself refuses a field that the mapping doesn't know, and a value that isn't of the field's type.
    let unknown = Write {
        key: "u".into(),
        version: 1,
        fields: Some(Object::from([("surprise".into(), Value::from(1))]).into()),
        ..Write::default()
    };
    let wrong = Write {
        key: "w".into(),
        version: 1,
        fields: Some(Object::from([("n".into(), Value::from("seven"))]).into()),
        ..Write::default()
    };
    let outcomes = sink.write(&[unknown, named("beside", 1), wrong]).await?;
    ensure!(matches!(&outcomes[..], [Outcome::Rejected(_), Outcome::Written, Outcome::Rejected(_)]), "{outcomes:?}");
    // A key that would fail the whole request is refused alone, and never found.
    let long = "k".repeat(513);
    let outcomes = sink.write(&[named(&long, 1), named("beside-2", 1)]).await?;
    ensure!(matches!(&outcomes[..], [Outcome::Rejected(_), Outcome::Written]), "{outcomes:?}");
    let found = sink.load(&[long, "beside-2".to_owned(), String::new()]).await?;
    ensure!(matches!(&found[..], [None, Some(_), None]), "{found:?}");
    // A batch that takes more than one request.
    let large: Vec<Write> =
        (0..8).map(|i| put(&format!("cut-{i}"), 1, json!({ "name": "x".repeat(1 << 20) }))).collect();
    written(sink, &large).await?;

    let (client, url) = (reqwest::Client::new(), &urls.elasticsearch_url);
    sink.refresh().await?;
    let body = json!({ "query": { "match": { "products.name": "LAMP" } }, "track_total_hits": true });
    let found: serde_json::Value =
        client.post(format!("{url}/{name}/_search")).json(&body).send().await?.json().await?;
    assert_eq!(found["hits"]["total"]["value"], 5000, "searched by alias and refined mapping");

    // Who searches by the alias sees what can be seen.
    let gone = ["seen-gone", "seen-over"].map(|key| named(key, 1));
    let over = Write { expires: Some(chrono::Utc::now()), ..named("seen-over", 2) };
    written(sink, &gone).await?;
    written(sink, &[Write { key: "seen-gone".into(), version: 2, ..Write::default() }, over]).await?;
    sink.refresh().await?;
    let body = json!({ "query": { "ids": { "values": ["seen-gone", "seen-over", "speed-7"] } } });
    for (place, expected) in [(name.to_owned(), 1), (format!("{name}-g1"), 3)] {
        let found: serde_json::Value =
            client.post(format!("{url}/{place}/_search")).json(&body).send().await?.json().await?;
        assert_eq!(found["hits"]["total"]["value"], expected, "{place}: {found}");
    }

    // Parents and expiry are indexed, and state is not.
    for (field, indexed) in [("_parents", true), ("_expires", true), ("_state", false)] {
        let body = json!({ "query": { "exists": { "field": field } }, "size": 0 });
        let found: serde_json::Value =
            client.post(format!("{url}/{name}-g1/_search")).json(&body).send().await?.json().await?;
        assert_eq!(found["hits"]["total"]["value"].as_i64() > Some(0), indexed, "{field}: {found}");
    }

    let proxy = Proxy::start(url).await?;
    let through = open(&store, place(name, 1), &urls_at(proxy.port))?;
    outages(through.as_ref(), sink, &proxy, false).await?;

    // Progress that an earlier release saved, many times, without a fence.
    let id = format!("{name}-g1%2Fevents.old%2F0");
    let old = json!({ "progress": serde_json::to_string(&Progress { next_offset: 7, ..Progress::default() })? });
    for _ in 0..20 {
        client.put(format!("{url}/projector-progress/_doc/{id}")).json(&old).send().await?.error_for_status()?;
    }
    let partition = Partition { topic: "events.old".into(), number: 0 };
    let loaded = sink.load_progress(std::slice::from_ref(&partition)).await?;
    assert_eq!(loaded[0].as_ref().map(|p| p.next_offset), Some(7));
    let newer = Progress { next_offset: 8, fence: 1, ..Progress::default() };
    sink.save_progress(&[(partition.clone(), newer.clone())]).await?;
    assert_eq!(sink.load_progress(&[partition]).await?, [Some(newer)]);
    client.delete(format!("{url}/projector-progress/_doc/{id}")).send().await?;

    // An index of an earlier release has no fields of these names, until it is prepared.
    let old = json!({ "mappings": { "dynamic": "strict", "_meta": { "generation": format!("{name}-g4") },
        "properties": { "name": { "type": "keyword" }, "_deleted": { "type": "boolean" } } } });
    client.put(format!("{url}/{name}-g4")).json(&old).send().await?.error_for_status()?;
    let upgraded = open(&store, place(name, 4), urls)?;
    upgraded.prepare().await?;
    written(upgraded.as_ref(), &[Write { state: Some("s".into()), parents: vec!["p".into()], ..named("a", 1) }])
        .await?;
    assert_eq!(upgraded.children("p", None, 10).await?, ["a"]);

    names_of_others(name, urls, &store).await?;

    // An index that something else made is not ours, and a lost one isn't made again by a write.
    client.put(format!("{url}/{name}-g3")).send().await?.error_for_status()?;
    fenced(open(&store, place(name, 3), urls)?.prepare().await);
    client.delete(format!("{url}/{name}-g1")).send().await?.error_for_status()?;
    let lost = sink.write(&[named("lost", 1)]).await;
    ensure!(matches!(lost, Err(SinkError::Broken { .. })), "{lost:?}");
    let lost = sink.load(&["lost".to_owned()]).await;
    ensure!(matches!(lost, Err(SinkError::Broken { .. })), "{lost:?}");
    Ok(())
}

/// A name that readers find something else by is not taken, and whoever has it keeps it.
async fn names_of_others(name: &str, urls: &StoreUrls, store: &Store) -> Result<()> {
    let (client, url) = (reqwest::Client::new(), &urls.elasticsearch_url);
    let (alias, other) = (format!("{name}_alias"), format!("{name}_alias-green"));
    let taken = async |what: &str| -> Result<()> {
        let sink = open(store, place(&alias, 1), urls)?;
        for refused in [sink.prepare().await, sink.go_live().await] {
            let said = refused.err().context("it was taken")?.to_string();
            ensure!(said.contains(what) && said.contains("or give the read model another name"), "{said}");
        }
        Ok(())
    };
    let aliased = json!({ "aliases": { &alias: {} } });
    client.put(format!("{url}/{other}")).json(&aliased).send().await?.error_for_status()?;
    taken(&format!("alias `{alias}` is held by index `{other}`")).await?;
    let held: serde_json::Value = client.get(format!("{url}/_alias/{alias}")).send().await?.json().await?;
    ensure!(held.as_object().is_some_and(|held| held.keys().eq([&other])), "{held}");
    // The remedy that the message names.
    let remove = json!({ "actions": [{ "remove": { "index": &other, "alias": &alias } }] });
    client.post(format!("{url}/_aliases")).json(&remove).send().await?.error_for_status()?;
    client.put(format!("{url}/{alias}")).send().await?.error_for_status()?;
    taken(&format!("an index is called `{alias}`")).await?;
    client.delete(format!("{url}/{alias}")).send().await?.error_for_status()?;
    let sink = open(store, place(&alias, 1), urls)?;
    sink.prepare().await?;
    sink.go_live().await?;
    for index in [other, format!("{alias}-g1")] {
        client.delete(format!("{url}/{index}")).send().await?.error_for_status()?;
    }
    Ok(())
}
