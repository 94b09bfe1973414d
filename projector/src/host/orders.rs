//! What the control store asks of a generation's owner beyond feeding it.

use crate::control::Barrier;
use crate::projection::ReadModelKind;
use std::time::Duration;

/// What is asked now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Orders {
    /// Queries read it: how late events become visible counts.
    pub(super) live: bool,
    /// Nobody reads it yet: large batches, no refresh.
    pub(super) replaying: bool,
    /// Events a second, at most, while it is replayed.
    pub(super) throttle: Option<u32>,
    /// Live read models of this host lag: leave them the machine.
    pub(super) yielding: bool,
    /// Documents to be made anew, with the orders' keys.
    pub(super) documents: Vec<(i64, String)>,
    /// The barrier that holds it.
    pub(super) barrier: Option<Barrier>,
    /// Barriers up to this key were looked for.
    pub(super) seen: i64,
}

/// Of a generation that nobody reads yet: the more events, the fewer writes.
const REPLAY_BATCH_MAX: usize = 4_000;
/// Of facts twice as many: no documents are loaded for them, and each insert makes a part that is merged later.
const REPLAY_FACTS_MAX: usize = 8_000;
/// Batches a second of a throttled replay: pauses are short, since what isn't an event waits for them too.
const THROTTLED_BATCHES: u32 = 4;
/// While live read models lag, a replay pauses so many times as long as it works.
const YIELD_TO_LIVE: u32 = 5;
/// The longest pause between two batches.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// After a batch of live events, an owner rests so many times as long as it worked: the slower everything is, the larger and
/// fewer the batches. Without it many owners with an event or two each keep a busy machine busy with calls.
const REST: u32 = 2;
/// A store that was away for long is no reason to rest for long.
const REST_MAX: Duration = Duration::from_millis(500);

impl Orders {
    /// How many events a batch may have, where `live` is the projection's own limit.
    pub(super) fn batch_max(&self, live: usize, kind: ReadModelKind) -> usize {
        match (self.replaying, self.throttle) {
            (false, _) => live,
            (true, None) if kind == ReadModelKind::Facts => REPLAY_FACTS_MAX.max(live),
            (true, None) => REPLAY_BATCH_MAX.max(live),
            (true, Some(a_second)) => (a_second / THROTTLED_BATCHES).clamp(1, 4_000) as usize,
        }
    }

    /// Whether queries read it, and whether it is replayed. Asked at once: two looks at what is watched, held at the same time, wait for
    /// each other for ever when it is about to change between them.
    pub(super) fn phase(&self) -> (bool, bool) {
        (self.live, self.replaying)
    }

    /// Whether a large batch may be followed by the next before it has landed: nothing is held back.
    pub(super) fn flows(&self) -> bool {
        !self.replaying || (self.throttle.is_none() && !self.yielding)
    }

    /// How long after the begin of a batch of `events` that `took` so long the next one may begin. Only a large batch of a
    /// live read model is followed at once: more is waiting already.
    pub(super) fn pause_after(&self, events: usize, is_large: bool, took: Duration) -> Duration {
        if !self.replaying {
            let rest = took.saturating_mul(REST).min(REST_MAX);
            return if is_large { Duration::ZERO } else { took + rest };
        }
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        let throttled =
            self.throttle.map_or(Duration::ZERO, |a_second| Duration::from_secs(1) * events / a_second.max(1));
        let yielded = if self.yielding { took.saturating_mul(YIELD_TO_LIVE) } else { Duration::ZERO };
        throttled.max(yielded).min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_replay_is_held_back_for_long() {
        let second = Duration::from_secs(1);
        let batch_max = |orders: &Orders| orders.batch_max(500, ReadModelKind::Entity);
        let throttled = Orders { replaying: true, throttle: Some(500), ..Orders::default() };
        assert_eq!((batch_max(&throttled), throttled.pause_after(125, true, second)), (125, second / 4));
        let yielding = Orders { yielding: true, ..throttled.clone() };
        assert_eq!(yielding.pause_after(125, true, second / 10), second / 2);
        assert_eq!(yielding.pause_after(125, true, second), PAUSE_MAX, "what isn't an event waits too");
        assert_eq!(Orders { throttle: Some(1), ..throttled.clone() }.batch_max(500, ReadModelKind::Facts), 1);
        let free = Orders { throttle: None, ..throttled.clone() };
        assert_eq!((batch_max(&free), free.batch_max(500, ReadModelKind::Facts)), (REPLAY_BATCH_MAX, REPLAY_FACTS_MAX));
        assert_eq!([&throttled, &yielding].map(Orders::flows), [false; 2]);
        let live = Orders { replaying: false, ..yielding };
        assert!(live.flows() && Orders { replaying: true, ..Orders::default() }.flows());
        assert_eq!((batch_max(&live), live.pause_after(500, true, second)), (500, Duration::ZERO));
        let few = |took| live.pause_after(3, false, took);
        assert_eq!(few(Duration::from_millis(4)), Duration::from_millis(12), "it works a third of the time");
        assert_eq!(few(second * 60), second * 60 + REST_MAX, "a store that was away");
    }
}
