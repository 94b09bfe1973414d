//! What one request waits for, and the waiting: first the progress is there, then the data is read.

use super::endpoint::{Endpoint, Template};
use super::feed::Subscription;
use super::freshness::{self, Demand, Unmet};
use super::live::ReadModel;
use super::parameters::Arguments;
use super::problem::Problem;
use super::request::Freshness;
use super::store::{RedisReader, SearchReader};
use super::template::text_of;
use super::write_side::{WriteSide, Written};
use crate::apply::Stored;
use crate::control::ProgressMap;
use crate::expr::Object;
use crate::projection::ReadModelKind;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Why there is no answer.
#[derive(Clone, Debug)]
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

/// The progress that an answer may rest on.
#[derive(Clone)]
pub(crate) struct Reached {
    pub(crate) progress: Arc<ProgressMap>,
    /// It lacks something of what was asked, which the caller preferred to nothing.
    pub(crate) is_behind: bool,
}

/// What one request waits for.
pub(crate) struct Wait<'a> {
    model: &'a ReadModel,
    pub(crate) demands: Vec<Demand>,
    /// Of the document's own version.
    pub(crate) version: Option<i64>,
    write_side: Option<&'a WriteSide>,
    stale_ok: bool,
    is_watching: bool,
    begin: Instant,
    until: Instant,
    /// How long it took until the read model had what was asked for, in µs.
    waited_us: AtomicU64,
}

impl<'a> Wait<'a> {
    /// Puts `min_seq` and `consistency=strong` in the terms of a token, for which the write database may have to be asked.
    pub(crate) async fn new(
        model: &'a ReadModel,
        endpoint: &Endpoint,
        arguments: &Arguments,
        freshness: &Freshness,
        write_side: Option<&'a WriteSide>,
        begin: Instant,
    ) -> Result<Self, Problem> {
        let mut wait = Self::of_tokens(model, freshness, write_side, begin);
        let about = endpoint.about.as_ref().map(|about| {
            (
                about.aggregate_type.as_str(),
                text_of(arguments.get(&about.parameter).unwrap_or(&serde_json::Value::Null)),
            )
        });
        if let Some(min_seq) = freshness.min_seq.filter(|min| *min > 0) {
            let has_version = matches!(model.kind, ReadModelKind::Entity | ReadModelKind::Join);
            match (&endpoint.template, &about) {
                (Template::Document(_), _) if has_version => wait.version = Some(min_seq),
                (_, Some((aggregate_type, id))) => wait.require(aggregate_type, id, min_seq).await?,
                _ => return Err(Problem::parameter("min_seq", MIN_SEQ_OF_NOTHING)),
            }
        }
        if freshness.strong {
            wait.require_all(about).await?;
        }
        Ok(wait)
    }

    /// Waits for tokens alone.
    pub(crate) fn of_tokens(
        model: &'a ReadModel,
        freshness: &Freshness,
        write_side: Option<&'a WriteSide>,
        begin: Instant,
    ) -> Self {
        Self {
            model,
            demands: freshness::demands(&freshness.tokens, &model.generation.topics),
            version: None,
            write_side,
            stale_ok: freshness.stale_ok,
            is_watching: freshness.is_watching,
            begin,
            until: freshness::deadline(begin, freshness.wait_ms),
            waited_us: AtomicU64::new(0),
        }
    }

    /// Whether the caller asked for anything.
    pub(crate) fn asks(&self) -> bool {
        !self.demands.is_empty() || self.version.is_some()
    }

    pub(crate) fn waited(&self) -> Duration {
        Duration::from_micros(self.waited_us.load(Ordering::Relaxed))
    }

    fn note_wait(&self, since: Instant) {
        let waited_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waited_us.fetch_add(waited_us, Ordering::Relaxed);
    }

    /// Asks for nothing any more: a fault to be found by tests.
    pub(crate) fn forget(&mut self) {
        self.demands.clear();
        self.version = None;
    }

    /// Whether a search must be refreshed.
    pub(crate) fn refreshes(&self) -> bool {
        self.asks() || self.is_watching
    }

    async fn require(&mut self, aggregate_type: &str, id: &str, min_seq: i64) -> Result<(), Problem> {
        let topics = &self.model.generation.topics;
        let progress = self.model.feed.snapshot();
        if freshness::recently_handled(&progress, id, min_seq, topics) {
            return Ok(());
        }
        if freshness::is_parked(&progress, id, min_seq, topics) {
            return Err(Problem::parked(self.model.name(), json!({"stream": [aggregate_type, id, min_seq]})));
        }
        let written = self.write_side("min_seq")?.at(aggregate_type, id, min_seq).await;
        match written.map_err(|why| Problem::write_side(self.model.name(), &why.to_string()))? {
            Some(written) => self.demands.extend(freshness::demand_of(&written, topics)),
            None => {
                let required = json!({"stream": [aggregate_type, id, min_seq], "min_seq": min_seq});
                let reached = json!({"write_database": "has no event of this sequence yet"});
                return Err(Problem::behind(
                    self.model.name(),
                    required,
                    reached,
                    self.model.lag_ms().unwrap_or(0),
                    true,
                ));
            }
        }
        Ok(())
    }

    async fn require_all(&mut self, about: Option<(&str, String)>) -> Result<(), Problem> {
        let topics = &self.model.generation.topics;
        let write_side = self.write_side("consistency")?;
        let written: Result<Vec<Written>, _> = match about {
            Some((aggregate_type, id)) => {
                write_side.last(aggregate_type, &id).await.map(|last| last.into_iter().collect())
            }
            None => {
                let types: Vec<_> =
                    topics.keys().filter_map(|t| t.strip_prefix("events.")).map(str::to_owned).collect();
                write_side.newest(&types).await
            }
        };
        let written = written.map_err(|why| Problem::write_side(self.model.name(), &why.to_string()))?;
        self.demands.extend(written.iter().filter_map(|written| freshness::demand_of(written, topics)));
        Ok(())
    }

    fn write_side(&self, parameter: &str) -> Result<&'a WriteSide, Problem> {
        let detail = || {
            format!(
                "`{parameter}` needs the write database here, which this service doesn't know (WRITE_DATABASE_URL); pass the command's consistency_token"
            )
        };
        self.write_side.ok_or_else(|| Problem::parameter(parameter, detail()))
    }

    /// Waits until the read model has all that was asked for.
    pub(crate) async fn reach(&self) -> Result<Reached, Halt> {
        self.reach_by(&mut self.model.feed.subscribe()).await
    }

    /// Waits until a search shows what was reached. It belongs to the waiting, so it takes none of the query's places and time; but who had
    /// waited to the last still gets `at_least`.
    pub(crate) async fn show(&self, reader: &SearchReader, at_least: Duration) -> Result<(), Halt> {
        let since = Instant::now();
        let refresh = timeout_at(self.until.max(since + at_least), reader.refresh());
        let refreshed = tokio::select! {
            biased;
            refreshed = refresh => refreshed,
            () = self.model.gate.closed() => return Err(Halt::Superseded),
        };
        self.note_wait(since);
        match refreshed {
            Ok(result) => result.map_err(|error| failed(self.model, &error).into()),
            Err(_) => Err(Problem::timed_out().into()),
        }
    }

    async fn reach_by(&self, feed: &mut Subscription) -> Result<Reached, Halt> {
        let since = Instant::now();
        let reach = freshness::reach(feed, &self.demands, self.until);
        let reach = async {
            match self.asks() {
                true => telemetry::within("wait", &[("read_model", self.model.name())], reach).await,
                false => reach.await,
            }
        };
        let reached = tokio::select! {
            biased;
            reached = reach => reached,
            () = self.model.gate.closed() => return Err(Halt::Superseded),
        };
        self.note_wait(since);
        match reached {
            Ok(progress) => Ok(Reached { progress, is_behind: false }),
            Err(Unmet::Behind(progress)) => {
                self.make_sure_of_tokens(&progress).await?;
                if self.stale_ok {
                    return Ok(Reached { progress, is_behind: true });
                }
                Err(self.behind(&progress, None, feed.readable()).into())
            }
            Err(Unmet::Parked(required)) => Err(Problem::parked(self.model.name(), required).into()),
            Err(Unmet::UnknownEpoch { token, reached }) => {
                Err(Problem::unknown_epoch(self.model.name(), &token, &reached).into())
            }
        }
    }

    /// At the time limit: what a token names might never come.
    async fn make_sure_of_tokens(&self, progress: &ProgressMap) -> Result<(), Problem> {
        let Some(write_side) = self.write_side else { return Ok(()) };
        let unmet = freshness::unmet(&self.demands, progress);
        let Some(first) = unmet.into_iter().find(|demand| !demand.is_certain()) else { return Ok(()) };
        let (aggregate_type, id, sequence, txid) = first.event();
        // Without an answer it stays a matter of waiting.
        let Ok(written) = write_side.at(aggregate_type, id, sequence).await else { return Ok(()) };
        match written {
            Some(written) if written.txid.cast_unsigned() == txid => Ok(()),
            _ => Err(Problem::no_such_event(first.to_json())),
        }
    }

    /// Reads a document, again whenever something was handled that could have changed it, until it is as new as required. `None`
    /// where there never was one.
    pub(crate) async fn document(
        &self,
        reader: &RedisReader,
        key: &str,
        endpoint: &Endpoint,
    ) -> Result<(Option<Stored>, Reached), Halt> {
        let mut feed = self.model.feed.subscribe();
        let mut reached = self.reach_by(&mut feed).await?;
        let mut last_look = reached.is_behind;
        let topics = &self.model.generation.topics;
        loop {
            // The progress was looked at before: what it covers is in what is read now.
            let stored = read(self.model, endpoint, reader.read(key)).await?;
            let version = stored.as_ref().map_or(0, |s| s.sequence(self.model.kind));
            let has = |min: i64| version >= min || freshness::recently_handled(&reached.progress, key, min, topics);
            let Some(min) = self.version.filter(|min| !has(*min)) else { return Ok((stored, reached)) };
            if freshness::is_parked(&reached.progress, key, min, topics) {
                return Err(Problem::parked(self.model.name(), json!({"key": key, "min_seq": min})).into());
            }
            if last_look {
                if self.stale_ok {
                    return Ok((stored, Reached { is_behind: true, ..reached }));
                }
                return Err(self.behind(&reached.progress, Some(version), feed.readable()).into());
            }
            // A document's key is its aggregate's id, so only what its partition handles can change it.
            let (before, since) = (freshness::offsets_of(&reached.progress, key, topics), Instant::now());
            while freshness::offsets_of(&reached.progress, key, topics) == before {
                let changed = tokio::select! {
                    changed = timeout_at(self.until, feed.changed()) => changed,
                    () = self.model.gate.closed() => return Err(Halt::Superseded),
                };
                if changed.is_err() {
                    last_look = true;
                    break;
                }
                reached.progress = feed.look();
            }
            self.note_wait(since);
        }
    }

    fn behind(&self, progress: &ProgressMap, version: Option<i64>, connected: bool) -> Problem {
        /// More would make a long answer of a short fact.
        const SHOWN_MAX: usize = 20;
        let unmet: Vec<Demand> =
            freshness::unmet(&self.demands, progress).into_iter().take(SHOWN_MAX).cloned().collect();
        let mut required = json!({"streams": unmet.iter().map(Demand::to_json).collect::<Vec<_>>()});
        let mut reached = json!({"partitions": freshness::reached(&unmet, progress)});
        if let (Some(min_seq), Some(version)) = (self.version, version) {
            required["min_seq"] = min_seq.into();
            reached["version"] = version.into();
        }
        // What is required was written before the request came, so the read model is behind by the wait at least.
        let waited_ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let lag_ms = self.model.lag_ms().unwrap_or(0).max(waited_ms);
        Problem::behind(self.model.name(), required, reached, lag_ms, connected)
    }
}

const MIN_SEQ_OF_NOTHING: &str = "`min_seq` is about one aggregate's own sequence, and this query is about many; pass the command's consistency_token";

/// One read of the store: let in by the generation's gate, within the query's limits.
pub(crate) async fn read<T>(
    model: &ReadModel,
    endpoint: &Endpoint,
    work: impl Future<Output = Result<T, super::store::ReadError>>,
) -> Result<T, Halt> {
    let time_max = endpoint.query.limits.time();
    let permit = tokio::time::timeout(time_max.min(QUEUE_MAX), endpoint.permits.acquire()).await;
    let Ok(Ok(_permit)) = permit else { return Err(Problem::overloaded().into()) };
    let _reading = model.gate.enter().ok_or(Halt::Superseded)?;
    match tokio::time::timeout(time_max, work).await {
        Ok(result) => result.map_err(|error| failed(model, &error).into()),
        Err(_) => Err(Problem::timed_out().into()),
    }
}

/// How long a read may queue behind others: what woke many waiters at once is a short crowd, not an overload.
const QUEUE_MAX: Duration = Duration::from_millis(500);

fn failed(model: &ReadModel, error: &super::store::ReadError) -> Problem {
    use super::store::ReadError;
    tracing::warn!(read_model = model.name(), %error, "the store gave no answer");
    match error {
        ReadError::Unavailable(_) => Problem::store(model.name()),
        ReadError::Refused(_) => Problem::internal("the store refuses the query as it is declared; the log says why"),
    }
}

/// A document's fields, and its version for the ETag.
pub(crate) fn fields_of(stored: Stored, kind: ReadModelKind) -> (Option<Object>, i64) {
    let version = stored.sequence(kind);
    (stored.fields.map(Arc::unwrap_or_clone), version)
}
