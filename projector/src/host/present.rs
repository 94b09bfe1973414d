//! What a generation is doing right now, as its host reports it every second: what it waits for, how old the oldest event is
//! that readers don't see, how fast it goes.

use crate::apply::Partition;
use crate::control::{Position, Present, Stopped, Waiting};
use chrono::{DateTime, Utc};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// What a rate is taken over.
const RATE_OVER: Duration = Duration::from_secs(10);
/// What the part of messages that failed is taken over.
const ERRORS_OVER: Duration = Duration::from_secs(60);

/// What its projection promises, and where it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// From the event to readers: above it the read model is late.
    pub lag_max: Duration,
    /// Above it that is critical.
    pub lag_critical: Duration,
    /// The store's name.
    pub store: &'static str,
}

/// A call that hasn't been answered for good yet.
#[derive(Debug)]
struct Call {
    number: u64,
    on: &'static str,
    since: DateTime<Utc>,
    error: Option<String>,
}

/// How far everything was at a moment.
#[derive(Debug)]
struct Sample {
    at: Instant,
    /// Next and end of each partition.
    places: HashMap<Partition, (i64, i64)>,
    handled: u64,
    failed: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Doing {
    /// When the oldest event of the batch in hand happened.
    pub(super) in_hand: Option<DateTime<Utc>>,
    /// Of those that are written, and that a refresh will make visible.
    pub(super) unrefreshed: Option<DateTime<Utc>>,
    pub(super) last_applied: Option<DateTime<Utc>>,
    pub(super) stopped: Option<Stopped>,
    calls: Vec<Call>,
    calls_made: u64,
    idle_since: Option<DateTime<Utc>>,
    late_since: Option<DateTime<Utc>>,
    samples: VecDeque<Sample>,
}

/// What is counted elsewhere.
pub(super) struct Counted<'a> {
    pub(super) next: &'a HashMap<Partition, i64>,
    pub(super) ends: &'a HashMap<Partition, i64>,
    pub(super) handled: u64,
    pub(super) failed: u64,
    pub(super) lately: Duration,
}

impl Doing {
    pub(super) fn begin_call(&mut self, on: &'static str) -> u64 {
        self.calls_made += 1;
        self.calls.push(Call { number: self.calls_made, on, since: Utc::now(), error: None });
        self.calls_made
    }

    pub(super) fn call_failed(&mut self, number: u64, error: &str) {
        if let Some(call) = self.calls.iter_mut().find(|call| call.number == number) {
            call.error = Some(error.to_owned());
        }
    }

    pub(super) fn end_call(&mut self, number: u64) {
        self.calls.retain(|call| call.number != number);
    }

    /// A partition stands still, or none does.
    pub(super) fn stands(&mut self, reason: Option<&str>) {
        self.stopped = reason.map(|reason| match self.stopped.take() {
            Some(stopped) if stopped.reason == reason => stopped,
            _ => Stopped { since: Utc::now(), reason: reason.to_owned() },
        });
    }

    /// What it waits for now: a call that failed and is tried again, or one that takes longer than that store ever does.
    pub(super) fn waiting(&self, now: DateTime<Utc>) -> Option<Waiting> {
        let is_away = |call: &&Call| {
            call.error.is_some() || (now - call.since).to_std().is_ok_and(|taken| taken > patience(call.on))
        };
        let first = self.calls.iter().filter(is_away).min_by_key(|call| call.since)?;
        Some(Waiting { on: first.on.to_owned(), since: first.since, error: first.error.clone() })
    }

    /// How old the oldest event is that was read and that readers don't see.
    pub(super) fn oldest_unseen(&self) -> Option<DateTime<Utc>> {
        self.in_hand.into_iter().chain(self.unrefreshed).min()
    }

    /// As it is reported. Called once a second.
    pub(super) fn present(&mut self, counted: &Counted<'_>, promise: Promise, now: DateTime<Utc>) -> Present {
        let oldest_unseen = self.oldest_unseen();
        let places: HashMap<_, _> =
            counted.next.iter().map(|(p, next)| (p.clone(), (*next, end(counted, p)))).collect();
        let behind = places.values().any(|(next, end)| end > next);
        let keep = |since: &mut Option<DateTime<Utc>>, holds: bool| {
            *since = if holds { Some(since.unwrap_or(now)) } else { None };
        };
        // Between two batches nothing is in hand either, but then it gets on.
        let stands = self.samples.back().is_some_and(|last| last.handled == counted.handled);
        keep(&mut self.idle_since, behind && oldest_unseen.is_none() && stands);
        let age = |at: DateTime<Utc>| (now - at).to_std().unwrap_or_default();
        let oldest = oldest_unseen.into_iter().chain(self.idle_since).min();
        let lag = oldest.map_or(Duration::ZERO, age).max(counted.lately);
        keep(&mut self.late_since, lag > promise.lag_max);
        let mut positions: Vec<_> = places
            .iter()
            .map(|(partition, (next, end))| Position {
                topic: partition.topic.to_string(),
                partition: partition.number,
                next_offset: *next,
                behind: (end - next).max(0),
            })
            .collect();
        positions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        let sample = Sample { at: Instant::now(), places, handled: counted.handled, failed: counted.failed };
        let (handled_per_s, published_per_s) = self.rates(&sample);
        let error_rate = self.error_rate(&sample);
        self.remember(sample);
        Present {
            oldest_unseen,
            idle_since: self.idle_since,
            lag_ms: millis(counted.lately),
            late_since: self.late_since,
            last_applied: self.last_applied,
            waiting: self.waiting(now),
            stopped: self.stopped.clone(),
            handled_per_s,
            published_per_s,
            error_rate,
            lag_ms_max: Some(millis(promise.lag_max)),
            lag_ms_critical: Some(millis(promise.lag_critical)),
            store: Some(promise.store.to_owned()),
            positions,
        }
    }

    /// Messages handled and published a second, of the partitions that were ours all the while.
    fn rates(&self, new: &Sample) -> (f64, f64) {
        let Some(old) = self.samples.iter().find(|s| new.at - s.at <= RATE_OVER) else { return (0.0, 0.0) };
        let (mut handled, mut published) = (0, 0);
        for (partition, (next, end)) in &new.places {
            if let Some((next_then, end_then)) = old.places.get(partition) {
                handled += (next - next_then).max(0);
                published += (end - end_then).max(0);
            }
        }
        let seconds = (new.at - old.at).as_secs_f64().max(0.001);
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let rate = |n: i64| n as f64 / seconds;
        (rate(handled), rate(published))
    }

    fn error_rate(&self, new: &Sample) -> f64 {
        let Some(old) = self.samples.front() else { return 0.0 };
        let (failed, handled) = (new.failed - old.failed, new.handled - old.handled);
        #[allow(clippy::cast_precision_loss, reason = "a part")]
        let part = failed as f64 / handled.max(failed).max(1) as f64;
        part
    }

    fn remember(&mut self, sample: Sample) {
        let at = sample.at;
        // Beyond the rates' time only the counts matter.
        for old in self.samples.iter_mut().filter(|old| at - old.at > RATE_OVER) {
            old.places = HashMap::new();
        }
        self.samples.push_back(sample);
        while self.samples.front().is_some_and(|old| at - old.at > ERRORS_OVER) {
            self.samples.pop_front();
        }
    }
}

fn end(counted: &Counted<'_>, partition: &Partition) -> i64 {
    let next = counted.next.get(partition).copied().unwrap_or_default();
    counted.ends.get(partition).copied().unwrap_or(next).max(next)
}

/// Redis answers at once or not at all; others have large writes.
fn patience(on: &str) -> Duration {
    if on == "redis" { Duration::from_millis(1_500) } else { Duration::from_secs(5) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    const PROMISE: Promise =
        Promise { lag_max: Duration::from_secs(1), lag_critical: Duration::from_secs(60), store: "redis" };

    fn partition() -> Partition {
        Partition { topic: "t".into(), number: 0 }
    }

    fn present(doing: &mut Doing, next: i64, end: i64, now: DateTime<Utc>) -> Present {
        let (next, ends) = (HashMap::from([(partition(), next)]), HashMap::from([(partition(), end)]));
        let counted = Counted { next: &next, ends: &ends, handled: 1_000, failed: 0, lately: Duration::ZERO };
        doing.present(&counted, PROMISE, now)
    }

    #[test]
    fn a_call_that_fails_or_hangs_is_what_is_waited_for() {
        let (mut doing, now) = (Doing::default(), Utc::now());
        let call = doing.begin_call("redis");
        assert_eq!(doing.waiting(now), None, "it has just begun");
        assert!(doing.waiting(now + TimeDelta::seconds(2)).is_some_and(|w| w.error.is_none()), "it hangs");
        doing.call_failed(call, "refused");
        let waiting = doing.waiting(now).map(|w| (w.on, w.error));
        assert_eq!(waiting, Some(("redis".to_owned(), Some("refused".to_owned()))));
        doing.end_call(call);
        assert_eq!(doing.waiting(now + TimeDelta::seconds(9)), None);
        doing.begin_call("clickhouse");
        assert_eq!(doing.waiting(Utc::now() + TimeDelta::seconds(2)), None, "a large write");
    }

    #[test]
    fn what_waits_in_kafka_with_nothing_in_hand_counts_from_when_that_began() {
        let (mut doing, now) = (Doing::default(), Utc::now());
        let later = |s| now + TimeDelta::seconds(s);
        assert_eq!(present(&mut doing, 5, 5, now).idle_since, None);
        assert_eq!(present(&mut doing, 5, 9, later(1)).idle_since, Some(later(1)));
        let still = present(&mut doing, 5, 9, later(3));
        assert_eq!((still.idle_since, still.late_since), (Some(later(1)), Some(later(3))));
        doing.in_hand = Some(later(2));
        let now = present(&mut doing, 5, 9, later(5));
        assert_eq!((now.idle_since, now.oldest_unseen, now.late_since), (None, Some(later(2)), Some(later(3))));
        doing.in_hand = None;
        let done = present(&mut doing, 9, 9, later(6));
        assert_eq!((done.oldest_unseen, done.late_since), (None, None));
        assert_eq!(done.positions, [Position { topic: "t".into(), partition: 0, next_offset: 9, behind: 0 }]);
    }

    #[test]
    fn rates_are_of_partitions_that_were_ours_all_the_while() {
        let (mut doing, now) = (Doing::default(), Utc::now());
        present(&mut doing, 0, 0, now);
        std::thread::sleep(Duration::from_millis(50));
        let first = present(&mut doing, 100, 200, now);
        assert!(first.handled_per_s > 100.0 && first.published_per_s > first.handled_per_s, "{first:?}");
        let other = HashMap::from([(Partition { topic: "t".into(), number: 1 }, 7_000)]);
        let counted = Counted { next: &other, ends: &other, handled: 2_000, failed: 2, lately: Duration::ZERO };
        let second = doing.present(&counted, PROMISE, now);
        assert_eq!((second.handled_per_s, second.published_per_s), (0.0, 0.0));
        assert!((second.error_rate - 0.002).abs() < 1e-9, "{}", second.error_rate);
    }

    #[test]
    fn a_partition_stands_still_since_it_began_to() {
        let mut doing = Doing::default();
        doing.stands(Some("t/0 stopped at 3"));
        let since = doing.stopped.as_ref().map(|s| s.since);
        doing.stands(Some("t/0 stopped at 3"));
        assert_eq!(doing.stopped.as_ref().map(|s| s.since), since);
        doing.stands(None);
        assert_eq!(doing.stopped, None);
    }
}
