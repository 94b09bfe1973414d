//! Answering one query: from the cache if it holds enough, else wait for what is required, then read, then shape.

use super::cache::Cached;
use super::cursor::List;
use super::endpoint::{Endpoint, Found, Respond, Template};
use super::freshness;
use super::live::{ReadModel, Served};
use super::parameters::Arguments;
use super::problem::Problem;
use super::request::Asked;
use super::service::Service;
use super::store::{FoundHits, Reader};
use super::template::text_of;
use super::wait::{Halt, Reached, Wait, fields_of, read};
use super::write_side::WriteSide;
use crate::control::ProgressMap;
use crate::expr::{Object, Value};
use crate::projection::Cache;
use bytes::Bytes;
use serde_json::{Value as Json, json};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Those who subscribe to the same share each read.
const AMONG_SUBSCRIBERS: Cache = Cache { ttl_s: 1, drop_on_progress: true };

/// An answer, with the progress that it covers at least.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Json,
    pub(crate) text: Bytes,
    /// The document's version where there is one, and a hash of the body: so it differs wherever the body does.
    pub(crate) etag: String,
    pub(crate) progress: Arc<ProgressMap>,
    pub(crate) stale: Option<Stale>,
    pub(crate) next_cursor: Option<String>,
    pub(crate) made: Instant,
    /// Whether all that `progress` covers was visible to the read: of a search only after a refresh.
    pub(crate) is_covering: bool,
    /// [`super::feed::Feed::moved`] before the read.
    pub(crate) moved: u64,
}

/// Why an answer isn't what the read model holds by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// The time limit passed, and the caller preferred this to nothing.
    Behind,
    /// The read model doesn't have the document; this is the write database's.
    Fallback,
}

impl Answer {
    pub(crate) fn position(&self) -> i64 {
        freshness::position(&self.progress)
    }
}

/// A request whose parameters are typed.
pub(crate) struct Request<'a> {
    pub(crate) served: &'a Served,
    pub(crate) arguments: Arguments,
    pub(crate) asked: &'a Asked,
    pub(crate) begin: Instant,
}

impl<'a> Request<'a> {
    /// Types the parameters of a query whose path's are `in_path` and that came at `begin`.
    pub(crate) fn new(
        served: &'a Served,
        in_path: &[(String, String)],
        asked: &'a Asked,
        begin: Instant,
    ) -> Result<Self, Problem> {
        let endpoint = &served.endpoint;
        let arguments = endpoint.parameters.read(in_path, &asked.parameters, endpoint.today())?;
        endpoint.check(&arguments)?;
        Ok(Self { served, arguments, asked, begin })
    }

    /// The answer; a kept one if it holds what is asked for. With it, how long the read model was waited for, if it was asked for
    /// anything.
    pub(crate) async fn answer(&self, service: &Service) -> Result<(Arc<Answer>, Option<Duration>), Halt> {
        let Served { model, endpoint } = self.served;
        let write_side = service.write_side.as_ref();
        let freshness = &self.asked.freshness;
        let mut wait = Wait::new(model, endpoint, &self.arguments, freshness, write_side, self.begin).await?;
        if service.fault_no_wait {
            wait.forget();
        }
        let answer = self.kept_or_made(service, &wait).await?;
        Ok((answer, wait.asks().then(|| wait.waited())))
    }

    async fn kept_or_made(&self, service: &Service, wait: &Wait<'_>) -> Result<Arc<Answer>, Halt> {
        let Served { model, endpoint } = self.served;
        let write_side = service.write_side.as_ref();
        let is_watching = self.asked.freshness.is_watching;
        let settings = if is_watching { Some(&AMONG_SUBSCRIBERS) } else { endpoint.query.cache.as_ref() };
        let Some(settings) = settings else { return Box::pin(self.make(wait, write_side)).await.map(Arc::new) };
        let key = Cached::key(model.generation.generation_id, endpoint.id, &self.arguments, is_watching);
        let kept = service.cache.get(&key, settings, &model.feed).await;
        let measures = &service.measures;
        if kept.is_some() {
            measures.cache_hits.inc()
        } else {
            measures.cache_misses.inc()
        };
        if model.gate.is_closed() {
            return Err(Halt::Superseded);
        }
        if !wait.asks() {
            return match kept {
                Some(kept) => Ok(kept),
                None => service.cache.get_or_make(key, settings, Box::pin(self.make(wait, write_side))).await,
            };
        }
        if wait.version.is_none()
            && let Some(kept) = kept.filter(|kept| kept.is_covering)
            && freshness::all_met(&wait.demands, &kept.progress).unwrap_or(false)
        {
            return Ok(kept);
        }
        let made = Arc::new(Box::pin(self.make(wait, write_side)).await?);
        service.cache.keep(key, settings, &made).await;
        Ok(made)
    }

    async fn make(&self, wait: &Wait<'_>, write_side: Option<&WriteSide>) -> Result<Answer, Halt> {
        let Served { model, endpoint } = self.served;
        let moved = model.feed.moved();
        let list = List::new(model.generation.generation, &endpoint.path.path(), &self.arguments);
        let cursor = self.arguments.get("cursor").and_then(Json::as_str);
        let is_on = endpoint.query.paging.as_ref().is_some_and(|paging| paging.cursor.is_some());
        let after = cursor.filter(|_| is_on).map(|text| list.read(text)).transpose()?;
        let read = self.read(wait, after.as_deref()).await;
        let (found, reached, version) = read.map_err(|halt| match halt {
            // What a cursor holds isn't typed by us; a forged one is the caller's fault.
            Halt::Problem(problem) if after.is_some() && problem.name == "internal" => {
                Problem::parameter("cursor", "`cursor` doesn't fit this list; begin again without it").into()
            }
            halt => halt,
        })?;
        let mut stale = reached.is_behind.then_some(Stale::Behind);
        let found = match found {
            Some(found) => found,
            None if endpoint.query.missing.is_some() => {
                Found::Document(endpoint.missing(&self.arguments).unwrap_or_default())
            }
            None => {
                stale = Some(Stale::Fallback);
                Found::Document(fall_back(model, endpoint, &self.arguments, write_side).await?)
            }
        };
        let Respond { mut body, next_cursor } = endpoint.respond(&self.arguments, found, &list)?;
        if let (Some(_), Json::Object(fields)) = (stale, &mut body) {
            fields.insert("freshness".into(), json!("stale"));
        }
        let text = Bytes::from(body.to_string());
        if text.len() > endpoint.query.limits.answer_bytes {
            return Err(Problem::too_large(endpoint.query.limits.answer_bytes).into());
        }
        let etag = etag(model.generation.generation, version, &text);
        let is_covering = wait.refreshes() || !matches!(model.reader, Reader::Search(_));
        let progress = reached.progress;
        Ok(Answer { body, text, etag, progress, stale, next_cursor, made: Instant::now(), is_covering, moved })
    }

    /// What the store has; `None` where it lacks a document that may be elsewhere.
    async fn read(
        &self,
        wait: &Wait<'_>,
        after: Option<&[Json]>,
    ) -> Result<(Option<Found>, Reached, Option<i64>), Halt> {
        let Served { model, endpoint } = self.served;
        let arguments = &self.arguments;
        match (&endpoint.template, &model.reader) {
            (Template::Document(key), Reader::Redis(reader)) => {
                let key = key.render(arguments);
                let (stored, reached) = wait.document(reader, &key, endpoint).await?;
                // What was deleted is nowhere; what never was may not be here yet.
                let Some(stored) = stored else { return Ok((None, reached, None)) };
                let (fields, version) = fields_of(stored, model.kind);
                let fields = fields.ok_or_else(|| Problem::not_found(model.name(), &key))?;
                Ok((Some(Found::Document(fields)), reached, Some(version)))
            }
            (Template::Search(search), Reader::Search(reader)) => {
                let reached = wait.reach().await?;
                if wait.refreshes() && !reached.is_behind {
                    wait.show(reader, endpoint.query.limits.time()).await?;
                }
                let body = search.render(arguments, after);
                let found = read(model, endpoint, reader.search(&body)).await?;
                Ok((self.one_of(Found::Hits(found)), reached, None))
            }
            (Template::Sql(sql), Reader::Clickhouse(reader)) => {
                let reached = wait.reach().await?;
                let arguments = self.with_after(after)?;
                let rows = read(model, endpoint, reader.query(sql, &arguments)).await?;
                Ok((self.one_of(Found::Rows(rows)), reached, None))
            }
            (Template::Sql(sql), Reader::Postgres(reader)) => {
                let reached = wait.reach().await?;
                let arguments = self.with_after(after)?;
                let rows = read(model, endpoint, reader.query(sql, &arguments)).await?;
                Ok((self.one_of(Found::Rows(rows)), reached, None))
            }
            _ => Err(Problem::internal("the query's template is of another store").into()),
        }
    }

    fn with_after(&self, after: Option<&[Json]>) -> Result<Arguments, Problem> {
        let mut arguments = self.arguments.clone();
        if let Some(values) = after {
            self.served.endpoint.bind_after(&mut arguments, values)?;
        }
        Ok(arguments)
    }

    /// The first alone, where the query asks for one.
    fn one_of(&self, found: Found) -> Option<Found> {
        if !self.served.endpoint.query.one {
            return Some(found);
        }
        let first = match found {
            Found::Hits(FoundHits { hits, .. }) => hits.into_iter().next(),
            Found::Rows(rows) => rows.into_iter().next(),
            document @ Found::Document(_) => return Some(document),
        };
        match first {
            Some(Value::Object(fields)) => Some(Found::Document(fields)),
            _ => None,
        }
    }
}

async fn fall_back(
    model: &ReadModel,
    endpoint: &Endpoint,
    arguments: &Arguments,
    write_side: Option<&WriteSide>,
) -> Result<Object, Problem> {
    let in_path: Vec<_> = endpoint.path.parameters().filter_map(|name| arguments.get(name)).map(text_of).collect();
    let not_found = || Problem::not_found(model.name(), &in_path.join("/"));
    let (Some(sql), Some(write_side)) = (&endpoint.fallback, write_side) else { return Err(not_found()) };
    let found = write_side.document(sql, arguments, &endpoint.document).await;
    // Whether there is one isn't known then: no 404.
    found.map_err(|why| Problem::write_side(model.name(), &why.to_string()))?.ok_or_else(not_found)
}

fn etag(generation: i32, version: Option<i64>, text: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(text);
    let version = version.map(|version| format!("{version}-")).unwrap_or_default();
    // Weak: compressed or not, it is the same answer.
    format!("W/\"{generation}-{version}{:016x}\"", hasher.finish())
}
