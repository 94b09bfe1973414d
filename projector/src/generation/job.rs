//! Doing what [`super::machine`] says, one step at a time, each safe to be done again.

use super::compare::{Difference, compare, sample};
use super::machine::{At, Step, View, next};
use crate::apply::Partition;
use crate::control::{
    Actor, Arrival, Barrier, Control, ControlError, Ends, Generation, Hold, Member, Phase, ProgressMap, Rebuild, State,
    Verify,
};
use crate::event::Catalog;
use crate::host::{self, HostError};
use crate::projection::{Compiled, Store};
use crate::sink::redis::neighbour;
use crate::sink::{Sink, SinkError, StoreUrls};
use crate::source::{Bounds, KafkaConfig, SourceError, bounds};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

/// Both generations must stand at the place within this time; else all are let go, and it is tried again.
const BARRIER_S: f64 = 2.0;
/// A comparison may take so long, while both stand still.
const COMPARE_S: f64 = 60.0;
/// The pause before a barrier is tried again doubles up to this: each try holds the live generation too.
const TRY_AGAIN_WITHIN_S: u64 = 30;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Where something is awaited at a barrier, every millisecond is one that readers of new events wait.
const LOOK_EVERY_AT_BARRIER: Duration = Duration::from_millis(10);
const KEEP_EVERY: Duration = Duration::from_millis(500);
/// Messages that may be missing when a barrier is opened.
const BEHIND_MAX: i64 = 200;

/// What a job needs to reach.
#[derive(Clone)]
pub struct Site {
    /// The control store.
    pub control: Control,
    /// The event types.
    pub catalog: Arc<Catalog>,
    /// The read stores.
    pub stores: StoreUrls,
    /// Kafka.
    pub kafka: KafkaConfig,
    /// Who we are, for others.
    pub name: String,
    /// Who we are, for the lease.
    pub id: Uuid,
}

/// Why a job can't go on for now.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The control store.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A read store.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// Kafka.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A generation can't be opened.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The topics begin later than the history.
    #[error("{0}")]
    HistoryGone(String),
    /// There is no place to build it.
    #[error("{0}")]
    Place(String),
}

/// How a job came to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The generation is live.
    Live,
    /// It waits for `rebuild promote`.
    Verified,
    /// It waits for somebody to do something about this.
    Stopped(String),
    /// It was aborted.
    Aborted,
    /// Somebody else drives it.
    TakenOver,
}

/// What can be seen of a rebuild.
#[derive(Clone, Debug)]
pub struct Status {
    /// The rebuild.
    pub rebuild: Rebuild,
    /// The generation that is to be live.
    pub target: Member,
    /// The number of the one that is.
    pub replaces: i32,
    /// Messages that it has handled.
    pub done: i64,
    /// Messages that there are.
    pub total: i64,
    /// Messages that the live one hasn't handled.
    pub live_behind: i64,
    /// Whether both stand still now.
    pub at_barrier: bool,
}

/// A rebuild that we drive.
pub struct Job {
    site: Site,
    hold: Hold,
    sinks: HashMap<i64, Arc<dyn Sink>>,
    sample: Option<Vec<String>>,
    next_barrier: Instant,
    barriers: u32,
    /// Whether the lease went to somebody else, or the rebuild is over.
    lost: Arc<AtomicBool>,
    keeping: JoinHandle<()>,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// Keeps the lease, whatever else is done meanwhile.
fn keep_lease(control: Control, hold: Hold, lost: Arc<AtomicBool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(KEEP_EVERY).await;
            if let Ok(false) = control.keep(hold).await {
                return lost.store(true, Ordering::Relaxed);
            }
        }
    })
}

impl Job {
    /// Takes a rebuild, if nobody drives it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn take(site: Site, rebuild_id: i64) -> Result<Option<Self>, ControlError> {
        let hold = site.control.hold(rebuild_id, site.id, &site.name).await?;
        Ok(hold.map(|hold| {
            let lost: Arc<AtomicBool> = Arc::default();
            let keeping = keep_lease(site.control.clone(), hold, Arc::clone(&lost));
            let next_barrier = Instant::now();
            Self { site, hold, sinks: HashMap::new(), sample: None, next_barrier, barriers: 0, lost, keeping }
        }))
    }

    /// Drives it until it comes to rest; tells how it goes several times a second. What fails is tried again.
    pub async fn run(&mut self, mut tell: impl FnMut(&Status, Option<&str>)) -> Ending {
        let mut tries = 0_u32;
        loop {
            match self.advance(&mut tell).await {
                Ok(Some(ending)) => {
                    if ending != Ending::TakenOver {
                        _ = self.site.control.let_go(self.hold).await;
                    }
                    return ending;
                }
                Ok(None) => tries = 0,
                Err(JobError::HistoryGone(reason)) => {
                    _ = self.site.control.let_go(self.hold).await;
                    return Ending::Stopped(reason);
                }
                Err(error) => {
                    tries = tries.saturating_add(1);
                    tracing::warn!(rebuild = self.hold.rebuild_id, %error, "trying again");
                    tokio::time::sleep(Duration::from_millis(200 * u64::from(tries.min(10)))).await;
                }
            }
        }
    }

    async fn ended_by_others(&self) -> Ending {
        match self.site.control.rebuild(self.hold.rebuild_id).await.map(|rebuild| rebuild.outcome) {
            Ok(Some(outcome)) if outcome == "done" => Ending::Live,
            Ok(Some(_)) => Ending::Aborted,
            _ => Ending::TakenOver,
        }
    }

    async fn advance(&mut self, tell: &mut impl FnMut(&Status, Option<&str>)) -> Result<Option<Ending>, JobError> {
        if self.lost.load(Ordering::Relaxed) {
            return Ok(Some(self.ended_by_others().await));
        }
        let control = self.site.control.clone();
        let rebuild = control.rebuild(self.hold.rebuild_id).await?;
        let (target, live) = (control.member(rebuild.generation_id).await?, control.member(rebuild.replaces).await?);
        let barrier = control.barrier_of(rebuild.rebuild_id).await?;
        if barrier.is_none() {
            control.inherit_skips(rebuild.generation_id).await?;
        }
        let status = match &barrier {
            None => Some(status_of(&self.site, &rebuild).await?),
            Some(_) => None,
        };
        let view = self.view(&rebuild, &target, &live, barrier.as_ref(), status.as_ref()).await?;
        let step = next(&view);
        if let Some(status) = &status {
            tell(status, None);
        }
        self.take_step(step, &rebuild, &target, &live, barrier.as_ref()).await
    }

    async fn view(
        &self,
        rebuild: &Rebuild,
        target: &Member,
        live: &Member,
        barrier: Option<&Barrier>,
        status: Option<&Status>,
    ) -> Result<View, JobError> {
        let failures = self.site.control.new_failures(rebuild.generation_id, rebuild.replaces).await?;
        let failure = failures.first().filter(|_| target.state != State::Live && !rebuild.options.back).map(|f| {
            format!(
                "{} at {}/{} offset {} can't be taken: {}; mend the projection and begin again, or `projector dlq show {}`",
                f.event_type.as_deref().unwrap_or("a message"),
                f.topic,
                f.partition,
                f.message_offset,
                f.reason,
                f.dead_letter_id
            )
        });
        let finding = rebuild.finding.as_ref();
        let here = finding.and_then(|f| f["barrier"].as_i64());
        let behind = status.map_or(0, |s| s.total - s.done);
        let at = match barrier {
            Some(barrier) => Some(at(barrier, &self.site.control.arrivals(barrier.barrier_id).await?, target, live)),
            None => None,
        };
        let retired = target.state == State::Retired;
        Ok(View {
            over: rebuild.outcome.is_some(),
            state: target.state,
            paused: target.paused.then(|| target.paused_why.clone().unwrap_or_else(|| "it is paused".to_owned())),
            failure,
            replayed: retired || self.replayed(rebuild).await?,
            converged: status.is_some_and(|s| behind <= BEHIND_MAX.max(s.live_behind + BEHIND_MAX)),
            promote: rebuild.promote || rebuild.options.promote,
            compared: barrier.is_some() && here == barrier.map(|b| b.barrier_id),
            refusal: finding.and_then(|f| f["refusal"].as_str()).map(str::to_owned),
            barrier: at,
        })
    }

    /// Whether the generation has all that was there when the replay began.
    async fn replayed(&self, rebuild: &Rebuild) -> Result<bool, JobError> {
        let Some(ends) = &rebuild.ends else { return Ok(false) };
        let progress = self.site.control.progress(rebuild.generation_id).await?;
        Ok(ends.iter().all(|(partition, end)| position(&progress, partition) >= *end))
    }

    async fn take_step(
        &mut self,
        step: Step,
        rebuild: &Rebuild,
        target: &Member,
        live: &Member,
        barrier: Option<&Barrier>,
    ) -> Result<Option<Ending>, JobError> {
        let control = self.site.control.clone();
        let name = self.site.name.clone();
        let actor = Actor { who: &name, why: None };
        match (step, barrier) {
            (Step::Wait, None) => tokio::time::sleep(LOOK_EVERY).await,
            (Step::Wait, Some(_)) => tokio::time::sleep(LOOK_EVERY_AT_BARRIER).await,
            (Step::Begin, _) => self.begin(rebuild, target, actor).await?,
            (Step::Advance(State::CatchingUp), _) => {
                self.sink(&target.generation)?.replaying(false).await?;
                control.rebuild_step(self.hold, &[State::Replaying], State::CatchingUp, actor).await?;
            }
            (Step::Advance(state), _) => {
                let from = [State::CatchingUp, State::Converged];
                control.rebuild_step(self.hold, &from, state, actor).await?;
            }
            (Step::Open, _) => {
                if self.sample.is_none()
                    && let Verify::Sample(count) = rebuild.options.verify
                {
                    let live = self.sink(&live.generation)?;
                    self.sample = Some(sample(live.as_ref(), count).await?);
                }
                // The first refresh after a replay takes longest: not while both stand still.
                self.sink(&target.generation)?.refresh().await?;
                tokio::time::sleep_until(self.next_barrier).await;
                let pause = Duration::from_secs((1 << self.barriers.min(5)).min(TRY_AGAIN_WITHIN_S));
                self.next_barrier = Instant::now() + pause + Duration::from_secs_f64(BARRIER_S);
                self.barriers += 1;
                control.open_barrier(self.hold, BARRIER_S).await?;
            }
            (Step::Set(ends), Some(barrier)) => control.set_barrier(self.hold, barrier.barrier_id, &ends).await?,
            (Step::Compare, Some(barrier)) => {
                if control.extend_barrier(self.hold, barrier.barrier_id, COMPARE_S).await? {
                    self.compare(rebuild, target, live, barrier).await?;
                }
            }
            (Step::Decide, Some(barrier)) => {
                let decided = control.decide(self.hold, barrier.barrier_id, actor).await?;
                if !decided {
                    control.release_barrier(self.hold, barrier.barrier_id).await?;
                    control.rebuild_finding(self.hold, &serde_json::Value::Null).await?;
                }
            }
            (Step::GoBack, Some(barrier)) => control.release_barrier(self.hold, barrier.barrier_id).await?,
            (Step::MoveReaders, Some(barrier)) => self.move_readers(target, barrier).await?,
            (Step::Finish, _) => {
                control.rebuild_done(self.hold).await?;
                return Ok(Some(Ending::Live));
            }
            (Step::AskPromotion, _) => return Ok(Some(Ending::Verified)),
            (Step::Stop(reason), _) => return Ok(Some(Ending::Stopped(reason))),
            (Step::Over, _) => return Ok(Some(self.ended_by_others().await)),
            (_, None) => {}
        }
        Ok(None)
    }

    /// Makes the place, notes where the topics end, and lets the hosts feed it.
    async fn begin(&mut self, rebuild: &Rebuild, target: &Member, actor: Actor<'_>) -> Result<(), JobError> {
        let mut ends = Ends::new();
        for (topic, count) in &target.generation.topics {
            let bounds = bounds(&self.site.kafka, topic, *count).await?;
            whole_history(&rebuild.read_model, topic, &bounds)?;
            for (number, (_, end)) in bounds {
                ends.insert(Partition { topic: topic.as_str().into(), number }, end);
            }
        }
        let sink = self.sink(&target.generation)?;
        sink.prepare_aside().await?;
        sink.replaying(true).await?;
        self.site.control.rebuild_ends(self.hold, &ends).await?;
        self.site.control.rebuild_step(self.hold, &[State::Planned], State::Replaying, actor).await?;
        Ok(())
    }

    async fn compare(
        &mut self,
        rebuild: &Rebuild,
        target: &Member,
        live: &Member,
        barrier: &Barrier,
    ) -> Result<(), JobError> {
        let (old, new) = (self.sink(&live.generation)?, self.sink(&target.generation)?);
        let (options, keys) = (&rebuild.options, self.sample.take().unwrap_or_default());
        let limit = Duration::from_secs_f64(COMPARE_S - 5.0);
        let compared = tokio::time::timeout(limit, compare(old.as_ref(), new.as_ref(), options.verify, &keys)).await;
        let (difference, refusal) = match compared {
            Ok(difference) => {
                let difference = difference?;
                let refusal = difference.refusal(options.announced.as_deref());
                (difference, refusal)
            }
            Err(_) => {
                let reason = "comparing all documents takes longer than both may stand still; use --verify sample:N";
                (Difference::default(), Some(reason.to_owned()))
            }
        };
        let refusal = refusal.filter(|_| !options.despite);
        let finding = json!({"barrier": barrier.barrier_id, "refusal": refusal, "difference": difference});
        self.site.control.rebuild_finding(self.hold, &finding).await?;
        Ok(())
    }

    /// After the decision: direct readers, then the query services, then all go on.
    async fn move_readers(&mut self, target: &Member, barrier: &Barrier) -> Result<(), JobError> {
        self.sink(&target.generation)?.go_live().await?;
        let version = barrier.version.unwrap_or(i64::MAX);
        while self.site.control.serving_older_than(version).await? > 0 {
            if self.lost.load(Ordering::Relaxed) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY_AT_BARRIER).await;
        }
        Ok(self.site.control.release_barrier(self.hold, barrier.barrier_id).await?)
    }

    fn sink(&mut self, generation: &Generation) -> Result<Arc<dyn Sink>, JobError> {
        if let Some(sink) = self.sinks.get(&generation.generation_id) {
            return Ok(Arc::clone(sink));
        }
        let (_, sink) = host::open(generation, &self.site.catalog, &self.site.stores)?;
        self.sinks.insert(generation.generation_id, Arc::clone(&sink));
        Ok(sink)
    }
}

fn position(progress: &ProgressMap, partition: &Partition) -> i64 {
    progress.get(partition).map_or(0, |progress| progress.next_offset)
}

fn partitions(generation: &Generation) -> BTreeSet<Partition> {
    let of = |(topic, count): (&String, &i32)| {
        let topic: Arc<str> = topic.as_str().into();
        (0..*count).map(|number| Partition { topic: Arc::clone(&topic), number }).collect::<Vec<_>>()
    };
    generation.topics.iter().flat_map(of).collect()
}

/// What a barrier has come to.
fn at(barrier: &Barrier, arrivals: &HashMap<i64, Vec<Arrival>>, target: &Member, live: &Member) -> At {
    let said = |of: &Member| arrivals.get(&of.generation.generation_id).map(Vec::as_slice).unwrap_or_default();
    let all = |of: &Member, arrived: bool| {
        let there: BTreeSet<_> =
            said(of).iter().filter(|a| !arrived || a.arrived).map(|a| a.partition.clone()).collect();
        partitions(&of.generation).is_subset(&there)
    };
    match &barrier.phase {
        Phase::Decided(_) => At::Decided,
        Phase::Set(_) => At::Set(all(target, true) && all(live, true)),
        Phase::Gathering if all(target, false) && all(live, false) => {
            let mut ends = Ends::new();
            for arrival in said(target).iter().chain(said(live)) {
                let end = ends.entry(arrival.partition.clone()).or_insert(arrival.position);
                *end = arrival.position.max(*end);
            }
            At::Gathering(Some(ends))
        }
        Phase::Gathering => At::Gathering(None),
    }
}

/// How far a rebuild is.
///
/// # Errors
/// The control store or Kafka doesn't answer.
pub(super) async fn status_of(site: &Site, rebuild: &Rebuild) -> Result<Status, JobError> {
    let control = &site.control;
    let (target, live) = (control.member(rebuild.generation_id).await?, control.member(rebuild.replaces).await?);
    let (of_target, of_live) =
        (control.progress(rebuild.generation_id).await?, control.progress(rebuild.replaces).await?);
    let (mut done, mut total, mut live_behind) = (0, 0, 0);
    for (topic, count) in &target.generation.topics {
        for (number, (_, end)) in bounds(&site.kafka, topic, *count).await? {
            let partition = Partition { topic: topic.as_str().into(), number };
            done += position(&of_target, &partition).min(end);
            total += end;
            if live.generation.topics.contains_key(topic) {
                live_behind += (end - position(&of_live, &partition)).max(0);
            }
        }
    }
    let at_barrier = control.barrier_of(rebuild.rebuild_id).await?.is_some();
    let replaces = live.generation.generation;
    Ok(Status { rebuild: rebuild.clone(), target, replaces, done, total, live_behind, at_barrier })
}

/// That the whole history is there to be replayed, and nothing else lives where the generation would be built.
///
/// # Errors
/// What speaks against it, and what to do.
pub async fn may_rebuild(site: &Site, compiled: &Compiled, topics: &BTreeMap<String, i32>) -> Result<(), JobError> {
    let name = &compiled.projection.name.value;
    for (topic, count) in topics {
        whole_history(name, topic, &bounds(&site.kafka, topic, *count).await?)?;
    }
    let Store::Redis(store) = &compiled.projection.store else { return Ok(()) };
    for member in site.control.members().await? {
        let of_us = member.generation.read_model == *name;
        let Ok((other, _)) = host::open(&member.generation, &site.catalog, &site.stores) else { continue };
        let Store::Redis(theirs) = &other.projection.store else { continue };
        if theirs.database != store.database && theirs.database != neighbour(store.database) {
            continue;
        }
        if of_us && member.state == State::Retired {
            return Err(JobError::Place(format!(
                "{name}: database {} still holds {} for a way back; `projector rebuild retire {name}` gives that up",
                neighbour(store.database),
                member.generation.id()
            )));
        }
        if !of_us {
            return Err(JobError::Place(format!(
                "{name}: another generation needs database {} and its neighbour {} for itself, since they are swapped, and {}                  is there too; give one of them a `database:` of another pair (0 and 1, 2 and 3, …)",
                store.database,
                neighbour(store.database),
                member.generation.read_model
            )));
        }
    }
    Ok(())
}

fn whole_history(name: &str, topic: &str, bounds: &Bounds) -> Result<(), JobError> {
    match bounds.iter().find(|(_, (first, _))| *first > 0) {
        None => Ok(()),
        Some((number, (first, _))) => Err(JobError::HistoryGone(format!(
            "{name}: the first {first} events of {topic}/{number} are gone from Kafka, so nothing can be built from there; \
             `projector republish` refills a topic from the event store"
        ))),
    }
}

impl Site {
    /// How far a rebuild is.
    ///
    /// # Errors
    /// The control store or Kafka doesn't answer.
    pub async fn status(&self, rebuild: &Rebuild) -> Result<Status, JobError> {
        status_of(self, rebuild).await
    }
}
