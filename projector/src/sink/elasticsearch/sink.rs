//! The sink.

use super::super::{Outcome, Page, Partition, Place, Sink, SinkError, StoreUrls, Stored, Write, reserved_name};
use super::config::{Client, broken, unavailable};
use super::convert::{Source, outcome, stored};
use super::mapping::{hidden, mapping};
use crate::apply::Progress;
use crate::expr::{Kind, json::time_text};
use crate::projection::ElasticsearchStore;
use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use elasticsearch::http::Method;
use serde_json::{Value as Json, json};
use std::time::Duration;

pub(super) const PROGRESS_INDEX: &str = "projector-progress";
/// Batches at once.
const WRITERS: usize = 2;
/// The owner refreshes after it has written; the engine by itself only in case an owner died before.
pub(super) const REFRESH_INTERVAL: &str = "10s";
/// Nobody sees a write before the next refresh, and there are ten of them a second at most.
const PACE: Duration = Duration::from_millis(100);
/// A bulk request's size: enough to be quick, little enough for a small heap.
const BULK_BYTES_MAX: usize = 5 << 20;
const BULK_ITEMS_MAX: usize = 2_000;
const LOAD_MAX: usize = 1_000;
/// What the server gives in one answer to a search.
const PAGE_MAX: usize = 10_000;
/// Where the versions of progress begin: the server counted those of an earlier release, which never came as far.
const FENCES: i64 = 1 << 32;
/// The server's limit for a document's id.
const KEY_BYTES_MAX: usize = 512;
/// Documents are purged in small pieces with a pause behind each, so that nobody waits for it.
const PURGED_AT_ONCE: usize = 500;
const PURGED_MAX: usize = 5_000;
const PURGE_PAUSE: Duration = Duration::from_millis(500);

/// A generation's place in Elasticsearch or OpenSearch.
pub struct ElasticsearchSink {
    pub(super) client: Client,
    pub(super) alias: String,
    pub(super) index: String,
    pub(super) document: Kind,
    mapping: Json,
    tombstones_keep: Option<TimeDelta>,
}

impl ElasticsearchSink {
    /// Opens it. Connects with the first call.
    ///
    /// # Errors
    /// When the address can't be used.
    pub fn open(config: &ElasticsearchStore, place: Place, urls: &StoreUrls) -> Result<Self, SinkError> {
        let index = place.id();
        let mapping = mapping(&place.document, &config.fields, &index);
        Ok(Self {
            client: Client::new(urls)?,
            alias: place.read_model,
            index,
            document: place.document,
            mapping,
            tombstones_keep: urls.tombstones_keep(),
        })
    }

    fn action(&self, write: &Write) -> Result<Vec<u8>, SinkError> {
        let newer = if write.again { "external_gte" } else { "external" };
        let head = json!({"index": {"_id": write.key, "version": write.version, "version_type": newer}});
        let mut action = format!("{head}\n").into_bytes();
        serde_json::to_writer(&mut action, &Source(write)).map_err(|e| broken(e.to_string()))?;
        action.push(b'\n');
        Ok(action)
    }

    /// Sends one bulk request; gives an outcome for each of its items.
    async fn bulk(&self, body: Vec<u8>, items: usize) -> Result<Vec<Outcome>, SinkError> {
        let bytes = body.len();
        let path = format!("/{}/_bulk?require_alias=true", write_alias(&self.index));
        let answer = self.client.call(Method::Post, &path, Some(body)).await?;
        if answer.status == 413 && items == 1 {
            return Ok(vec![Outcome::Rejected(format!("{bytes} bytes are more than the server takes"))]);
        }
        if answer.status >= 300 {
            return Err(answer.refused(&path));
        }
        let items = answer.body["items"].as_array().ok_or_else(|| broken(format!("{path}: no items in the answer")))?;
        items.iter().map(|item| outcome(&item["index"])).collect()
    }

    pub(super) fn progress_id(&self, partition: &Partition) -> String {
        format!("{}/{}/{}", self.index, partition.topic, partition.number)
    }

    async fn create_progress_index(&self) -> Result<(), SinkError> {
        let body = json!({
            // Read by id only, which needs no refresh.
            "settings": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "refresh_interval": "-1"},
            "mappings": {"dynamic": "strict", "properties": {"progress": {"type": "keyword", "index": false, "doc_values": false}}}
        });
        self.create(PROGRESS_INDEX, &body).await
    }

    /// Creates an index unless it is there.
    async fn create(&self, index: &str, body: &Json) -> Result<(), SinkError> {
        let path = format!("/{index}");
        let answer = self.client.call(Method::Put, &path, Some(body.to_string().into_bytes())).await?;
        let there = answer.body["error"]["type"] == "resource_already_exists_exception";
        if answer.status < 300 || there { Ok(()) } else { Err(answer.refused(&path)) }
    }

    /// Creates the index of documents. OpenSearch lets each refresh wait for merges of small segments, which is half of the time it takes, and
    /// seconds where the machine is busy. It looks at the setting once, when it opens the index, so it must be created with it. Elasticsearch
    /// doesn't wait, and doesn't know the setting.
    async fn create_own_index(&self) -> Result<(), SinkError> {
        let mut settings =
            json!({"number_of_shards": 1, "auto_expand_replicas": "0-1", "refresh_interval": REFRESH_INTERVAL});
        let body = |settings: &Json| json!({"settings": settings, "mappings": self.mapping});
        let plain = body(&settings);
        settings["merge_on_flush.enabled"] = json!(false);
        match self.create(&self.index, &body(&settings)).await {
            Err(SinkError::Broken { reason, .. })
                if reason.contains("unknown setting [index.merge_on_flush.enabled]") =>
            {
                self.create(&self.index, &plain).await
            }
            created => created,
        }
    }

    /// Lets an index be written to.
    async fn open_for_writing(&self, index: &str) -> Result<(), SinkError> {
        let actions = json!({"actions": [{"add": {"index": index, "alias": write_alias(index)}}]});
        self.client.expect(Method::Post, "/_aliases", Some(&actions)).await.map(drop)
    }

    /// The answers of a `_mget`, one for each id; an id that can't be one is none of the index's.
    async fn mget(&self, index: &str, ids: &[String]) -> Result<Vec<Json>, SinkError> {
        let is_id = |id: &&String| !id.is_empty() && id.len() <= KEY_BYTES_MAX;
        let asked: Vec<&String> = ids.iter().filter(is_id).collect();
        if asked.is_empty() {
            return Ok(vec![Json::Null; ids.len()]);
        }
        let path = format!("/{index}/_mget");
        let mut found = self.client.expect(Method::Post, &path, Some(&json!({"ids": asked}))).await?;
        let Json::Array(docs) = found["docs"].take() else { return Err(unavailable(format!("{path}: no documents"))) };
        if docs.len() != asked.len() {
            return Err(unavailable(format!("{path}: {} answers to {} ids", docs.len(), asked.len())));
        }
        if let Some(error) = docs.iter().map(|doc| &doc["error"]).find(|error| error.is_object()) {
            // A shard that is about to come back is no reason to stop; a lost index is.
            let lost = error["type"] == "index_not_found_exception";
            let reason = format!("{path}: {error}");
            return Err(if lost {
                broken(format!("{reason}; start again to fill it anew"))
            } else {
                unavailable(reason)
            });
        }
        let mut docs = docs.into_iter();
        Ok(ids.iter().map(|id| if is_id(&id) { docs.next().unwrap_or_default() } else { Json::Null }).collect())
    }
}

#[async_trait]
impl Sink for ElasticsearchSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        self.holders().await?;
        self.create_own_index().await?;
        self.create_progress_index().await?;
        let found = self.client.expect(Method::Get, &format!("/{}/_mapping", self.index), None).await?;
        let owner = found[&self.index]["mappings"]["_meta"]["generation"].as_str().unwrap_or("somebody else");
        if owner == self.index {
            let hidden = json!({"properties": hidden()});
            self.client.expect(Method::Put, &format!("/{}/_mapping", self.index), Some(&hidden)).await?;
            self.open_for_writing(&self.index).await?;
            return self.open_for_writing(PROGRESS_INDEX).await;
        }
        Err(SinkError::Fenced {
            place: format!("index {}", self.index),
            owner: owner.to_owned(),
            generation: self.index.clone(),
        })
    }

    async fn go_live(&self) -> Result<(), SinkError> {
        let holders = self.holders().await?;
        // Who reads by the alias sees neither tombstones nor what is expired.
        let seen = json!({"bool": {"must_not": unseen()}});
        let mut actions = vec![json!({"add": {"index": self.index, "alias": self.alias, "filter": seen}})];
        let former = holders.iter().filter(|index| **index != self.index);
        actions.extend(former.map(|index| json!({"remove": {"index": index, "alias": self.alias}})));
        self.client.expect(Method::Post, "/_aliases", Some(&json!({"actions": actions}))).await.map(drop)
    }

    async fn load(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        let mut documents = Vec::with_capacity(keys.len());
        for keys in keys.chunks(LOAD_MAX) {
            documents.extend(self.mget(&self.index, keys).await?.into_iter().map(|doc| stored(doc, &self.document)));
        }
        Ok(documents)
    }

    async fn write(&self, batch: &[Write]) -> Result<Vec<Outcome>, SinkError> {
        let mut outcomes = vec![Outcome::Stale; batch.len()];
        let (mut body, mut sent) = (Vec::new(), Vec::new());
        for (i, write) in batch.iter().enumerate() {
            let reason = write.fields.as_deref().and_then(reserved_name);
            let too_long = write.key.len() > KEY_BYTES_MAX || write.key.is_empty();
            if let Some(reason) = reason.or(too_long.then(|| format!("a key has 1 to {KEY_BYTES_MAX} bytes"))) {
                outcomes[i] = Outcome::Rejected(reason);
                continue;
            }
            let action = self.action(write)?;
            if !sent.is_empty() && (body.len() + action.len() > BULK_BYTES_MAX || sent.len() == BULK_ITEMS_MAX) {
                self.flush(&mut body, &mut sent, &mut outcomes).await?;
            }
            body.extend(action);
            sent.push(i);
        }
        if !sent.is_empty() {
            self.flush(&mut body, &mut sent, &mut outcomes).await?;
        }
        Ok(outcomes)
    }

    async fn refresh(&self) -> Result<(), SinkError> {
        let path = format!("/{}/_refresh", self.index);
        let answer = self.client.expect(Method::Post, &path, None).await?;
        let whole = answer["_shards"]["failed"] == 0;
        if whole { Ok(()) } else { Err(unavailable(format!("{path}: {}", answer["_shards"]))) }
    }

    fn needs_refresh(&self) -> bool {
        true
    }

    fn pace(&self) -> Duration {
        PACE
    }

    fn writers(&self) -> usize {
        WRITERS
    }

    async fn load_progress(&self, partitions: &[Partition]) -> Result<Vec<Option<Progress>>, SinkError> {
        let ids: Vec<_> = partitions.iter().map(|p| self.progress_id(p)).collect();
        let docs = self.mget(PROGRESS_INDEX, &ids).await?;
        let read = |doc: &Json| match doc["_source"]["progress"].as_str() {
            Some(text) => {
                serde_json::from_str(text).map(Some).map_err(|e| broken(format!("{} isn't progress: {e}", doc["_id"])))
            }
            None => Ok(None),
        };
        docs.iter().map(read).collect()
    }

    async fn save_progress(&self, progress: &[(Partition, Progress)]) -> Result<(), SinkError> {
        if progress.is_empty() {
            return Ok(());
        }
        let mut body = String::new();
        for (partition, progress) in progress {
            let text = serde_json::to_string(progress).map_err(|e| broken(e.to_string()))?;
            body.push_str(&format!(
                "{}\n{}\n",
                json!({"index": {"_id": self.progress_id(partition), "version": FENCES.saturating_add(progress.fence), "version_type": "external_gte"}}),
                json!({"progress": text})
            ));
        }
        let path = format!("/{}/_bulk?require_alias=true", write_alias(PROGRESS_INDEX));
        let answer = self.client.call(Method::Post, &path, Some(body.into_bytes())).await?;
        if answer.status >= 300 {
            return Err(answer.refused(&path));
        }
        let items = answer.body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        for item in items {
            // Stale: a later owner's stays.
            if let Outcome::Rejected(reason) = outcome(&item["index"])? {
                return Err(broken(format!("{path}: progress is refused: {reason}")));
            }
        }
        Ok(())
    }

    async fn children(&self, parent: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, SinkError> {
        self.refresh().await?;
        let path = format!("/{}/_search?allow_partial_search_results=false", self.index);
        let mut keys: Vec<String> = Vec::new();
        loop {
            let size = (limit - keys.len()).min(PAGE_MAX);
            let mut body = json!({"query": {"term": {"_parents": parent}}, "sort": ["_key"], "size": size, "_source": false, "track_total_hits": false});
            if let Some(after) = keys.last().map(String::as_str).or(after) {
                body["search_after"] = json!([after]);
            }
            let found = self.client.expect(Method::Post, &path, Some(&body)).await?;
            if found["timed_out"] != false || found["_shards"]["failed"] != 0 {
                return Err(unavailable(format!("{path}: an incomplete answer")));
            }
            let hits = found["hits"]["hits"].as_array().map(Vec::as_slice).unwrap_or_default();
            keys.extend(hits.iter().filter_map(|hit| hit["_id"].as_str().map(str::to_owned)));
            if hits.len() < size || keys.len() >= limit {
                return Ok(keys);
            }
        }
    }

    async fn replaying(&self, on: bool) -> Result<(), SinkError> {
        self.set_replaying(on).await
    }

    async fn browse(&self, cursor: Option<&str>, limit: usize) -> Result<Page, SinkError> {
        self.page(cursor, limit).await
    }

    async fn remove(&self, partitions: &[Partition]) -> Result<(), SinkError> {
        self.remove_place(partitions).await
    }

    async fn upkeep(&self) -> Result<(), SinkError> {
        let Some(gone) = self.tombstones_keep.and_then(|keep| Utc::now().checked_sub_signed(keep)) else {
            return Ok(());
        };
        let path = format!("/{}/_search?allow_partial_search_results=false", self.index);
        let old = json!({"range": {"_expires": {"lt": time_text(&gone)}}});
        let body = json!({"query": old, "sort": ["_expires"], "size": PURGED_MAX, "version": true, "_source": false});
        let found = self.client.expect(Method::Post, &path, Some(&body)).await?;
        let hits = found["hits"]["hits"].as_array().map(Vec::as_slice).unwrap_or_default();
        for hits in hits.chunks(PURGED_AT_ONCE) {
            self.delete(hits).await?;
            tokio::time::sleep(PURGE_PAUSE).await;
        }
        Ok(())
    }

    async fn count(&self) -> Result<u64, SinkError> {
        let body = json!({"query": {"bool": {"must_not": unseen()}}});
        let found = self.client.expect(Method::Post, &format!("/{}/_count", self.index), Some(&body)).await?;
        found["count"].as_u64().ok_or_else(|| broken("_count: no count in the answer".to_owned()))
    }
}

impl ElasticsearchSink {
    /// Deletes what a search found, unless it was written to since. The version stays what it was: the server remembers it for a
    /// minute, and would refuse the document's next write if it had become greater.
    async fn delete(&self, hits: &[Json]) -> Result<(), SinkError> {
        let action = |hit: &Json| {
            let head =
                json!({"delete": {"_id": hit["_id"], "version": hit["_version"], "version_type": "external_gte"}});
            format!("{head}\n")
        };
        let body: String = hits.iter().map(action).collect();
        let path = format!("/{}/_bulk?require_alias=true", write_alias(&self.index));
        let answer = self.client.call(Method::Post, &path, Some(body.into_bytes())).await?;
        if answer.status < 300 { Ok(()) } else { Err(answer.refused(&path)) }
    }

    async fn flush(
        &self,
        body: &mut Vec<u8>,
        sent: &mut Vec<usize>,
        outcomes: &mut [Outcome],
    ) -> Result<(), SinkError> {
        let answers = self.bulk(std::mem::take(body), sent.len()).await?;
        if answers.len() != sent.len() {
            return Err(broken(format!("_bulk: {} answers to {} writes", answers.len(), sent.len())));
        }
        for (i, outcome) in sent.drain(..).zip(answers) {
            outcomes[i] = outcome;
        }
        Ok(())
    }
}

/// What no reader sees.
fn unseen() -> Json {
    json!([{"term": {"_deleted": true}}, {"range": {"_expires": {"lte": "now"}}}])
}

pub(super) fn write_alias(index: &str) -> String {
    format!("{index}-write")
}
