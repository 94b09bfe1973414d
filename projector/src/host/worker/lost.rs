//! Messages that Kafka has deleted before they were handled. Whoever went on would leave them out unseen, so a live read model stands
//! before them and says so, while all else on its host goes on; one that isn't live ends, and is paused with the reason.

use super::{HostError, STOPPED_RETRY, Stopped, Worker};
use crate::source::Message;
use tokio::time::Instant;

impl Worker {
    /// `next` should come, and `first` is the first that is there.
    pub(super) fn stand_before_lost(&mut self, next: i64, first: &Message) -> Result<(), HostError> {
        let (partition, last) = (first.partition.clone(), first.offset - 1);
        let reason = format!(
            "messages {next} to {last} were deleted before they were handled: the topic's retention is shorter than this read model was \
             behind; build it again from the event store, or refill the topic (`projector republish {}`), as docs/operations.md says",
            partition.topic
        );
        if !self.setup.orders.borrow().live {
            return Err(HostError::Lost { generation: self.calls.generation.clone(), partition, reason });
        }
        tracing::error!(generation = self.calls.generation, topic = %partition.topic, partition = partition.number, reason,
            "partition stopped");
        if let Some(owned) = self.owned.get_mut(&partition) {
            // A topic that was refilled meanwhile is told as at the start.
            owned.verify = true;
            let reason = format!("{}/{}: {reason}", partition.topic, partition.number);
            let retry_at = Instant::now() + STOPPED_RETRY[STOPPED_RETRY.len() - 1];
            owned.stopped = Some(Stopped { retry_at, rewinding: false, reason });
        }
        let standing = self.standing_error();
        self.setup.stats.with(|s| {
            s.errors += 1;
            s.doing.stands(standing.as_deref());
            s.last_error = standing;
        });
        Ok(())
    }
}
