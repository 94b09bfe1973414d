//! What readers have seen, so that an answer can be compared with those before it.
//!
//! Requests overlap, so only an answer to a question that was asked after another answer had come must not be older than that one:
//! what was known is noted when a request leaves.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::client::Trace;

/// An order is looked at by others when it is as old as this: until then it may be on its way.
const OLD_ENOUGH: Duration = Duration::from_secs(1);

/// An order that was placed in this run.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) order_id: String,
    pub(super) sequence: i64,
    pub(super) token: String,
    /// When that was answered.
    pub(super) at: Instant,
    /// Where its client keeps the trace.
    pub(super) trace: Option<Trace>,
}

/// Shared by all readers.
#[derive(Debug, Default)]
pub(super) struct Seen {
    placed: Mutex<Vec<Placed>>,
    /// The latest of them.
    latest: watch::Sender<Option<Placed>>,
    /// The highest version of a document that was answered, by query and id.
    versions: Mutex<HashMap<(&'static str, String), i64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// Takes note of an order that was accepted.
    pub(super) fn placed(&self, order_id: &str, sequence: i64, token: &str, trace: Option<Trace>) {
        let (order_id, token) = (order_id.to_owned(), token.to_owned());
        let placed = Placed { order_id, sequence, token, at: Instant::now(), trace };
        lock(&self.placed).push(placed.clone());
        self.latest.send_replace(Some(placed));
    }

    /// The next one, once it was accepted.
    pub(super) async fn next_placed(&self) -> Placed {
        let mut latest = self.latest.subscribe();
        loop {
            // `self` has the sender, so there always is one.
            if latest.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(placed) = latest.borrow_and_update().clone() {
                return placed;
            }
        }
    }

    /// The one that was placed last.
    pub(super) fn latest(&self) -> Option<Placed> {
        self.latest.borrow().clone()
    }

    /// One of those that anybody may see by now; `choose` picks a number below the one it is given.
    pub(super) fn settled(&self, choose: impl FnOnce(u64) -> u64) -> Option<String> {
        let placed = lock(&self.placed);
        let settled = placed.partition_point(|order| order.at.elapsed() >= OLD_ENOUGH);
        if settled == 0 {
            None
        } else {
            placed.get(choose(settled as u64) as usize).map(|order| order.order_id.clone())
        }
    }

    /// The version that a later answer must not be below.
    pub(super) fn known(&self, query: &'static str, id: &str) -> i64 {
        lock(&self.versions).get(&(query, id.to_owned())).copied().unwrap_or(0)
    }

    /// Compares an answer with what was `known` when it was asked for.
    pub(super) fn answered(&self, query: &'static str, id: &str, known: i64, version: i64) -> Result<(), String> {
        if version < known {
            return Err(format!("{query}: {id} went back from {known} to {version}"));
        }
        let mut versions = lock(&self.versions);
        let highest = versions.entry((query, id.to_owned())).or_default();
        *highest = version.max(*highest);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_be_older_than_one_that_came_meanwhile_but_not_than_one_before() {
        let seen = Seen::default();
        let (slow, fast) = (seen.known("order", "o"), seen.known("order", "o"));
        seen.answered("order", "o", fast, 7).unwrap();
        seen.answered("order", "o", slow, 6).unwrap();
        let later = seen.known("order", "o");
        assert_eq!(later, 7);
        assert!(seen.answered("order", "o", later, 6).unwrap_err().contains("went back from 7 to 6"));
        seen.answered("details", "o", seen.known("details", "o"), 1).unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_the_next_order_is_not_given_the_last() {
        let seen = Seen::default();
        seen.placed("last", 1, "t", None);
        let mut next = Box::pin(seen.next_placed());
        assert!(futures::poll!(&mut next).is_pending());
        seen.placed("next", 1, "t", None);
        assert_eq!(next.await.order_id, "next");
    }

    #[test]
    fn an_order_that_was_just_placed_is_only_its_own_clients() {
        let seen = Seen::default();
        seen.placed("o", 1, "t", None);
        assert!(seen.settled(|n| n - 1).is_none());
        assert_eq!(seen.latest().unwrap().order_id, "o");
        let before = Instant::now().checked_sub(OLD_ENOUGH).unwrap();
        lock(&seen.placed)[0].at = before;
        assert_eq!(seen.settled(|n| n - 1).unwrap(), "o");
    }
}
