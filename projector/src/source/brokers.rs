//! Brokers that a client has forgotten.
//!
//! librdkafka (since 2.10; seen with 2.12.1) drops every broker that metadata doesn't list, also those it was configured with. A
//! cluster of one lists none while its broker is fenced, that is once it stood still for longer than `broker.session.timeout.ms`.
//! A client that asks just then has nobody left to ask, for ever, and can't even be closed. Told of its brokers anew, it goes on.

use rdkafka::bindings::rd_kafka_brokers_add;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::statistics::Broker;
use std::ffi::CString;
use std::sync::atomic::{AtomicU32, Ordering};

/// After how many statistics in a row without a connected broker, one a second, a client is told of its brokers.
const TOLD_AFTER: u32 = 3;
/// And after how many again: an outage may last, and the client keeps each list that it is told.
const TOLD_AGAIN_EVERY: u32 = 60;

/// Counts statistics without a connected broker.
#[derive(Debug, Default)]
pub(super) struct Unconnected {
    in_a_row: AtomicU32,
    told: AtomicU32,
}

impl Unconnected {
    /// Takes what one of the statistics says, a second after the one before.
    pub(super) fn note<'a>(&self, mut brokers: impl Iterator<Item = &'a Broker>) {
        if brokers.any(|broker| matches!(broker.state.as_str(), "UP" | "UPDATE")) {
            self.in_a_row.store(0, Ordering::Relaxed);
        } else {
            self.in_a_row.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the client is to be told now; said once each time.
    pub(super) fn is_due(&self) -> bool {
        let in_a_row = self.in_a_row.load(Ordering::Relaxed);
        let is_due = in_a_row == TOLD_AFTER || (in_a_row > 0 && in_a_row.is_multiple_of(TOLD_AGAIN_EVERY));
        self.told.swap(in_a_row, Ordering::Relaxed) != in_a_row && is_due
    }
}

/// Tells a client of its brokers (`bootstrap.servers`), which it may have forgotten.
#[allow(unsafe_code, reason = "the crate rdkafka has no safe function for it")]
pub(super) fn tell<C: ConsumerContext>(consumer: &BaseConsumer<C>, brokers: &str) {
    // Without a NUL: the client was configured with them.
    let Ok(list) = CString::new(brokers) else { return };
    // SAFETY: `consumer` keeps the client alive, the list ends with a NUL and is copied, and the function may be called on any thread.
    let known = unsafe { rd_kafka_brokers_add(consumer.client().native_ptr(), list.as_ptr()) };
    tracing::warn!(brokers, known, "no broker is connected; told the client of them again");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(state: &str) -> Broker {
        Broker { state: state.to_owned(), ..Broker::default() }
    }

    #[test]
    fn a_client_is_told_once_after_three_seconds_and_once_a_minute_after() {
        let unconnected = Unconnected::default();
        let due = |states: &[&str]| {
            let brokers: Vec<_> = states.iter().map(|state| broker(state)).collect();
            unconnected.note(brokers.iter());
            [unconnected.is_due(), unconnected.is_due()]
        };
        assert_eq!(due(&["UP", "INIT"]), [false, false]);
        let told = |n: u32| (1..=n).filter(|_| due(&["INIT", "DOWN"]) == [true, false]).collect::<Vec<_>>();
        assert_eq!(told(130), [3, 60, 120]);
        assert_eq!(due(&["DOWN", "UPDATE"]), [false, false]);
        assert_eq!(told(4), [3]);
        assert_eq!((due(&[]), due(&["APIVERSION_QUERY"])), ([false, false], [false, false]));
    }
}
