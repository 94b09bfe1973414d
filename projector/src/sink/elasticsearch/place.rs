//! The place as a whole: flooded, browsed, removed.

use super::super::{Page, Partition, SinkError};
use super::ElasticsearchSink;
use super::config::broken;
use super::convert::stored;
use super::sink::{PROGRESS_INDEX, write_alias};
use elasticsearch::http::Method;
use serde_json::{Value as Json, json};

impl ElasticsearchSink {
    /// The indexes that direct readers reach by the read model's name: generations of it.
    ///
    /// # Errors
    /// Something else goes by that name. It isn't ours to take away.
    pub(super) async fn holders(&self) -> Result<Vec<String>, SinkError> {
        let path = format!("/{}/_alias", self.alias);
        // Of an index that has the name itself the server tells alike.
        let answer = self.client.call(Method::Get, &path, None).await?;
        if answer.status == 404 {
            return Ok(Vec::new());
        }
        if answer.status >= 300 {
            return Err(answer.refused(&path));
        }
        let found = answer.body.as_object().into_iter().flatten();
        let holders: Vec<String> = found.map(|(index, _)| index.clone()).collect();
        match holders.iter().find(|index| !self.is_generation(index)) {
            None => Ok(holders),
            Some(other) => Err(broken(self.taken_by(other))),
        }
    }

    fn is_generation(&self, index: &str) -> bool {
        let number = index.strip_prefix(&self.alias).and_then(|rest| rest.strip_prefix("-g"));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    }

    fn taken_by(&self, other: &str) -> String {
        let name = &self.alias;
        if other == name {
            return format!(
                "an index is called `{name}`, and the read model's alias must be: move what is in it to another index (POST /_reindex) and \
                 delete it (DELETE /{name}), or give the read model another name"
            );
        }
        format!(
            "alias `{name}` is held by index `{other}`, which is no generation of this read model: take it away (POST /_aliases \
             {{\"actions\": [{{\"remove\": {{\"index\": \"{other}\", \"alias\": \"{name}\"}}}}]}}), or give the read model another name"
        )
    }

    pub(super) async fn set_replaying(&self, on: bool) -> Result<(), SinkError> {
        let settings = if on {
            json!({"index": {"refresh_interval": "-1", "auto_expand_replicas": false, "number_of_replicas": 0}})
        } else {
            json!({"index": {"refresh_interval": super::sink::REFRESH_INTERVAL, "auto_expand_replicas": "0-1"}})
        };
        self.client.expect(Method::Put, &format!("/{}/_settings", self.index), Some(&settings)).await.map(drop)
    }

    /// By a scroll, whose id is the cursor.
    pub(super) async fn page(&self, cursor: Option<&str>, limit: usize) -> Result<Page, SinkError> {
        let mut found = match cursor {
            Some(scroll) => {
                let body = json!({"scroll": "1m", "scroll_id": scroll});
                self.client.expect(Method::Post, "/_search/scroll", Some(&body)).await?
            }
            None => {
                let hidden = json!([{"term": {"_deleted": true}}, {"range": {"_expires": {"lte": "now"}}}]);
                let body =
                    json!({"size": limit, "sort": ["_doc"], "version": true, "query": {"bool": {"must_not": hidden}}});
                let path = format!("/{}/_search?scroll=1m&allow_partial_search_results=false", self.index);
                self.client.expect(Method::Post, &path, Some(&body)).await?
            }
        };
        let scroll = found["_scroll_id"].as_str().map(str::to_owned);
        let Json::Array(hits) = found["hits"]["hits"].take() else {
            return Err(broken("a page without hits".to_owned()));
        };
        if hits.is_empty() {
            if let Some(scroll) = scroll {
                // It would end by itself after a minute.
                let body = json!({"scroll_id": [scroll]});
                _ = self.client.expect(Method::Delete, "/_search/scroll", Some(&body)).await;
            }
            return Ok(Page::default());
        }
        let document = |hit: Json| {
            let key = hit["_id"].as_str()?.to_owned();
            Some((key, stored(hit, &self.document)?))
        };
        Ok(Page { documents: hits.into_iter().filter_map(document).collect(), next: scroll })
    }

    pub(super) async fn remove_place(&self, partitions: &[Partition]) -> Result<(), SinkError> {
        let path = format!("/{}", self.index);
        let answer = self.client.call(Method::Delete, &path, None).await?;
        if answer.status >= 300 && answer.status != 404 {
            return Err(answer.refused(&path));
        }
        if partitions.is_empty() {
            return Ok(());
        }
        let mut body = String::new();
        for partition in partitions {
            body.push_str(&format!("{}\n", json!({"delete": {"_id": self.progress_id(partition)}})));
        }
        let path = format!("/{}/_bulk?require_alias=true", write_alias(PROGRESS_INDEX));
        let answer = self.client.call(Method::Post, &path, Some(body.into_bytes())).await?;
        if answer.status < 300 { Ok(()) } else { Err(answer.refused(&path)) }
    }
}
