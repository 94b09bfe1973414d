//! Elasticsearch.

use super::{Outcome, Partition, Place, Sink, SinkError, StoreUrls, Stored, Write};
use crate::apply::Progress;
use crate::projection::ElasticsearchStore;
use async_trait::async_trait;

/// A generation's place in Elasticsearch.
pub struct ElasticsearchSink {}

impl ElasticsearchSink {
    /// Opens it.
    ///
    /// # Errors
    /// When the address can't be used.
    pub fn open(_config: &ElasticsearchStore, _place: Place, _urls: &StoreUrls) -> Result<Self, SinkError> {
        Ok(Self {})
    }
}

#[async_trait]
impl Sink for ElasticsearchSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        Ok(())
    }
    async fn go_live(&self) -> Result<(), SinkError> {
        Ok(())
    }
    async fn load(&self, _keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        Ok(vec![])
    }
    async fn write(&self, _batch: &[Write]) -> Result<Vec<Outcome>, SinkError> {
        Ok(vec![])
    }
    async fn load_progress(&self, _partitions: &[Partition]) -> Result<Vec<Option<Progress>>, SinkError> {
        Ok(vec![])
    }
    async fn save_progress(&self, _progress: &[(Partition, Progress)]) -> Result<(), SinkError> {
        Ok(())
    }
    async fn count(&self) -> Result<u64, SinkError> {
        Ok(0)
    }
}
