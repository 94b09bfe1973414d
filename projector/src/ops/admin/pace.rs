//! How fast rebuilds go, for who wants to know when they are ready.

use crate::generation::Status;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What counts as now.
const LATELY: Duration = Duration::from_secs(15);

/// How many events each rebuild had handled at the last looks.
#[derive(Default)]
pub(in crate::ops) struct Pace(Mutex<HashMap<i64, VecDeque<(Instant, i64)>>>);

impl Pace {
    /// Events a second of late, by rebuild; those that are over are forgotten.
    pub(in crate::ops) fn of(&self, rebuilds: &[Status]) -> BTreeMap<i64, f64> {
        let looks = rebuilds.iter().map(|status| (status.rebuild.rebuild_id, status.done));
        self.note(looks.collect(), Instant::now())
    }

    fn note(&self, looks: Vec<(i64, i64)>, now: Instant) -> BTreeMap<i64, f64> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|id, _| looks.iter().any(|(of, _)| of == id));
        let mut all = BTreeMap::new();
        for (id, done) in looks {
            let own = known.entry(id).or_default();
            own.push_back((now, done));
            while own.len() > 2 && own.front().is_some_and(|(at, _)| now - *at > LATELY) {
                own.pop_front();
            }
            if let Some((at, then)) = own.front().filter(|(at, _)| now > *at) {
                #[allow(clippy::cast_precision_loss, reason = "for people")]
                all.insert(id, (done - then).max(0) as f64 / (now - *at).as_secs_f64());
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_of_late_not_of_all_time() {
        let (pace, began) = (Pace::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(pace.note(vec![(1, 100)], at(0)).get(&1), None, "one look tells nothing");
        assert_eq!(pace.note(vec![(1, 300)], at(2)).get(&1), Some(&100.0));
        assert_eq!(pace.note(vec![(1, 300)], at(30)).get(&1), Some(&0.0), "it stands still");
        assert_eq!(pace.note(vec![(2, 5)], at(31)).get(&1), None, "it is over");
    }
}
