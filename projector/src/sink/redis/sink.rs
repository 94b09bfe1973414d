//! The sink.

use super::super::{Outcome, Page, Partition, Place, Sink, SinkError, StoreUrls, Stored, Write, reserved_name};
use super::config::{Names, broken, classify, is_wrong_type};
use super::convert;
use super::pair::{Owner, Pair};
use crate::apply::Progress;
use crate::projection::RedisStore;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use redis::{RedisResult, Value};
use std::collections::{BTreeMap, HashMap, HashSet};

const WRITE: &str = include_str!("write.lua");
const PATCH: &str = include_str!("patch.lua");
/// What refuses a write, and what does when a document is made anew.
const OLDER: &str = "stored >= new";
const OLDER_OR_SAME: &str = "stored > new";
const PROGRESS: &str = include_str!("progress.lua");
const CHILDREN: &str = include_str!("children.lua");
/// Batches at once.
const WRITERS: usize = 4;
/// A pipeline's size in documents, so that none takes the server for long.
const PIPELINE_MAX: usize = 250;
/// Pipelines under way at once: the next one is made, and the last one's answers are read, while the server works.
const PIPELINES: usize = 3;
/// Where its generation lives is looked for so often: once more than a swap can mislead.
const LOOKS_MAX: usize = 3;

/// A generation's place in Redis.
pub struct RedisSink {
    pair: Pair,
    names: Names,
    fields: convert::Fields,
    write_hash: String,
    patch_hash: String,
    tombstones_keep: Option<TimeDelta>,
}

/// What came of a call that asks for the marker.
enum Answer<T> {
    Done(T),
    /// The database is somebody else's (`""`: nobody's), so nothing was done, or not all.
    Elsewhere(String),
}

impl RedisSink {
    /// Opens it. Connects with the first call; needs a Tokio runtime.
    ///
    /// # Errors
    /// When the address can't be used.
    pub fn open(config: &RedisStore, place: Place, urls: &StoreUrls) -> Result<Self, SinkError> {
        let names = Names::new(config, &place);
        Ok(Self {
            pair: Pair::open(config, urls, &names)?,
            names,
            fields: convert::Fields::new(&place.document),
            tombstones_keep: urls.tombstones_keep(),
            write_hash: redis::Script::new(WRITE).get_hash().to_owned(),
            patch_hash: redis::Script::new(PATCH).get_hash().to_owned(),
        })
    }

    fn fenced(&self, owner: String) -> SinkError {
        let place = format!("Redis keys `{}*` of database {}", self.names.prefix, self.pair.database());
        SinkError::Fenced { place, owner, generation: self.names.generation.clone() }
    }

    /// Why nothing can be done here.
    fn lost(&self, owner: String) -> SinkError {
        if !owner.is_empty() {
            return self.fenced(owner);
        }
        broken(format!(
            "`{}` is gone: the database was emptied while it was written to; start again to fill it anew",
            self.names.marker
        ))
    }

    async fn pipeline(&self, mut pipeline: redis::Pipeline) -> Result<Vec<RedisResult<Value>>, SinkError> {
        let mut connection = self.pair.connection();
        pipeline.ignore_errors();
        pipeline.query_async(&mut connection).await.map_err(|e| classify(&e))
    }

    /// Notes the batch's keys under their parents' names.
    async fn note_children(&self, batch: &[Write]) -> Result<Answer<()>, SinkError> {
        let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (write, parent) in batch.iter().flat_map(|write| write.parents.iter().map(move |parent| (write, parent))) {
            children.entry(parent).or_default().push(&write.key);
        }
        if children.is_empty() {
            return Ok(Answer::Done(()));
        }
        let mut pipeline = redis::Pipeline::with_capacity(children.len());
        for (parent, keys) in children {
            let command = pipeline.cmd("EVAL").arg(CHILDREN).arg(2);
            command.arg(self.names.children(parent)).arg(&self.names.marker).arg(&self.names.generation).arg(keys);
        }
        for answer in self.pipeline(pipeline).await? {
            match answer.map_err(|e| classify(&e))? {
                Value::Int(_) => {}
                other => return Ok(Answer::Elsewhere(owner(&other)?)),
            }
        }
        Ok(Answer::Done(()))
    }

    /// An outcome each; none where a change found an older document than it is for.
    async fn try_write(&self, batch: &[Write]) -> Result<Answer<Vec<Option<Outcome>>>, SinkError> {
        if let Answer::Elsewhere(owner) = self.note_children(batch).await? {
            return Ok(Answer::Elsewhere(owner));
        }
        const SCRIPTS: [&str; 2] = [WRITE, PATCH];
        let mut pipeline = redis::Pipeline::with_capacity(batch.len() + SCRIPTS.len());
        for script in SCRIPTS {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script);
        }
        let mut rejected = HashMap::new();
        for (i, write) in batch.iter().enumerate() {
            if let Some(reason) = write.fields.as_deref().and_then(reserved_name) {
                rejected.insert(i, reason);
                continue;
            }
            let key = format!("{}{}", self.names.prefix, write.key);
            if let Some(patch) = convert::to_patch(write, &self.fields) {
                let command = pipeline.cmd("EVALSHA").arg(&self.patch_hash).arg(2).arg(key).arg(&self.names.marker);
                command.arg(&self.names.generation).arg(patch.since).arg(patch.gone.len());
                command.arg(convert::SEQ).arg(write.version);
                for (name, text) in patch.set {
                    command.arg(name).arg(&*text);
                }
                command.arg(patch.gone);
                continue;
            }
            let command = if write.again {
                pipeline.cmd("EVAL").arg(WRITE.replace(OLDER, OLDER_OR_SAME)).arg(2)
            } else {
                pipeline.cmd("EVALSHA").arg(&self.write_hash).arg(2)
            };
            command.arg(key).arg(&self.names.marker);
            command.arg(&self.names.generation);
            command.arg(self.ends(write).map(|at| at.timestamp_millis().to_string()).unwrap_or_default());
            command.arg(convert::SEQ).arg(write.version);
            for (name, text) in convert::to_hash(write, &self.fields) {
                command.arg(name).arg(&*text);
            }
        }
        let mut answers = self.pipeline(pipeline).await?.into_iter();
        for loaded in answers.by_ref().take(SCRIPTS.len()) {
            loaded.map_err(|e| classify(&e))?;
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        for i in 0..batch.len() {
            let outcome = match rejected.remove(&i) {
                Some(reason) => Answer::Done(Some(Outcome::Rejected(reason))),
                None => outcome(answers.next())?,
            };
            match outcome {
                Answer::Done(outcome) => outcomes.push(outcome),
                Answer::Elsewhere(owner) => return Ok(Answer::Elsewhere(owner)),
            }
        }
        Ok(Answer::Done(outcomes))
    }

    /// When the key may go, which the server sees to. What has state is needed for as long as the read model is.
    fn ends(&self, write: &Write) -> Option<DateTime<Utc>> {
        if !write.is_bare() {
            return write.expires.filter(|_| write.fields.is_some());
        }
        let from = write.expires.unwrap_or_else(Utc::now);
        self.tombstones_keep.and_then(|keep| from.checked_add_signed(keep))
    }

    async fn write_some(&self, batch: &[Write]) -> Result<Vec<Outcome>, SinkError> {
        let mut outcomes = self.write_or_change(batch).await?;
        let forgotten: Vec<usize> = (0..batch.len()).filter(|i| outcomes[*i].is_none()).collect();
        if !forgotten.is_empty() {
            tracing::warn!(
                documents = forgotten.len(),
                place = self.names.prefix,
                "the store had forgotten what it acknowledged (a fail-over, a restore, an eviction?): these are whole again, others may \
                 not be; see docs/operations.md, \"A store is gone\""
            );
            let whole: Vec<Write> = forgotten.iter().map(|i| Write { changed: None, ..batch[*i].clone() }).collect();
            for (i, outcome) in forgotten.into_iter().zip(self.write_or_change(&whole).await?) {
                outcomes[i] = outcome;
            }
        }
        let answered: Option<Vec<Outcome>> = outcomes.into_iter().collect();
        answered.ok_or_else(|| broken("a script asks for all of a document that it was given".to_owned()))
    }

    async fn write_or_change(&self, batch: &[Write]) -> Result<Vec<Option<Outcome>>, SinkError> {
        let mut owner = String::new();
        for _ in 0..LOOKS_MAX {
            match self.try_write(batch).await? {
                Answer::Done(outcomes) => return Ok(outcomes),
                Answer::Elsewhere(found) => owner = found,
            }
            self.pair.look_elsewhere().await?;
        }
        Err(self.lost(owner))
    }

    /// The hashes of keys, as long as the database is ours before and after: a swap moves the ground under open connections.
    async fn load_some(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        for look in 1..=LOOKS_MAX {
            let mut pipeline = redis::Pipeline::with_capacity(keys.len() + 2);
            pipeline.cmd("GET").arg(&self.names.marker);
            for key in keys {
                pipeline.cmd("HGETALL").arg(format!("{}{key}", self.names.prefix));
            }
            pipeline.cmd("GET").arg(&self.names.marker);
            let mut answers = self.pipeline(pipeline).await?;
            let after = answers.pop();
            let mut answers = answers.into_iter();
            let mut ours = true;
            for marker in [answers.next(), after] {
                let marker: Option<String> = marker
                    .ok_or_else(|| broken("fewer answers than reads".to_owned()))?
                    .and_then(|value| Ok(redis::from_redis_value(value)?))
                    .map_err(|e| classify(&e))?;
                ours &= marker.as_deref() == Some(self.names.generation.as_str());
            }
            // Where no database is ours, what is read here can't be written anywhere.
            if ours || look == LOOKS_MAX {
                return keys.iter().zip(answers).map(|(key, answer)| self.stored(key, answer)).collect();
            }
            self.pair.look_elsewhere().await?;
        }
        Ok(Vec::new())
    }

    fn stored(&self, key: &str, answer: RedisResult<Value>) -> Result<Option<Stored>, SinkError> {
        let foreign = |reason| broken(format!("`{}{key}`: {reason}; remove it", self.names.prefix));
        let hash = match answer {
            Ok(value) => redis::from_redis_value(value).map_err(|e| foreign(e.to_string()))?,
            Err(error) if is_wrong_type(&error) => return Err(foreign(error.to_string())),
            Err(error) => return Err(classify(&error)),
        };
        convert::from_hash(hash, &self.fields).map_err(foreign)
    }

    /// A page of the keys with our prefix; a scan may give a key twice.
    async fn scan(&self, cursor: u64, count: usize) -> Result<(u64, Vec<String>), SinkError> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(self.names.pattern()).arg("COUNT").arg(count).arg("TYPE").arg("hash");
        scan.query_async(&mut self.pair.connection()).await.map_err(|e| classify(&e))
    }
}

/// What a script answered; none where it wants all of the document.
fn outcome(answer: Option<RedisResult<Value>>) -> Result<Answer<Option<Outcome>>, SinkError> {
    match answer {
        Some(Ok(Value::Int(2))) => Ok(Answer::Done(None)),
        Some(Ok(Value::Int(1))) => Ok(Answer::Done(Some(Outcome::Written))),
        Some(Ok(Value::Int(0))) => Ok(Answer::Done(Some(Outcome::Stale))),
        Some(Ok(other)) => Ok(Answer::Elsewhere(owner(&other)?)),
        Some(Err(error)) if is_wrong_type(&error) => {
            let reason = format!("its key holds something that isn't a document: {error}");
            Ok(Answer::Done(Some(Outcome::Rejected(reason))))
        }
        Some(Err(error)) => Err(classify(&error)),
        None => Err(broken("fewer answers than writes".to_owned())),
    }
}

/// Who a script says owns the database.
fn owner(answer: &Value) -> Result<String, SinkError> {
    match answer {
        Value::BulkString(owner) => Ok(String::from_utf8_lossy(owner).into_owned()),
        other => Err(broken(format!("unexpected answer of a script: {other:?}"))),
    }
}

#[async_trait]
impl Sink for RedisSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        match self.pair.take_first().await? {
            Owner::Us => Ok(()),
            Owner::Other(owner) => Err(self.fenced(owner)),
        }
    }

    async fn prepare_aside(&self) -> Result<(), SinkError> {
        match self.pair.take_second(&self.names).await? {
            Owner::Us => Ok(()),
            Owner::Other(owner) => Err(self.fenced(owner)),
        }
    }

    async fn go_live(&self) -> Result<(), SinkError> {
        match self.pair.swap().await? {
            Owner::Us => Ok(()),
            Owner::Other(owner) => Err(self.lost(owner)),
        }
    }

    async fn load(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        let some: Vec<_> = keys.chunks(PIPELINE_MAX).map(|keys| self.load_some(keys)).collect();
        stream::iter(some).buffered(PIPELINES).try_concat().await
    }

    async fn write(&self, batch: &[Write]) -> Result<Vec<Outcome>, SinkError> {
        let some: Vec<_> = batch.chunks(PIPELINE_MAX).map(|batch| self.write_some(batch)).collect();
        stream::iter(some).buffered(PIPELINES).try_concat().await
    }

    fn writers(&self) -> usize {
        WRITERS
    }

    async fn load_progress(&self, partitions: &[Partition]) -> Result<Vec<Option<Progress>>, SinkError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        self.pair.find().await?;
        let mut command = redis::cmd("HMGET");
        command.arg(&self.names.progress).arg(partitions.iter().map(progress_field).collect::<Vec<_>>());
        let mut connection = self.pair.connection();
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
        command.arg(PROGRESS).arg(2).arg(&self.names.progress).arg(&self.names.marker).arg(&self.names.generation);
        for (partition, progress) in progress {
            let text = serde_json::to_string(progress).map_err(|e| broken(e.to_string()))?;
            command.arg(progress_field(partition)).arg(progress.fence).arg(text);
        }
        let mut found = String::new();
        for _ in 0..LOOKS_MAX {
            let mut connection = self.pair.connection();
            match command.query_async(&mut connection).await.map_err(|e| classify(&e))? {
                Value::Int(_) => return Ok(()),
                other => found = owner(&other)?,
            }
            self.pair.look_elsewhere().await?;
        }
        Err(self.lost(found))
    }

    async fn children(&self, parent: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, SinkError> {
        self.pair.find().await?;
        let mut command = redis::cmd("ZRANGEBYLEX");
        command.arg(self.names.children(parent)).arg(after.map_or("-".to_owned(), |after| format!("({after}")));
        command.arg("+").arg("LIMIT").arg(0).arg(limit);
        let mut connection = self.pair.connection();
        command.query_async(&mut connection).await.map_err(|e| classify(&e))
    }

    async fn browse(&self, cursor: Option<&str>, limit: usize) -> Result<Page, SinkError> {
        let cursor = match cursor {
            Some(cursor) => cursor.parse().map_err(|_| broken(format!("`{cursor}` is no cursor")))?,
            None => {
                self.pair.find().await?;
                0
            }
        };
        let (next, keys) = self.scan(cursor, limit).await?;
        let strip = |key: String| key.strip_prefix(&self.names.prefix).map(str::to_owned);
        let keys: Vec<String> = keys.into_iter().filter_map(strip).collect();
        let documents = self.load(&keys).await?;
        let visible = |(key, stored): (String, Option<Stored>)| Some((key, stored.filter(|s| s.fields.is_some())?));
        let documents = keys.into_iter().zip(documents).filter_map(visible).collect();
        Ok(Page { documents, next: (next != 0).then(|| next.to_string()) })
    }

    async fn remove(&self, _: &[Partition]) -> Result<(), SinkError> {
        self.pair.remove(&self.names).await
    }

    /// Walks over the keys: exact while nobody writes.
    async fn count(&self) -> Result<u64, SinkError> {
        self.pair.find().await?;
        let (mut cursor, mut live) = (0_u64, HashSet::new());
        loop {
            let (next, keys) = self.scan(cursor, PIPELINE_MAX).await?;
            if !keys.is_empty() {
                let mut pipeline = redis::Pipeline::with_capacity(keys.len());
                for key in &keys {
                    pipeline.cmd("HEXISTS").arg(key).arg(convert::DELETED);
                }
                let mut connection = self.pair.connection();
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
