//! Searches in Elasticsearch or OpenSearch, over the few calls that both have alike.

use super::super::refresh::Refresher;
use super::{ReadError, call};
use crate::control::Generation;
use crate::expr::{Kind, Value, json};
use crate::sink::StoreUrls;
use crate::sink::access::Access;
use serde::Deserialize;
use serde_json::Value as Json;

#[derive(Clone)]
pub(crate) struct SearchReader {
    client: reqwest::Client,
    access: Access,
    search_url: String,
    refresher: Refresher,
    document: Kind,
}

#[derive(Deserialize)]
struct SearchAnswer {
    #[serde(default)]
    took: i64,
    timed_out: bool,
    _shards: Shards,
    hits: Hits,
    #[serde(default)]
    aggregations: Json,
}

#[derive(Deserialize)]
struct Shards {
    failed: u32,
}

#[derive(Deserialize)]
struct Hits {
    /// Not there where hits aren't counted.
    #[serde(default)]
    total: Total,
    hits: Vec<Hit>,
}

#[derive(Default, Deserialize)]
struct Total {
    value: i64,
}

#[derive(Deserialize)]
struct Hit {
    _source: serde_json::Map<String, Json>,
    #[serde(default)]
    highlight: Option<Json>,
    #[serde(default)]
    sort: Option<Vec<Json>>,
}

/// What a search found.
#[derive(Clone, Debug)]
pub(crate) struct FoundHits {
    pub(crate) hits: Vec<Value>,
    /// Beyond this page too; 0 where nobody asks for it.
    pub(crate) total: i64,
    /// The search's `aggs`, as the server gives them.
    pub(crate) facets: Json,
    pub(crate) took_ms: i64,
    /// The sort values of the last hit.
    pub(crate) last: Option<Vec<Json>>,
}

impl SearchReader {
    pub(super) fn open(
        generation: &Generation,
        document: &Kind,
        urls: &StoreUrls,
        client: &reqwest::Client,
    ) -> Result<Self, ReadError> {
        let access = urls.elasticsearch().map_err(ReadError::Unavailable)?;
        let index_url = format!("{}/{}", access.base(), generation.id());
        // Half an answer would look like a whole one.
        let search_url = format!("{index_url}/_search?allow_partial_search_results=false");
        let refresher = Refresher::new({
            let (client, access, url) = (client.clone(), access.clone(), format!("{index_url}/_refresh"));
            move || refresh(access.authorized(client.post(&url)))
        });
        Ok(Self { client: client.clone(), access, search_url, refresher, document: document.clone() })
    }

    /// Makes all that was written before this call visible to searches that begin after it.
    pub(crate) async fn refresh(&self) -> Result<(), ReadError> {
        self.refresher.refresh().await
    }

    /// What a body finds.
    pub(crate) async fn search(&self, body: &Json) -> Result<FoundHits, ReadError> {
        let answer: SearchAnswer = call(self.access.authorized(self.client.post(&self.search_url)).json(body)).await?;
        if answer.timed_out || answer._shards.failed > 0 {
            return Err(ReadError::Unavailable(format!(
                "an incomplete answer: {} shards failed",
                answer._shards.failed
            )));
        }
        let last = answer.hits.hits.last().and_then(|hit| hit.sort.clone());
        let hit = |hit: Hit| {
            let visible = hit._source.into_iter().filter(|(name, _)| !name.starts_with('_')).collect();
            let mut document = json::object_from_json(visible, &self.document);
            if let Some(highlight) = hit.highlight {
                document.insert("_highlight".into(), json::from_json(highlight, &Kind::any()));
            }
            Value::Object(document)
        };
        Ok(FoundHits {
            hits: answer.hits.hits.into_iter().map(hit).collect(),
            total: answer.hits.total.value,
            facets: answer.aggregations,
            took_ms: answer.took,
            last,
        })
    }
}

async fn refresh(request: reqwest::RequestBuilder) -> Result<(), ReadError> {
    #[derive(Deserialize)]
    struct Answer {
        _shards: Shards,
    }
    let answer: Answer = call(request).await?;
    // A copy that failed to refresh would answer with less.
    if answer._shards.failed > 0 {
        return Err(ReadError::Unavailable(format!("{} shards failed to refresh", answer._shards.failed)));
    }
    Ok(())
}

#[cfg(test)]
#[path = "elasticsearch_tests.rs"]
mod tests;
