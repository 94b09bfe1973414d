//! How a generation's queries went in the last seconds: what the rules of health after a swap are judged by.

use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::time::Duration;

/// Looks, a second apart, that are counted together.
const LOOKS: usize = 5;
/// Longer ones count as this.
const LONGEST_MS: u64 = 60_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    now: Second,
    before: VecDeque<Second>,
}

#[derive(Debug, Default)]
struct Second {
    answered: i64,
    failed: i64,
    /// Of queries that waited for nothing.
    took_ms: Option<Histogram<u64>>,
}

/// The last seconds together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) answered: i64,
    pub(crate) failed: i64,
    pub(crate) p99_ms: i64,
}

impl Tally {
    /// A query came to its end. `took`: none where it waited for a token.
    pub(crate) fn note(&mut self, failed: bool, took: Option<Duration>) {
        self.now.answered += 1;
        self.now.failed += i64::from(failed);
        let Some(took) = took else { return };
        if self.now.took_ms.is_none() {
            self.now.took_ms = Histogram::new_with_bounds(1, LONGEST_MS, 2).ok();
        }
        if let Some(histogram) = &mut self.now.took_ms {
            histogram.saturating_record(u64::try_from(took.as_millis()).unwrap_or(LONGEST_MS).max(1));
        }
    }

    /// A second is over: what the last ones come to.
    pub(crate) fn turn(&mut self) -> Sum {
        self.before.push_back(std::mem::take(&mut self.now));
        if self.before.len() > LOOKS {
            self.before.pop_front();
        }
        let mut all: Option<Histogram<u64>> = None;
        for histogram in self.before.iter().filter_map(|second| second.took_ms.as_ref()) {
            match &mut all {
                None => all = Some(histogram.clone()),
                // Of the same bounds.
                Some(all) => _ = all.add(histogram),
            }
        }
        Sum {
            answered: self.before.iter().map(|second| second.answered).sum(),
            failed: self.before.iter().map(|second| second.failed).sum(),
            p99_ms: all.map_or(0, |all| i64::try_from(all.value_at_quantile(0.99)).unwrap_or(i64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_of_the_last_seconds_only() {
        let mut tally = Tally::default();
        for n in 0..100 {
            tally.note(n % 10 == 0, (n % 2 == 0).then_some(Duration::from_millis(40)));
        }
        assert_eq!(tally.turn(), Sum { answered: 100, failed: 10, p99_ms: 40 });
        tally.note(false, Some(Duration::from_secs(100)));
        let sum = tally.turn();
        assert_eq!((sum.answered, sum.failed), (101, 10));
        for _ in 0..LOOKS - 2 {
            tally.turn();
        }
        let sum = tally.turn();
        assert_eq!((sum.answered, sum.failed), (1, 0));
        assert!((59_000..=61_000).contains(&sum.p99_ms), "{sum:?}");
        assert_eq!(tally.turn(), Sum::default());
    }
}
