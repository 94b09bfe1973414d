//! The sink.

use super::super::{Outcome, Partition, Place, Sink, SinkError, StoreUrls, Stored, Write, reserved_name};
use super::config::{Names, broken, classify, connect, is_wrong_type};
use super::convert;
use crate::apply::Progress;
use crate::expr::Kind;
use crate::projection::RedisStore;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use redis::aio::ConnectionManager;
use redis::{RedisResult, Value};
use std::collections::{BTreeMap, HashMap, HashSet};

const WRITE: &str = include_str!("write.lua");
const PROGRESS: &str = include_str!("progress.lua");
/// A pipeline's size in documents, so that none takes the server for long.
const PIPELINE_MAX: usize = 1000;

/// A generation's place in Redis.
pub struct RedisSink {
    connection: ConnectionManager,
    names: Names,
    document: Kind,
    script_hash: String,
    tombstones_keep: Option<TimeDelta>,
}

impl RedisSink {
    /// Opens it. Connects with the first call; needs a Tokio runtime.
    ///
    /// # Errors
    /// When the address can't be used.
    pub fn open(config: &RedisStore, place: Place, urls: &StoreUrls) -> Result<Self, SinkError> {
        Ok(Self {
            connection: connect(config, urls)?,
            names: Names::new(config, &place),
            document: place.document,
            tombstones_keep: urls.tombstones_keep(),
            script_hash: redis::Script::new(WRITE).get_hash().to_owned(),
        })
    }

    fn fenced(&self, owner: String) -> SinkError {
        let place = format!("Redis keys `{}*`", self.names.prefix);
        SinkError::Fenced { place, owner, generation: self.names.generation.clone() }
    }

    async fn pipeline(&self, mut pipeline: redis::Pipeline) -> Result<Vec<RedisResult<Value>>, SinkError> {
        let mut connection = self.connection.clone();
        pipeline.ignore_errors();
        pipeline.query_async(&mut connection).await.map_err(|e| classify(&e))
    }

    /// Notes the batch's keys under their parents' names.
    async fn note_children(&self, batch: &[Write]) -> Result<(), SinkError> {
        let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (write, parent) in batch.iter().flat_map(|write| write.parents.iter().map(move |parent| (write, parent))) {
            children.entry(parent).or_default().push(&write.key);
        }
        if children.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::Pipeline::with_capacity(children.len());
        for (parent, keys) in children {
            let command = pipeline.cmd("ZADD").arg(self.names.children(parent));
            for key in keys {
                command.arg(0).arg(key);
            }
        }
        let answers = self.pipeline(pipeline).await?;
        answers.into_iter().find_map(Result::err).map_or(Ok(()), |error| Err(classify(&error)))
    }

    async fn write_some(&self, batch: &[Write]) -> Result<Vec<Outcome>, SinkError> {
        self.note_children(batch).await?;
        let mut pipeline = redis::Pipeline::with_capacity(batch.len() + 1);
        pipeline.cmd("SCRIPT").arg("LOAD").arg(WRITE);
        let mut rejected = HashMap::new();
        for (i, write) in batch.iter().enumerate() {
            if let Some(reason) = write.fields.as_ref().and_then(reserved_name) {
                rejected.insert(i, reason);
                continue;
            }
            let command = pipeline.cmd("EVALSHA").arg(&self.script_hash).arg(2);
            command.arg(format!("{}{}", self.names.prefix, write.key)).arg(&self.names.marker);
            command.arg(&self.names.generation).arg(write.version);
            command.arg(self.ends(write).map(|at| at.timestamp_millis().to_string()).unwrap_or_default());
            for (name, text) in convert::to_hash(write, &self.document) {
                command.arg(name).arg(text);
            }
        }
        let mut answers = self.pipeline(pipeline).await?.into_iter();
        answers.next().transpose().map_err(|e| classify(&e))?;
        let outcome = |(i, _)| match rejected.remove(&i) {
            Some(reason) => Ok(Outcome::Rejected(reason)),
            None => self.outcome(answers.next()),
        };
        batch.iter().enumerate().map(outcome).collect()
    }

    /// When the key may go, which the server sees to.
    fn ends(&self, write: &Write) -> Option<DateTime<Utc>> {
        match (&write.fields, self.tombstones_keep) {
            (Some(_), _) => write.expires,
            (None, None) => None,
            (None, Some(keep)) => write.expires.unwrap_or_else(Utc::now).checked_add_signed(keep),
        }
    }

    fn outcome(&self, answer: Option<RedisResult<Value>>) -> Result<Outcome, SinkError> {
        match answer {
            Some(Ok(Value::Int(1))) => Ok(Outcome::Written),
            Some(Ok(Value::Int(0))) => Ok(Outcome::Stale),
            Some(Ok(Value::BulkString(owner))) if owner.is_empty() => Err(broken(format!(
                "`{}` is gone: the database was emptied while it was written to; start again to fill it anew",
                self.names.marker
            ))),
            Some(Ok(Value::BulkString(owner))) => Err(self.fenced(String::from_utf8_lossy(&owner).into_owned())),
            Some(Ok(other)) => Err(broken(format!("unexpected answer to a write: {other:?}"))),
            Some(Err(error)) if is_wrong_type(&error) => {
                Ok(Outcome::Rejected(format!("its key holds something that isn't a document: {error}")))
            }
            Some(Err(error)) => Err(classify(&error)),
            None => Err(broken("fewer answers than writes".to_owned())),
        }
    }
}

#[async_trait]
impl Sink for RedisSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SETNX").arg(&self.names.marker).arg(&self.names.generation).ignore();
        pipeline.cmd("GET").arg(&self.names.marker);
        let mut connection = self.connection.clone();
        let (owner,): (Option<String>,) = pipeline.query_async(&mut connection).await.map_err(|e| classify(&e))?;
        let owner = owner.unwrap_or_default();
        if owner == self.names.generation { Ok(()) } else { Err(self.fenced(owner)) }
    }

    async fn go_live(&self) -> Result<(), SinkError> {
        // The first generation writes where direct readers look.
        Ok(())
    }

    async fn load(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        let mut documents = Vec::with_capacity(keys.len());
        for keys in keys.chunks(PIPELINE_MAX) {
            let mut pipeline = redis::Pipeline::with_capacity(keys.len());
            for key in keys {
                pipeline.cmd("HGETALL").arg(format!("{}{key}", self.names.prefix));
            }
            let answers = self.pipeline(pipeline).await?;
            for (key, answer) in keys.iter().zip(answers) {
                let foreign = |reason| broken(format!("`{}{key}`: {reason}; remove it", self.names.prefix));
                let hash = match answer {
                    Ok(value) => redis::from_redis_value(value).map_err(|e| foreign(e.to_string()))?,
                    Err(error) if is_wrong_type(&error) => return Err(foreign(error.to_string())),
                    Err(error) => return Err(classify(&error)),
                };
                documents.push(convert::from_hash(hash, &self.document).map_err(foreign)?);
            }
        }
        Ok(documents)
    }

    async fn write(&self, batch: &[Write]) -> Result<Vec<Outcome>, SinkError> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for batch in batch.chunks(PIPELINE_MAX) {
            outcomes.extend(self.write_some(batch).await?);
        }
        Ok(outcomes)
    }

    async fn load_progress(&self, partitions: &[Partition]) -> Result<Vec<Option<Progress>>, SinkError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("HMGET");
        command.arg(&self.names.progress).arg(partitions.iter().map(progress_field).collect::<Vec<_>>());
        let mut connection = self.connection.clone();
        let texts: Vec<Option<String>> = command.query_async(&mut connection).await.map_err(|e| classify(&e))?;
        let read = |text: String| {
            serde_json::from_str(&text).map_err(|e| broken(format!("`{}` isn't progress: {e}", self.names.progress)))
        };
        texts.into_iter().map(|text| text.map(read).transpose()).collect()
    }

    async fn save_progress(&self, progress: &[(Partition, Progress)]) -> Result<(), SinkError> {
        if progress.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("EVAL");
        command.arg(PROGRESS).arg(1).arg(&self.names.progress);
        for (partition, progress) in progress {
            let text = serde_json::to_string(progress).map_err(|e| broken(e.to_string()))?;
            command.arg(progress_field(partition)).arg(progress.fence).arg(text);
        }
        let mut connection = self.connection.clone();
        command.exec_async(&mut connection).await.map_err(|e| classify(&e))
    }

    async fn children(&self, parent: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, SinkError> {
        let mut command = redis::cmd("ZRANGEBYLEX");
        command.arg(self.names.children(parent)).arg(after.map_or("-".to_owned(), |after| format!("({after}")));
        command.arg("+").arg("LIMIT").arg(0).arg(limit);
        let mut connection = self.connection.clone();
        command.query_async(&mut connection).await.map_err(|e| classify(&e))
    }

    /// Walks over the keys: exact while nobody writes.
    async fn count(&self) -> Result<u64, SinkError> {
        let mut connection = self.connection.clone();
        let (mut cursor, mut live) = (0_u64, HashSet::new());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor)
                .arg("MATCH")
                .arg(self.names.pattern())
                .arg("COUNT")
                .arg(PIPELINE_MAX)
                .arg("TYPE")
                .arg("hash");
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await.map_err(|e| classify(&e))?;
            if !keys.is_empty() {
                let mut pipeline = redis::Pipeline::with_capacity(keys.len());
                for key in &keys {
                    pipeline.cmd("HEXISTS").arg(key).arg(convert::DELETED);
                }
                let deleted: Vec<bool> = pipeline.query_async(&mut connection).await.map_err(|e| classify(&e))?;
                // A scan may give a key twice.
                live.extend(keys.into_iter().zip(deleted).filter(|(_, deleted)| !deleted).map(|(key, _)| key));
            }
            cursor = next;
            if cursor == 0 {
                return Ok(live.len() as u64);
            }
        }
    }
}

fn progress_field(partition: &Partition) -> String {
    format!("{}/{}", partition.topic, partition.number)
}
