//! A circuit breaker: what failed several times in a row is left alone for a while, then tried by one caller alone.
//!
//! Without it, each request that a slow server can't answer would hold a connection until its time limit, and a read side under load would
//! keep that server from recovering.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 5;
/// How long it stays open before one caller tries.
const OPEN_FOR: Duration = Duration::from_secs(5);

/// Why there was no call, or no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It failed several times in a row, a moment ago.
    #[error("it failed {FAILURES_MAX} times in a row; it is tried again soon")]
    Open,
    /// As many as are let in are calling.
    #[error("as many as are let in at a time are asking it")]
    Full,
    /// It was called, in vain.
    #[error("{0}")]
    Failed(String),
}

/// Guards one server.
#[derive(Clone)]
pub(crate) struct Breaker {
    state: Arc<Mutex<State>>,
    permits: Arc<Semaphore>,
    time_max: Duration,
    open_for: Duration,
}

#[derive(Default)]
struct State {
    failures: u32,
    /// Since when it is left alone, or was last tried.
    opened: Option<Instant>,
}

impl Breaker {
    /// Lets `calls_max` in at a time, each for `time_max`.
    pub(crate) fn new(calls_max: usize, time_max: Duration) -> Self {
        Self { state: Arc::default(), permits: Arc::new(Semaphore::new(calls_max)), time_max, open_for: OPEN_FOR }
    }

    /// Calls, unless that is pointless now.
    pub(crate) async fn call<T>(&self, work: impl Future<Output = Result<T, String>>) -> Result<T, Refused> {
        self.admit()?;
        // What woke many at once is a short crowd; who finds a long one is turned away.
        let permit = timeout(self.time_max / 2, self.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(Refused::Full) };
        let result = timeout(self.time_max, work).await;
        let result = result.unwrap_or_else(|_| Err(format!("no answer within {} ms", self.time_max.as_millis())));
        self.note(result.is_ok());
        result.map_err(Refused::Failed)
    }

    fn admit(&self) -> Result<(), Refused> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.opened {
            Some(at) if at.elapsed() < self.open_for => Err(Refused::Open),
            // This caller tries; others wait for what becomes of it.
            Some(_) => {
                state.opened = Some(Instant::now());
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn note(&self, succeeded: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if succeeded {
            *state = State::default();
            return;
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES_MAX {
            state.opened = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::sleep;

    #[tokio::test]
    async fn what_fails_again_and_again_is_left_alone_then_tried_once() {
        let open_for = Duration::from_millis(200);
        let breaker = Breaker { open_for, ..Breaker::new(8, Duration::from_millis(300)) };
        let calls = AtomicUsize::new(0);
        let (breaker, calls) = (&breaker, &calls);
        let call = |works: bool| {
            breaker.call(async move {
                calls.fetch_add(1, Ordering::SeqCst);
                if works { Ok(7) } else { Err("down".to_owned()) }
            })
        };
        for _ in 0..FAILURES_MAX {
            assert_eq!(call(false).await, Err(Refused::Failed("down".to_owned())));
        }
        assert_eq!(call(true).await, Err(Refused::Open));
        assert_eq!(calls.load(Ordering::SeqCst), 5, "nobody asked it");
        sleep(open_for).await;
        assert_eq!(call(false).await, Err(Refused::Failed("down".to_owned())), "one tries");
        assert_eq!(call(true).await, Err(Refused::Open));
        sleep(open_for).await;
        assert_eq!(call(true).await, Ok(7));
        assert_eq!(call(true).await, Ok(7), "closed again");
    }

    #[tokio::test]
    async fn slow_is_a_failure_and_a_crowd_is_turned_away() {
        let breaker = Breaker::new(1, Duration::from_millis(50));
        let slow = || async {
            sleep(Duration::from_secs(60)).await;
            Ok(())
        };
        let (first, second) = tokio::join!(breaker.call(slow()), breaker.call(slow()));
        assert_eq!(first, Err(Refused::Failed("no answer within 50 ms".to_owned())));
        assert_eq!(second, Err(Refused::Full));
    }
}
