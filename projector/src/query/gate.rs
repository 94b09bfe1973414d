//! The gate of a generation: lets reads in until it is closed, and tells when the last one is out.
//!
//! A swap holds both generations at the same place until every query service has said that it follows. So a read of the former
//! generation must have ended by then: afterwards that one may be ahead of the new one, and a caller who saw it could see an
//! older state next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: CancellationToken,
    reading: AtomicUsize,
    out: Notify,
}

/// A read that is under way.
#[must_use]
pub(crate) struct Reading(Arc<Gate>);

impl Gate {
    /// Lets a read in, unless the gate is closed.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Reading> {
        // Counted before it looks: who closes looks at the count afterwards.
        self.reading.fetch_add(1, Ordering::SeqCst);
        let reading = Reading(Arc::clone(self));
        (!self.closed.is_cancelled()).then_some(reading)
    }

    /// Ends once the gate is closed.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Ends once nobody reads. To be called after [`Gate::close`].
    pub(crate) async fn emptied(&self) {
        loop {
            let out = self.out.notified();
            tokio::pin!(out);
            out.as_mut().enable();
            if self.reading.load(Ordering::SeqCst) == 0 {
                return;
            }
            out.await;
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.0.reading.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.out.notify_waiters();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn it_is_empty_once_the_last_read_is_out() {
        let gate = Arc::new(Gate::default());
        let (one, two) = (gate.enter().unwrap(), gate.enter().unwrap());
        gate.close();
        assert!(gate.enter().is_none(), "closed");
        gate.closed().await;
        drop(one);
        assert!(timeout(Duration::from_millis(20), gate.emptied()).await.is_err());
        drop(two);
        timeout(Duration::from_secs(1), gate.emptied()).await.unwrap();
    }
}
