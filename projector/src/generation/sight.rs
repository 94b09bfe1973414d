//! What the control store says of a rebuild, as the [`super::machine`] sees it.

use super::machine::{At, View};
use super::site::{Status, position};
use crate::apply::Partition;
use crate::control::{
    Arrival, Barrier, Control, ControlError, Ends, Generation, Member, NewFailure, Phase, Rebuild, State,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Messages that may be missing when a barrier is opened.
const BEHIND_MAX: i64 = 200;

pub(super) fn partitions(generation: &Generation) -> BTreeSet<Partition> {
    let of = |(topic, count): (&String, &i32)| {
        let topic: Arc<str> = topic.as_str().into();
        (0..*count).map(|number| Partition { topic: Arc::clone(&topic), number }).collect::<Vec<_>>()
    };
    generation.topics.iter().flat_map(of).collect()
}

/// A rebuild with its two generations.
pub(super) struct Pair {
    pub(super) rebuild: Rebuild,
    pub(super) target: Member,
    pub(super) live: Member,
}

impl Pair {
    pub(super) async fn of(control: &Control, rebuild: Rebuild) -> Result<Self, ControlError> {
        let (target, live) = (control.member(rebuild.generation_id).await?, control.member(rebuild.replaces).await?);
        Ok(Self { rebuild, target, live })
    }

    /// Those of the two that stand still at a barrier: what is lost can't.
    fn standing(&self) -> impl Iterator<Item = &Member> {
        [&self.live, &self.target].into_iter().skip(usize::from(self.rebuild.options.repair))
    }
}

/// What is seen of a rebuild and of those that go live with it.
pub(super) struct Sight<'a> {
    pub(super) control: &'a Control,
    /// The rebuild itself, then those that it leads.
    pub(super) pairs: &'a [Pair],
    pub(super) barrier: Option<&'a Barrier>,
    /// How far it is; not looked at at a barrier.
    pub(super) status: Option<&'a Status>,
}

impl Sight<'_> {
    pub(super) async fn view(&self) -> Result<View, ControlError> {
        let Some(own) = self.pairs.first() else { return Err(ControlError::Refused("there is no rebuild".to_owned())) };
        let (state, options) = (own.target.state, &own.rebuild.options);
        let (mut paused, mut failure, mut refusal) = (None, None, None);
        for pair in self.pairs {
            let of = |reason: String| match pair.rebuild.rebuild_id == own.rebuild.rebuild_id {
                true => reason,
                false => format!("{}: {reason}", pair.rebuild.read_model),
            };
            let why = || pair.target.paused_why.clone().unwrap_or_else(|| "it is paused".to_owned());
            paused = paused.or_else(|| pair.target.paused.then(|| of(why())));
            failure = failure.or(self.failure(pair).await?.map(of));
            let refused = pair.rebuild.finding.as_ref().and_then(|f| f["refusal"].as_str());
            refusal = refusal.or(refused.map(|refused| of(refused.to_owned())));
        }
        let at = match self.barrier {
            Some(barrier) => Some(at(barrier, &self.control.arrivals(barrier.barrier_id).await?, self.pairs)),
            None => None,
        };
        let compared = |pair: &Pair| {
            let finding = pair.rebuild.finding.as_ref().and_then(|f| f["barrier"].as_i64());
            pair.rebuild.options.repair || finding == self.barrier.map(|barrier| barrier.barrier_id)
        };
        // Of the live one that is lost nobody knows how far it is.
        let near = |s: &&Status| {
            let live = if options.repair { 0 } else { s.live_behind };
            s.total - s.done <= BEHIND_MAX.max(live + BEHIND_MAX)
        };
        let ready = |pair: &Pair| pair.target.state >= State::Converged;
        Ok(View {
            over: own.rebuild.outcome.is_some(),
            state,
            paused,
            failure,
            replayed: state != State::Replaying || self.replayed(&own.rebuild).await?,
            converged: self.status.as_ref().is_some_and(near),
            waits: own.rebuild.leader.is_some() || !self.pairs[1..].iter().all(ready),
            promote: own.rebuild.promote || options.promote,
            compared: self.barrier.is_some() && self.pairs.iter().all(compared),
            refusal,
            barrier: at,
        })
    }

    /// An event that the generation can't take and the live one could.
    async fn failure(&self, Pair { rebuild, target, .. }: &Pair) -> Result<Option<String>, ControlError> {
        if target.state == State::Live || rebuild.options.back {
            return Ok(None);
        }
        let failures = self.control.new_failures(rebuild.generation_id, rebuild.replaces).await?;
        Ok(failures.first().map(said))
    }

    /// Whether the generation has all that was there when the replay began.
    async fn replayed(&self, rebuild: &Rebuild) -> Result<bool, ControlError> {
        let Some(ends) = &rebuild.ends else { return Ok(false) };
        let progress = self.control.progress(rebuild.generation_id).await?;
        Ok(ends.iter().all(|(partition, end)| position(&progress, partition) >= *end))
    }
}

pub(super) fn said(failure: &NewFailure) -> String {
    format!(
        "{} at {}/{} {} can't be taken: {}; mend the projection and begin again, or `projector dlq show {}`",
        failure.event_type.as_deref().unwrap_or("a message"),
        failure.topic,
        failure.partition,
        if failure.message_offset < 0 {
            "(event store)".to_owned()
        } else {
            format!("offset {}", failure.message_offset)
        },
        failure.reason,
        failure.dead_letter_id
    )
}

/// What a barrier has come to.
fn at(barrier: &Barrier, arrivals: &HashMap<i64, Vec<Arrival>>, pairs: &[Pair]) -> At {
    let said = |of: &Member| arrivals.get(&of.generation.generation_id).map(Vec::as_slice).unwrap_or_default();
    let standing = || pairs.iter().flat_map(Pair::standing);
    let all = |arrived: bool| {
        standing().all(|of| {
            let there: BTreeSet<_> =
                said(of).iter().filter(|a| !arrived || a.arrived).map(|a| a.partition.clone()).collect();
            partitions(&of.generation).is_subset(&there)
        })
    };
    match &barrier.phase {
        Phase::Decided(_) => At::Decided,
        Phase::Set(_) => At::Set(all(true)),
        Phase::Gathering if all(false) => {
            let mut ends = Ends::new();
            for arrival in standing().flat_map(said) {
                let end = ends.entry(arrival.partition.clone()).or_insert(arrival.position);
                *end = arrival.position.max(*end);
            }
            At::Gathering(Some(ends))
        }
        Phase::Gathering => At::Gathering(None),
    }
}
