//! Doing what [`super::machine`] says, one step at a time, each safe to be done again.

use super::compare::{Difference, compare, sample};
use super::machine::{Step, next};
use super::past;
use super::sight::{Pair, Sight};
use super::site::{JobError, Site, Status, first_gone, status_of};
use crate::apply::Partition;
use crate::control::{Actor, Barrier, Control, ControlError, Ends, Generation, Hold, Options, Origin, State, Verify};
use crate::host;
use crate::sink::Sink;
use futures::future::try_join_all;
use serde_json::json;
use sqlx::postgres::PgListener;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// All owners must have said where they are within this time, and stand at the place within as long again; else all are let go, and it
/// is tried again.
const BARRIER_S: f64 = 2.0;
/// For the second, each further try has so much more, up to this: a machine that is too slow for the first would never swap. Both together are
/// no more than what readers may wait.
const BARRIER_MORE_S: f64 = 0.5;
const BARRIER_MAX_S: f64 = 3.0;
/// A comparison may take so long, while both stand still.
const COMPARE_S: f64 = 60.0;
/// The pause before a barrier is tried again doubles up to this: each try holds the live generation too.
const TRY_AGAIN_WITHIN_S: u64 = 30;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// At a barrier we are woken by what is said; in case that is lost.
const LOOK_EVERY_AT_BARRIER: Duration = Duration::from_millis(200);
/// Until the query services follow: every millisecond is one that readers of new events wait.
const LOOK_EVERY_FOR_READERS: Duration = Duration::from_millis(10);
const KEEP_EVERY: Duration = Duration::from_millis(500);

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

/// A rebuild that we drive.
pub struct Job {
    pub(super) site: Site,
    pub(super) hold: Hold,
    sinks: HashMap<i64, Arc<dyn Sink>>,
    /// The keys to be compared, by rebuild.
    samples: HashMap<i64, Vec<String>>,
    next_barrier: Instant,
    barriers: u32,
    /// While there is a barrier.
    arrivals: Option<PgListener>,
    /// Whether the lease went to somebody else, or the rebuild is over.
    pub(super) lost: Arc<AtomicBool>,
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
            Self {
                site,
                hold,
                sinks: HashMap::new(),
                samples: HashMap::new(),
                next_barrier,
                barriers: 0,
                arrivals: None,
                lost,
                keeping,
            }
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
                Err(JobError::HistoryGone(reason) | JobError::Place(reason)) => {
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
        let barrier = control.barrier_of(rebuild.rebuild_id).await?;
        let mut pairs = vec![Pair::of(&control, rebuild).await?];
        for led in control.rebuilds_led_by(self.hold.rebuild_id).await? {
            pairs.push(Pair::of(&control, led).await?);
        }
        let status = match &barrier {
            None => {
                self.arrivals = None;
                control.inherit_skips(pairs[0].rebuild.generation_id).await?;
                Some(status_of(&self.site, &pairs[0].rebuild).await?)
            }
            Some(_) => None,
        };
        let sight = Sight { control: &control, pairs: &pairs, barrier: barrier.as_ref(), status: status.as_ref() };
        let view = sight.view().await?;
        let step = next(&view);
        if let Some(status) = &status {
            tell(status, None);
        }
        self.take_step(step, &pairs, barrier.as_ref(), tell).await
    }

    async fn take_step(
        &mut self,
        step: Step,
        pairs: &[Pair],
        barrier: Option<&Barrier>,
        tell: &mut impl FnMut(&Status, Option<&str>),
    ) -> Result<Option<Ending>, JobError> {
        let control = self.site.control.clone();
        let name = self.site.name.clone();
        let actor = Actor { who: &name, why: None };
        let own = &pairs[0];
        match (step, barrier) {
            (Step::Wait, None) => tokio::time::sleep(LOOK_EVERY).await,
            (Step::Wait, Some(_)) => self.wait_for_arrivals().await?,
            (Step::Begin, _) => self.begin(own, actor, tell).await?,
            (Step::Advance(State::CatchingUp), _) => {
                self.sink(&own.target.generation)?.replaying(false).await?;
                control.rebuild_step(self.hold, &[State::Replaying], State::CatchingUp, actor).await?;
            }
            (Step::Advance(State::Verified), _) => {
                let from = [State::CatchingUp, State::Converged];
                control.set_step(self.hold, &from, State::Verified, actor).await?;
            }
            (Step::Advance(state), _) => {
                control.rebuild_step(self.hold, &[State::CatchingUp], state, actor).await?;
            }
            (Step::Open, _) => self.open(pairs).await?,
            (Step::Set(ends), Some(barrier)) => {
                let ends = self.place(ends, pairs).await?;
                control.set_barrier(self.hold, barrier.barrier_id, &ends, self.standing_s()).await?;
            }
            (Step::Compare, Some(barrier)) => {
                if control.extend_barrier(self.hold, barrier.barrier_id, COMPARE_S).await? {
                    self.compare(pairs, barrier).await?;
                }
            }
            (Step::Decide, Some(barrier)) => {
                let decided = control.decide(self.hold, barrier.barrier_id, actor).await?;
                if !decided {
                    control.release_barrier(self.hold, barrier.barrier_id).await?;
                    for pair in pairs {
                        control.rebuild_finding(self.hold, pair.rebuild.rebuild_id, &serde_json::Value::Null).await?;
                    }
                }
            }
            (Step::GoBack, Some(barrier)) => control.release_barrier(self.hold, barrier.barrier_id).await?,
            (Step::MoveReaders, Some(barrier)) => self.move_readers(pairs, barrier).await?,
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

    /// Makes the place, fills it from the event store if that is asked for, notes where the topics end, and lets the hosts feed
    /// it.
    async fn begin(
        &mut self,
        own: &Pair,
        actor: Actor<'_>,
        tell: &mut impl FnMut(&Status, Option<&str>),
    ) -> Result<(), JobError> {
        let (rebuild, target) = (&own.rebuild, &own.target.generation);
        let past = match rebuild.options.from {
            Origin::EventStore if !rebuild.history.is_some_and(|history| history.finished) => {
                if !past::fill(self, rebuild, target, tell).await? {
                    return Ok(());
                }
                true
            }
            Origin::EventStore => true,
            Origin::Kafka => false,
        };
        let mut ends = Ends::new();
        for (topic, count) in &target.topics {
            let bounds = self.site.edges.of(topic, *count).await?;
            if let Some(gone) = first_gone(topic, &bounds).filter(|_| !past) {
                let name = &rebuild.read_model;
                return Err(JobError::HistoryGone(format!(
                    "{name}: {gone}; `projector rebuild abort {name}`, then begin again with `--from event-store`"
                )));
            }
            for (number, (_, end)) in bounds {
                ends.insert(Partition { topic: topic.as_str().into(), number }, end);
            }
        }
        let sink = self.sink(target)?;
        sink.prepare_aside().await?;
        sink.replaying(true).await?;
        self.site.control.rebuild_ends(self.hold, &ends).await?;
        self.site.control.rebuild_step(self.hold, &[State::Planned], State::Replaying, actor).await?;
        Ok(())
    }

    /// Opens a barrier, once all that takes longer is done: compiling, choosing what to compare, the first refresh after a replay.
    async fn open(&mut self, pairs: &[Pair]) -> Result<(), JobError> {
        for Pair { rebuild, target, live } in pairs {
            let (new, old) = (self.sink(&target.generation)?, self.sink(&live.generation)?);
            new.refresh().await?;
            if let (Verify::Sample(count), false) = (rebuild.options.verify, rebuild.options.repair)
                && !self.samples.contains_key(&rebuild.rebuild_id)
            {
                self.samples.insert(rebuild.rebuild_id, sample(old.as_ref(), count).await?);
            }
        }
        tokio::time::sleep_until(self.next_barrier).await;
        let pause = Duration::from_secs((1 << self.barriers.min(5)).min(TRY_AGAIN_WITHIN_S));
        self.barriers += 1;
        self.next_barrier = Instant::now() + pause + Duration::from_secs_f64(BARRIER_S + self.standing_s());
        self.arrivals = Some(self.site.control.hear_arrivals().await?);
        Ok(self.site.control.open_barrier(self.hold, BARRIER_S).await?)
    }

    /// The time until all must stand at the present barrier's place.
    fn standing_s(&self) -> f64 {
        (BARRIER_S + BARRIER_MORE_S * f64::from(self.barriers.saturating_sub(1))).min(BARRIER_MAX_S)
    }

    /// Until somebody has said something at the barrier, or for a while.
    async fn wait_for_arrivals(&mut self) -> Result<(), JobError> {
        let arrivals = match &mut self.arrivals {
            Some(arrivals) => arrivals,
            // Opened by whoever drove it before us.
            none => none.insert(self.site.control.hear_arrivals().await?),
        };
        if let Ok(heard) = tokio::time::timeout(LOOK_EVERY_AT_BARRIER, arrivals.recv()).await {
            heard.map_err(ControlError::from)?;
            // One look is enough for all that was said meanwhile.
            while arrivals.next_buffered().is_some() {}
        }
        Ok(())
    }

    /// The place: where the topics end now that all owners have said where they stand. Their furthest wouldn't do: one who died
    /// may have written beyond what it had saved, and whoever follows it begins at that.
    async fn place(&self, said: Ends, pairs: &[Pair]) -> Result<Ends, JobError> {
        let mut ends = said;
        let topics = pairs.iter().flat_map(|pair| [&pair.target, &pair.live]).flat_map(|m| &m.generation.topics);
        for (topic, count) in topics.collect::<BTreeMap<_, _>>() {
            // Of one that is empty, whoever has read nothing stands at its beginning.
            for (number, (_, end)) in
                self.site.edges.of(topic, *count).await?.into_iter().filter(|(_, (low, high))| low < high)
            {
                let place = ends.entry(Partition { topic: topic.as_str().into(), number }).or_insert(end);
                *place = end.max(*place);
            }
        }
        Ok(ends)
    }

    /// All pairs side by side: they stand still together, and whoever waits for a new event waits for the slowest of them, not for
    /// their sum.
    async fn compare(&mut self, pairs: &[Pair], barrier: &Barrier) -> Result<(), JobError> {
        let mut comparing = Vec::new();
        for Pair { rebuild, target, live } in pairs.iter().filter(|pair| !pair.rebuild.options.repair) {
            let (old, new) = (self.sink(&live.generation)?, self.sink(&target.generation)?);
            let keys = self.samples.remove(&rebuild.rebuild_id).unwrap_or_default();
            comparing.push(async move {
                let (difference, refusal) = verdict(old.as_ref(), new.as_ref(), &rebuild.options, &keys).await?;
                Ok::<_, JobError>((rebuild.rebuild_id, difference, refusal))
            });
        }
        for (rebuild_id, difference, refusal) in try_join_all(comparing).await? {
            let finding = json!({"barrier": barrier.barrier_id, "refusal": refusal, "difference": difference});
            self.site.control.rebuild_finding(self.hold, rebuild_id, &finding).await?;
        }
        Ok(())
    }

    /// After the decision: direct readers, then the query services, then all go on.
    async fn move_readers(&mut self, pairs: &[Pair], barrier: &Barrier) -> Result<(), JobError> {
        let sinks: Vec<_> = pairs.iter().map(|pair| self.sink(&pair.target.generation)).collect::<Result<_, _>>()?;
        try_join_all(sinks.iter().map(|sink| sink.go_live())).await?;
        let version = barrier.version.unwrap_or(i64::MAX);
        while self.site.control.serving_older_than(version).await? > 0 {
            if self.lost.load(Ordering::Relaxed) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY_FOR_READERS).await;
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

/// What differs between two generations that stand still, and why the swap is refused, if it is.
async fn verdict(
    old: &dyn Sink,
    new: &dyn Sink,
    options: &Options,
    keys: &[String],
) -> Result<(Difference, Option<String>), JobError> {
    let limit = Duration::from_secs_f64(COMPARE_S - 5.0);
    let (difference, refusal) = match tokio::time::timeout(limit, compare(old, new, options.verify, keys)).await {
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
    Ok((difference, refusal.filter(|_| !options.despite)))
}
