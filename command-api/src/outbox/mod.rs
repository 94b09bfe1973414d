//! Stamping and pruning the outbox: only of what is surely published.
//!
//! A row is published once Kafka has it, and nobody tells Postgres. What can be seen from here is combined:
//!
//! 1. A **mark** is taken: a heartbeat row is written to the outbox. Its `tx_min` is X: every transaction below had ended
//!    when it was written. L is where the WAL ended after that.
//! 2. The slot's `confirmed_flush_lsn` reaches L: the connector says that all up to there has arrived. It says so only after
//!    Kafka has acknowledged.
//! 3. The mark's heartbeat, and every other one from before, is **read back from Kafka**: it is our connector that reads from
//!    this slot, and our Kafka that it writes to.
//! 4. The slot has **never jumped**: one that was dropped and made anew, or advanced by hand, confirms what nobody has
//!    read. It is recognised by a position or a count of decoded transactions that went back, or by another epoch.
//!
//! Then rows with `txid` < X are stamped with `published_at`, and deleted some time later. After a jump rows from before stay
//! for good: they may be missing in Kafka, and only an operator can know (`projector republish`, then `command-api
//! outbox accept`). The same holds for rows from before the first look, and, as Postgres forgets its counts when it crashes, for
//! the last seconds before a crash: keeping too much costs space, deleting too much would cost data, had `events` not all of it.
//!
//! Several services may do this at once: marks don't know of each other, and stamping twice changes nothing.

mod heartbeats;
mod publish;
mod watch;

pub use heartbeats::{Heartbeats, KafkaHeartbeats, TOPIC as HEARTBEATS};
pub use publish::{Mark, Published, mark, oldest_heartbeat_ms, settle};
pub use watch::{OutboxError, Status, Watch, accept, look, status};

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{Instant, sleep};

/// When and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The connector's.
    pub slot: String,
    /// Between two marks.
    pub every: Duration,
    /// For how long a stamped row is kept, to look at.
    pub kept: Duration,
}

/// How long a mark is waited for; after that the next one is taken.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Stamps and prunes until the process ends.
pub async fn tend(pool: PgPool, settings: Settings, mut heartbeats: impl Heartbeats) {
    loop {
        sleep(settings.every).await;
        match round(&pool, &settings, &mut heartbeats).await {
            Ok(Some(Published { stamped, pruned })) => tracing::debug!(stamped, pruned, "outbox"),
            Ok(None) => {
                tracing::warn!(slot = settings.slot, "the outbox is not stamped: the connector lags, or is not ours")
            }
            Err(error) => tracing::warn!(slot = settings.slot, %error, "the outbox is not stamped"),
        }
    }
}

/// One mark, from taking to pruning; `None` if it wasn't published in time.
async fn round(
    pool: &PgPool,
    settings: &Settings,
    heartbeats: &mut impl Heartbeats,
) -> Result<Option<Published>, OutboxError> {
    look(pool, &settings.slot).await?;
    let mark = mark(pool).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let settled = settle(pool, &settings.slot, &mark, heartbeats, settings.kept).await?;
        if settled.is_some() || Instant::now() >= deadline {
            return Ok(settled);
        }
        sleep(LOOK_EVERY).await;
    }
}
