//! Answering one query: wait for what is required, then read, then shape.

use super::endpoint::{Found, Template};
use super::freshness::{self, Demand, Unmet};
use super::live::{ReadModel, Served};
use super::problem::Problem;
use super::request::{Asked, Freshness};
use super::store::{ReadError, Reader, RedisReader};
use crate::apply::Stored;
use crate::control::ProgressMap;
use serde_json::{Value as Json, json};
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// An answer, with the progress that it covers at least.
pub(crate) struct Answer {
    pub(crate) body: Json,
    pub(crate) position: i64,
}

/// Why there is no answer.
pub(crate) enum Halt {
    /// The caller is told.
    Problem(Problem),
    /// Another generation is live by now: the query begins again with that one, with what is left of its time.
    Superseded,
}

impl From<Problem> for Halt {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Answers a query whose path's parameters are `in_path` and that came at `begin`.
pub(crate) async fn answer(
    served: &Served,
    in_path: &[(String, String)],
    asked: &Asked,
    begin: Instant,
) -> Result<Answer, Halt> {
    let Served { model, endpoint } = served;
    let arguments = endpoint.parameters.read(in_path, &asked.parameters, chrono::Utc::now().date_naive())?;
    endpoint.check(&arguments)?;
    let wait = Wait::new(model, &asked.freshness, begin);
    let (found, progress) = match (&endpoint.template, &model.reader) {
        (Template::Document(key), Reader::Redis(reader)) => wait.document(reader, &key.render(&arguments)).await?,
        (Template::Search(search), Reader::Search(reader)) => {
            let progress = wait.reach().await?;
            let _reading = model.gate.enter().ok_or(Halt::Superseded)?;
            if !wait.demands.is_empty() {
                reader.refresh().await.map_err(|e| failed(model, &e))?;
            }
            let (hits, total) = reader.search(&search.render(&arguments)).await.map_err(|e| failed(model, &e))?;
            (Found::Hits { hits, total }, progress)
        }
        (Template::Sql(sql), Reader::Clickhouse(reader)) => {
            let progress = wait.reach().await?;
            let _reading = model.gate.enter().ok_or(Halt::Superseded)?;
            (Found::Rows(reader.query(sql, &arguments).await.map_err(|e| failed(model, &e))?), progress)
        }
        (Template::Sql(sql), Reader::Postgres(reader)) => {
            let progress = wait.reach().await?;
            let _reading = model.gate.enter().ok_or(Halt::Superseded)?;
            (Found::Rows(reader.query(sql, &arguments).await.map_err(|e| failed(model, &e))?), progress)
        }
        _ => return Err(Problem::internal("the query's template is of another store").into()),
    };
    let body = endpoint.respond(&arguments, found)?;
    Ok(Answer { body, position: freshness::position(&progress) })
}

/// Waits until `model` shows to all readers what the caller knows to be written, and gives the position that it has then.
pub(crate) async fn reached(model: &ReadModel, freshness: &Freshness, begin: Instant) -> Result<i64, Halt> {
    let wait = Wait::new(model, freshness, begin);
    let progress = wait.reach().await?;
    if let (Reader::Search(reader), false) = (&model.reader, wait.demands.is_empty()) {
        let _reading = model.gate.enter().ok_or(Halt::Superseded)?;
        reader.refresh().await.map_err(|e| failed(model, &e))?;
    }
    Ok(freshness::position(&progress))
}

fn failed(model: &ReadModel, error: &ReadError) -> Problem {
    tracing::warn!(read_model = model.name(), %error, "the store gave no answer");
    match error {
        ReadError::Unavailable(_) => Problem::store(model.name()),
        ReadError::Refused(_) => Problem::internal("the store refuses the query as it is declared; the log says why"),
    }
}

/// What one request waits for.
struct Wait<'a> {
    model: &'a ReadModel,
    demands: Vec<Demand>,
    min_seq: Option<i64>,
    begin: Instant,
    until: Instant,
}

impl<'a> Wait<'a> {
    fn new(model: &'a ReadModel, freshness: &Freshness, begin: Instant) -> Self {
        Self {
            model,
            demands: freshness::demands(&freshness.tokens, &model.generation.topics),
            min_seq: freshness.min_seq,
            begin,
            until: freshness::deadline(begin, freshness.wait_ms),
        }
    }

    /// Waits for the tokens, of a query that isn't about one document.
    async fn reach(&self) -> Result<Arc<ProgressMap>, Halt> {
        if self.min_seq.is_some() {
            let detail = "`min_seq` is about one document's own sequence; pass the command's consistency_token to a list or a report";
            return Err(Problem::parameter("min_seq", detail).into());
        }
        self.reach_tokens(&mut self.model.feed.subscribe()).await
    }

    async fn reach_tokens(&self, feed: &mut super::feed::Subscription) -> Result<Arc<ProgressMap>, Halt> {
        let reached = tokio::select! {
            biased;
            reached = freshness::reach(feed, &self.demands, self.until) => reached,
            () = self.model.gate.closed() => return Err(Halt::Superseded),
        };
        reached.map_err(|unmet| {
            Halt::Problem(match unmet {
                Unmet::Behind(progress) => self.behind(&progress, None, feed.readable()),
                Unmet::Parked(required) => Problem::parked(self.model.name(), required),
                Unmet::UnknownEpoch { token, reached } => Problem::unknown_epoch(self.model.name(), &token, &reached),
            })
        })
    }

    /// Reads a document, again whenever something was handled that could have changed it, until it is as new as required.
    async fn document(&self, reader: &RedisReader, key: &str) -> Result<(Found, Arc<ProgressMap>), Halt> {
        let mut feed = self.model.feed.subscribe();
        let mut progress = self.reach_tokens(&mut feed).await?;
        let mut last_look = false;
        let topics = &self.model.generation.topics;
        loop {
            // The progress was looked at before: what it covers is in what is read now.
            let reading = self.model.gate.enter().ok_or(Halt::Superseded)?;
            let stored = reader.read(key).await.map_err(|e| failed(self.model, &e))?;
            let version = stored.as_ref().map_or(0, |s| s.sequence(self.model.kind));
            if self.min_seq.is_none_or(|min| version >= min || freshness::recently_handled(&progress, key, min, topics))
            {
                let Some(Stored { fields: Some(fields), .. }) = stored else {
                    return Err(Problem::not_found(self.model.name(), key).into());
                };
                return Ok((Found::Document(fields), progress));
            }
            drop(reading);
            if last_look {
                return Err(self.behind(&progress, Some(version), feed.readable()).into());
            }
            // A document's key is its aggregate's id, so only what its partition handles can change it.
            let before = freshness::offsets_of(&progress, key, topics);
            while freshness::offsets_of(&progress, key, topics) == before {
                let changed = tokio::select! {
                    changed = timeout_at(self.until, feed.changed()) => changed,
                    () = self.model.gate.closed() => return Err(Halt::Superseded),
                };
                if changed.is_err() {
                    last_look = true;
                    break;
                }
                progress = feed.look();
            }
        }
    }

    fn behind(&self, progress: &ProgressMap, version: Option<i64>, connected: bool) -> Problem {
        let mut required = json!({"streams": self.demands.iter().map(Demand::to_json).collect::<Vec<_>>()});
        let mut reached = json!({"partitions": freshness::reached(&self.demands, progress)});
        if let (Some(min_seq), Some(version)) = (self.min_seq, version) {
            required["min_seq"] = min_seq.into();
            reached["version"] = version.into();
        }
        // What is required was written before the request came, so the read model is behind by the wait at least.
        let waited_ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let lag_ms = self.model.lag_ms().unwrap_or(0).max(waited_ms);
        Problem::behind(self.model.name(), required, reached, lag_ms, connected)
    }
}
