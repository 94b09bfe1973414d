//! Refreshes of an index, shared by those who wait at the same time.
//!
//! A search sees what was written before the last refresh began. Who must see a write therefore needs a refresh that **starts**
//! after it learned of the write. A waiter may join a refresh that others have asked for as long as it hasn't started; of two
//! refreshes, the second starts when the first has ended. So any number of waiters cost one refresh at a time.

use super::store::ReadError;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

type Outcome = Option<Result<(), ReadError>>;
type Work = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), ReadError>> + Send>> + Send + Sync>;

/// One index's refreshes.
#[derive(Clone)]
pub(crate) struct Refresher {
    work: Work,
    /// The refresh that hasn't started yet.
    next: Arc<Mutex<Option<watch::Receiver<Outcome>>>>,
    /// Held by the one that runs.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Refresher {
    pub(crate) fn new<F: Future<Output = Result<(), ReadError>> + Send + 'static>(
        work: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self { work: Arc::new(move || Box::pin(work())), next: Arc::default(), turn: Arc::default() }
    }

    /// Ends when a refresh that started after this call has ended.
    pub(crate) async fn refresh(&self) -> Result<(), ReadError> {
        let mut outcome = self.join();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(ReadError::Unavailable("the refresh was given up".into())),
        }
    }

    fn join(&self) -> watch::Receiver<Outcome> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = &*next {
            return waiting.clone();
        }
        let (sender, receiver) = watch::channel(None);
        *next = Some(receiver.clone());
        let this = self.clone();
        // A task of its own: the caller who asked first may go away while others have joined.
        tokio::spawn(async move {
            let _turn = this.turn.lock().await;
            // From here on it counts as started: who comes now asks for another.
            this.next.lock().unwrap_or_else(PoisonError::into_inner).take();
            sender.send_replace(Some((this.work)().await));
        });
        receiver
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::time::sleep;

    fn counted() -> (Refresher, Arc<AtomicUsize>) {
        let started = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&started);
        let work = move || {
            count.fetch_add(1, Ordering::SeqCst);
            async {
                sleep(Duration::from_millis(100)).await;
                Ok(())
            }
        };
        (Refresher::new(work), started)
    }

    #[tokio::test]
    async fn waiters_share_but_never_join_one_that_has_started() {
        let (refresher, started) = counted();
        let first = tokio::spawn({
            let refresher = refresher.clone();
            async move { refresher.refresh().await }
        });
        sleep(Duration::from_millis(50)).await;
        assert_eq!(started.load(Ordering::SeqCst), 1);
        let late = join_all((0..100).map(|_| refresher.refresh()));
        assert!(late.await.iter().all(Result::is_ok));
        assert_eq!(started.load(Ordering::SeqCst), 2, "one more for all who came while the first ran");
        assert!(first.is_finished());
    }

    #[tokio::test]
    async fn one_who_gives_up_does_not_take_the_refresh_from_others() {
        let (refresher, _) = counted();
        let mut impatient = Box::pin(refresher.refresh());
        assert!(futures::poll!(&mut impatient).is_pending());
        let mut patient = Box::pin(refresher.refresh());
        assert!(futures::poll!(&mut patient).is_pending());
        drop(impatient);
        assert_eq!(patient.await, Ok(()));
    }

    #[tokio::test]
    async fn a_failure_reaches_all_and_the_next_tries_again() {
        let down = || Err(ReadError::Unavailable("down".to_owned()));
        let refresher = Refresher::new(move || async move { down() });
        assert_eq!(refresher.refresh().await, down());
        assert_eq!(refresher.refresh().await, down());
    }
}
