//! The barrier: who hears of it, who speaks at it, what is compared and decided there.

use super::super::world::PARTITIONS;
use super::{Barrier, Broken, Phase, Rebuilding};
use projector::control::State;
use std::collections::BTreeMap;

impl Rebuilding<'_> {
    /// How far an owner may go; hears of a barrier sooner or later.
    pub(super) fn limit(&mut self, g: usize, p: usize) -> usize {
        let end = self.end[p];
        let (fence, at) = self.sims[g].stands(p);
        let hears = self.dice.one_in(3);
        let goes_on = self.broken == Broken::NewOwnerGoesOn;
        let Some(barrier) = self.barrier.as_mut().filter(|barrier| !barrier.lapsed) else { return end };
        let said = &mut barrier.said[g][p];
        match barrier.phase {
            Phase::Gathering => {
                if said.is_none_or(|(by, _)| by != fence) && hears {
                    *said = Some((fence, at));
                    barrier.said_late[g][p] = false;
                }
                // One who was replaced may have spoken: then the present owner hasn't heard of it.
                said.filter(|(by, _)| *by == fence).map_or(end, |(_, at)| at)
            }
            Phase::Set(ends) | Phase::Decided(ends) => match said {
                Some((by, _)) if *by != fence && goes_on => end,
                // A new owner looks for it; this one was there before it, and hears of it by and by.
                Some((by, _)) if *by != fence && barrier.said_late[g][p] => {
                    let spoke_for = barrier.arrived[g][p] == Some(*by) && !matches!(barrier.phase, Phase::Decided(_));
                    if spoke_for && !hears { end } else { ends[p].max(at) }
                }
                _ => ends[p].max(at.min(end)).min(ends[p].max(at)),
            },
        }
    }

    pub(super) fn arrive(&mut self, g: usize) {
        let Some(barrier) = &mut self.barrier else { return };
        let Phase::Set(ends) = barrier.phase else { return };
        for (p, end) in ends.into_iter().enumerate() {
            let (fence, at) = self.sims[g].stands(p);
            if at == end {
                barrier.arrived[g][p] = Some(fence);
            }
        }
    }

    /// A former owner, who doesn't know it, speaks at the barrier.
    pub(super) fn ghost(&mut self) {
        if self.ghosts.is_empty() {
            return;
        }
        let at = self.dice.below(self.ghosts.len());
        let (g, p, fence, position) = self.ghosts[at];
        let Some(barrier) = &mut self.barrier else { return };
        match barrier.phase {
            Phase::Gathering if barrier.said[g][p].is_none() => {
                barrier.said[g][p] = Some((fence, position));
                barrier.said_late[g][p] = true;
            }
            // It reads on as if the partition were still its own.
            Phase::Set(_)
                if barrier.arrived[g][p].is_none() && barrier.said[g][p].is_some_and(|(by, _)| by == fence) =>
            {
                barrier.arrived[g][p] = Some(fence);
            }
            _ => return,
        }
        self.reach("barrier", "a former owner speaks");
    }

    /// Whether every partition of both stands at the place under its present owner.
    pub(super) fn all_stand(&self) -> bool {
        let Some(barrier) = &self.barrier else { return false };
        let stands = |g: usize, p: usize| barrier.arrived[g][p] == Some(self.sims[g].stands(p).0);
        matches!(barrier.phase, Phase::Set(_)) && (0..2).all(|g| (0..PARTITIONS).all(|p| stands(g, p)))
    }

    /// Both have the same events, so each document must have the same version in both.
    pub(super) fn same_documents(&self) -> Result<(), String> {
        let versions = |g: usize| -> BTreeMap<&String, i64> {
            self.sims[g].store.documents.iter().map(|(key, document)| (key, document.version)).collect()
        };
        let (one, other) = (versions(0), versions(1));
        if one == other { Ok(()) } else { Err(format!("differs at the barrier: {one:?} and {other:?}")) }
    }

    pub(super) fn expire(&mut self) {
        let lapses = self.broken == Broken::DecidedTooLate && self.all_stand();
        if let Some(barrier) = self.barrier.as_mut().filter(|barrier| !matches!(barrier.phase, Phase::Decided(_))) {
            if lapses {
                barrier.lapsed = true;
            } else {
                self.barrier = None;
            }
            self.reach("barrier", "its time is over");
        }
    }

    pub(super) fn decide(&mut self) {
        let with_fences = self.broken != Broken::DecidedWithoutFences;
        let stand = self.all_stand();
        let Some(barrier) = &mut self.barrier else { return };
        let Phase::Set(ends) = barrier.phase else { return };
        let all_said = barrier.arrived.iter().flatten().all(Option::is_some);
        if !all_said || self.state != State::Verified && self.state != State::Retired {
            return;
        }
        if with_fences && !stand {
            self.reach("decision", "refused: another owner by now");
            return self.expire();
        }
        barrier.phase = Phase::Decided(ends);
        self.state = State::Live;
        self.reach("decision", "falls");
        if self.broken == Broken::ReleasedBeforeReaders {
            self.barrier = None;
            self.owed = true;
        }
    }

    /// Direct readers, then the query service, then all go on; the driver may die in between.
    pub(super) fn move_readers(&mut self) {
        if !matches!(self.barrier, Some(Barrier { phase: Phase::Decided(_), .. })) {
            return;
        }
        if self.database != self.target {
            self.database = self.target;
            self.misled = [true; 2];
        }
        if self.dice.one_in(3) {
            return self.reach("swap", "the driver dies between the key and the query service");
        }
        self.serving = self.target;
        if self.dice.one_in(3) {
            return self.reach("swap", "the driver dies before it lets go");
        }
        self.barrier = None;
    }
}
