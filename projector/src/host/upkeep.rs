//! Upkeep of a generation's place, beside its owner: whatever it does changes nothing that readers see, so it needs no order.

use super::stats::Stats;
use crate::sink::Sink;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

const EVERY: Duration = Duration::from_secs(10);

/// The task; it ends when this is dropped.
pub(super) struct Upkeep(JoinHandle<()>);

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Upkeep {
    /// Begins once this host has partitions: by then the place is prepared. A host that stands by leaves it to the others.
    pub(super) fn start(generation: String, sink: Arc<dyn Sink>, stats: Arc<Stats>) -> Self {
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                if stats.positions().is_empty() {
                    continue;
                }
                if let Err(error) = sink.upkeep().await {
                    // The owner says it louder if the store is away; nothing is lost by doing this later.
                    tracing::debug!(generation, %error, "upkeep not done; trying again later");
                }
            }
        }))
    }
}
