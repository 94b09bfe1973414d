//! The one retry policy: back off from 100 ms to 2 s, with jitter, for as long as a store is away.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// Pauses between tries.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The pause before the next try: doubled each time up to the longest, a random half of it added or not, so that many
    /// hosts don't return at the same moment.
    pub fn next_pause(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.tries.min(6)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        let jitter = f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 510.0;
        pause.mul_f64(0.5 + jitter)
    }

    /// How often it was tried.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..40).map(|_| backoff.next_pause()).collect();
        assert!(pauses[0] <= FIRST && pauses[39] <= LONGEST && pauses[39] >= LONGEST / 2);
    }
}
