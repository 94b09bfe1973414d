//! The search engine: bulk requests made ready, two at a time.

use super::{Fed, Stores, Whose};
use crate::oracle::Document;
use crate::peer;
use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::Method;
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::time::Instant;

/// Of the limit's documents.
const LIMIT: &str = "limit-orders";
/// A request's size, as the engine's makers advise.
const BULK_BYTES: usize = 5 << 20;
/// At a time: one a core.
const REQUESTS: usize = 2;

async fn call(stores: &Stores, method: Method, path: &str, body: Option<Json>) -> Result<Json> {
    let url = format!("{}{path}", stores.urls.elasticsearch_url);
    let mut request = stores.http.request(method, url);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await?;
    let (status, body) = (answer.status(), answer.json::<Json>().await?);
    if !status.is_success() {
        bail!("{path}: {status}: {body}");
    }
    Ok(body)
}

pub(super) async fn clear(stores: &Stores) -> Result<()> {
    let all = call(stores, Method::GET, "/_cat/indices?format=json&h=index", None).await?;
    for index in all.as_array().into_iter().flatten().filter_map(|index| index["index"].as_str()) {
        if ["order_", "limit-", "peer-", "projector-"].iter().any(|prefix| index.starts_with(prefix)) {
            call(stores, Method::DELETE, &format!("/{index}"), None).await?;
        }
    }
    Ok(())
}

/// An index with the fields that the projection `order_search` comes to.
pub(super) async fn create(stores: &Stores, index: &str) -> Result<()> {
    let (keyword, long, date) =
        (json!({"type": "keyword", "ignore_above": 8191}), json!({"type": "long"}), json!({"type": "date"}));
    let name = json!({"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}});
    let products = json!({"type": "text", "fields": {"typed": {"type": "search_as_you_type", "max_shingle_size": 2}}});
    let body = json!({
        "settings": {"number_of_shards": 1, "number_of_replicas": 0},
        "mappings": {"dynamic": "strict", "properties": {
            "order_id": keyword, "customer_id": keyword, "customer_name": name, "status": keyword, "currency": keyword,
            "total_amount_cents": long, "products": products, "item_ids": keyword, "placed_at": date, "seq": long,
        }}
    });
    call(stores, Method::PUT, &format!("/{index}"), Some(body)).await?;
    Ok(())
}

pub(super) async fn feed(stores: &Stores, documents: impl Iterator<Item = (String, Document)>) -> Result<Fed> {
    create(stores, LIMIT).await?;
    call(stores, Method::PUT, &format!("/{LIMIT}/_settings"), Some(json!({"index": {"refresh_interval": "-1"}})))
        .await?;
    let (mut bodies, mut body, mut count) = (Vec::new(), String::new(), 0);
    for (key, document) in documents {
        body.push_str(&format!("{}\n{}\n", json!({"index": {"_id": key}}), Json::Object(document)));
        count += 1;
        if body.len() > BULK_BYTES {
            bodies.push(std::mem::take(&mut body));
        }
    }
    bodies.push(body);
    let url = format!("{}/{LIMIT}/_bulk?filter_path=errors", stores.urls.elasticsearch_url);
    let began = Instant::now();
    futures::stream::iter(bodies)
        .map(|body| {
            let request = stores.http.post(&url).header("content-type", "application/x-ndjson").body(body);
            async move {
                let answer: Json = request.send().await?.error_for_status()?.json().await?;
                ensure!(answer["errors"] == false, "the engine refused a ready-made document");
                anyhow::Ok(())
            }
        })
        .buffer_unordered(REQUESTS)
        .try_collect::<()>()
        .await?;
    call(stores, Method::POST, &format!("/{LIMIT}/_refresh"), None).await?;
    let took = began.elapsed();
    call(stores, Method::DELETE, &format!("/{LIMIT}"), None).await?;
    Ok(Fed::new(count, took, "_bulk of 5 MB, two at a time, no versions, refreshed once"))
}

pub(super) async fn found(stores: &Stores, whose: Whose) -> Result<HashMap<String, Document>> {
    let index = match whose {
        Whose::Ours(_) => "order_search",
        Whose::Peers => peer::INDEX,
    };
    call(stores, Method::POST, &format!("/{index}/_refresh"), None).await?;
    let first = json!({"size": 5_000, "sort": ["_doc"]});
    let mut page = call(stores, Method::POST, &format!("/{index}/_search?scroll=1m"), Some(first)).await?;
    let mut found = HashMap::new();
    loop {
        let scroll = page["_scroll_id"].as_str().context("no scroll")?.to_owned();
        let hits = page["hits"]["hits"].as_array_mut().context("no hits")?;
        if hits.is_empty() {
            call(stores, Method::DELETE, "/_search/scroll", Some(json!({"scroll_id": [scroll]}))).await?;
            return Ok(found);
        }
        for hit in hits {
            found.extend([document(hit)?]);
        }
        page =
            call(stores, Method::POST, "/_search/scroll", Some(json!({"scroll": "1m", "scroll_id": scroll}))).await?;
    }
}

pub(super) async fn some(stores: &Stores, keys: &[String]) -> Result<HashMap<String, Document>> {
    let mut found = HashMap::new();
    for keys in keys.chunks(2_000) {
        let mut page = call(stores, Method::POST, "/order_search/_mget", Some(json!({"ids": keys}))).await?;
        let all = page["docs"].as_array_mut().context("no docs")?.iter_mut();
        for hit in all.filter(|hit| hit["found"] == true) {
            found.extend([document(hit)?]);
        }
    }
    Ok(found)
}

/// Its key and its visible fields.
fn document(hit: &mut Json) -> Result<(String, Document)> {
    let key = hit["_id"].as_str().context("no id")?.to_owned();
    let Json::Object(fields) = hit["_source"].take() else { bail!("{key} has no fields") };
    let visible = fields.into_iter().filter(|(name, _)| !name.starts_with('_') && name != "seq");
    Ok((key, visible.collect()))
}
