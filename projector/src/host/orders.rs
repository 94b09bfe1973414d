//! What the control store asks of a generation's owner beyond feeding it.

use crate::control::Barrier;
use std::time::Duration;

/// What is asked now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Orders {
    /// Nobody reads it yet: large batches, no refresh.
    pub(super) replaying: bool,
    /// Events a second, at most, while it is replayed.
    pub(super) throttle: Option<u32>,
    /// Live read models of this host lag: leave them the machine.
    pub(super) yielding: bool,
    /// The barrier that holds it.
    pub(super) barrier: Option<Barrier>,
    /// Barriers up to this key were looked for.
    pub(super) seen: i64,
}

/// While live read models lag, a replay takes this part of the time.
const YIELD_TO_LIVE: u32 = 5;

impl Orders {
    /// How long after the begin of a batch of `events` that `took` so long the next one may begin.
    pub(super) fn pause_after(&self, events: usize, took: Duration) -> Duration {
        if !self.replaying {
            return Duration::ZERO;
        }
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        let throttled =
            self.throttle.map_or(Duration::ZERO, |a_second| Duration::from_secs(1) * events / a_second.max(1));
        let yielded = if self.yielding { took.saturating_mul(YIELD_TO_LIVE) } else { Duration::ZERO };
        throttled.max(yielded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_replay_is_held_back() {
        let second = Duration::from_secs(1);
        let throttled = Orders { replaying: true, throttle: Some(500), ..Orders::default() };
        assert_eq!(throttled.pause_after(1_000, second), 2 * second);
        let yielding = Orders { yielding: true, ..throttled.clone() };
        assert_eq!(yielding.pause_after(1_000, second), 5 * second);
        assert_eq!(Orders { replaying: false, ..yielding }.pause_after(1_000, second), Duration::ZERO);
    }
}
