//! The next step of a rebuild, from what the control store says. Pure: the same view gives the same step, whoever asks, so a
//! rebuild goes on wherever its driver died.
//!
//! Until the decision everything can be taken back, by letting go of the barrier. From the decision on there is one way:
//! readers are moved, then the barrier is released. So no reader is moved before the decision, and nothing goes on before the
//! readers were moved.

use crate::control::{Ends, State};

/// A barrier, as the driver sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// Not all owners have said where they are; or all have, and this is the furthest in each partition.
    Gathering(Option<Ends>),
    /// On the way to the place; or there, all of them.
    Set(bool),
    /// The decision has fallen.
    Decided,
}

/// What the control store says of a rebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Whether it is over.
    pub over: bool,
    /// Where the generation stands that is to be live.
    pub state: State,
    /// Why it isn't fed, if it isn't.
    pub paused: Option<String>,
    /// An event that it can't take and the live one could.
    pub failure: Option<String>,
    /// Whether it has everything from before the rebuild began.
    pub replayed: bool,
    /// Whether it is as far as the live one, give or take what flows.
    pub converged: bool,
    /// Whether it waits for those that go live with it, or for the one that leads them.
    pub waits: bool,
    /// Whether it may go live.
    pub promote: bool,
    /// The barrier that holds.
    pub barrier: Option<At>,
    /// Whether both were compared at this barrier.
    pub compared: bool,
    /// What speaks against it, by the last comparison.
    pub refusal: Option<String>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make its place; note where the topics end; feed it.
    Begin,
    /// It has reached this state.
    Advance(State),
    /// Nothing yet.
    Wait,
    /// Open a barrier.
    Open,
    /// Set the barrier's place.
    Set(Ends),
    /// Compare both at the barrier.
    Compare,
    /// Let go of the barrier: nothing is decided.
    GoBack,
    /// Decide.
    Decide,
    /// Move all readers, then release the barrier.
    MoveReaders,
    /// The rebuild is done.
    Finish,
    /// It needs somebody who says that it may go live.
    AskPromotion,
    /// It can't go on until somebody has done something about this.
    Stop(String),
    /// It is over.
    Over,
}

/// What is to be done next.
#[must_use]
pub fn next(view: &View) -> Step {
    if view.over {
        return Step::Over;
    }
    if let Some(at) = &view.barrier {
        return at_barrier(view, at);
    }
    match view.state {
        // The barrier was released after the decision.
        State::Live => return Step::Finish,
        State::Dropped | State::Abandoned => return Step::Over,
        _ => {}
    }
    if let Some(reason) = view.paused.as_ref().or(view.failure.as_ref()).or(view.refusal.as_ref()) {
        return Step::Stop(reason.clone());
    }
    match view.state {
        State::Planned => Step::Begin,
        State::Replaying if view.replayed => Step::Advance(State::CatchingUp),
        State::CatchingUp if view.converged => Step::Advance(State::Converged),
        State::Converged | State::Verified | State::Retired if view.waits => Step::Wait,
        State::Verified if !view.promote => Step::AskPromotion,
        State::Converged | State::Verified | State::Retired if view.converged => Step::Open,
        _ => Step::Wait,
    }
}

fn at_barrier(view: &View, at: &At) -> Step {
    match at {
        At::Decided => Step::MoveReaders,
        _ if view.failure.is_some() || view.paused.is_some() => Step::GoBack,
        At::Gathering(None) | At::Set(false) => Step::Wait,
        At::Gathering(Some(ends)) => Step::Set(ends.clone()),
        At::Set(true) if !view.compared => Step::Compare,
        At::Set(true) if view.refusal.is_some() => Step::GoBack,
        At::Set(true) if view.state == State::Converged => Step::Advance(State::Verified),
        At::Set(true) if view.promote => Step::Decide,
        At::Set(true) => Step::GoBack,
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
