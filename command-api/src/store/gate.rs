//! Where commands of this process wait before they take a connection.
//!
//! A stream is kept from other writers by a lock in Postgres, and whoever waits there holds a connection: one busy account would soon
//! have them all, and every other command, the snapshots and the answers to refused commands would wait with it. So commands on one
//! stream queue here first, and only a few of them at a time go on: one that works, and the next one, which gets ready meanwhile.
//! The lock in Postgres is what counts, between processes and for what isn't known beforehand (the customer of an order that is
//! changed); this one only keeps the queue where waiting costs nothing. `tests/busy.rs` has the figures.
//!
//! A key that is under way is known here too, so that its retries are told at once rather than queued.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{CommandError, lock_key};

/// More queues than commands can be under way: two streams seldom share one, and if they do, they only wait for each other.
const QUEUES: usize = 1_024;
/// Connections that the commands on one stream may have.
const AT_ONCE: usize = 2;

#[derive(Debug)]
pub(super) struct Gate {
    queues: Vec<Semaphore>,
    keys: Arc<Mutex<HashSet<String>>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { queues: (0..QUEUES).map(|_| Semaphore::new(AT_ONCE)).collect(), keys: Arc::default() }
    }
}

impl Gate {
    /// Waits for its turn on all streams; taken in one order, so that two commands don't wait for each other.
    pub(super) async fn enter(&self, streams: &[String]) -> Vec<SemaphorePermit<'_>> {
        let count = QUEUES as u64;
        let queues: BTreeSet<u64> = streams.iter().map(|name| lock_key(name).cast_unsigned() % count).collect();
        let mut turns = Vec::with_capacity(queues.len());
        for queue in queues.into_iter().filter_map(|queue| self.queues.get(usize::try_from(queue).ok()?)) {
            // Never closed, so that there is always a permit in the end.
            turns.extend(queue.acquire().await.ok());
        }
        turns
    }

    /// Claims a key until the claim is dropped.
    ///
    /// # Errors
    /// [`CommandError::InFlight`].
    pub(super) fn claim(&self, key: &str) -> Result<Claim, CommandError> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.insert(key.to_owned()) {
            return Err(CommandError::InFlight);
        }
        Ok(Claim { keys: Arc::clone(&self.keys), key: key.to_owned() })
    }
}

/// A key that is under way in this process.
#[derive(Debug)]
pub(super) struct Claim {
    keys: Arc<Mutex<HashSet<String>>>,
    key: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn one_stream_is_entered_a_few_times_and_others_meanwhile() {
        let gate = Gate::default();
        let name = |n: &str| vec![n.to_owned()];
        // named twice, as by a transfer to itself
        let mut inside = vec![];
        for _ in 0..AT_ONCE {
            inside.push(gate.enter(&["a".to_owned(), "a".to_owned()]).await);
        }
        let soon = Duration::from_millis(20);
        assert!(timeout(soon, gate.enter(&name("a"))).await.is_err());
        assert!(timeout(soon, gate.enter(&name("b"))).await.is_ok());
        inside.pop();
        assert!(timeout(soon, gate.enter(&name("a"))).await.is_ok());
    }

    #[test]
    fn a_key_is_free_again_when_its_command_has_ended() {
        let gate = Gate::default();
        let claim = gate.claim("k").unwrap();
        assert!(matches!(gate.claim("k"), Err(CommandError::InFlight)));
        assert!(gate.claim("other").is_ok());
        drop(claim);
        assert!(gate.claim("k").is_ok());
    }
}
