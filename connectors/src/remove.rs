//! `connectors remove`: Connect forgets the connector, but Postgres keeps its slot, and with it the WAL.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;

use crate::slot::{self, Slot};

/// Waits until nobody streams from the slot; a slot in use can't be dropped. `None` if there is none.
///
/// # Errors
/// A query fails.
pub async fn wait_inactive(
    database: &mut PgConnection,
    name: &str,
    limit: Duration,
) -> Result<Option<Slot>, sqlx::Error> {
    let deadline = Instant::now() + limit;
    loop {
        let state = slot::state(database, name).await?;
        if Instant::now() >= deadline || !state.is_some_and(|slot| slot.active) {
            return Ok(state);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What it means to leave a slot behind.
#[must_use]
pub fn explain_kept(name: &str, slot: Slot) -> String {
    let mebibytes = slot.held_bytes / (1024 * 1024);
    format!(
        "slot {name} is kept, and Postgres keeps all WAL for it ({mebibytes} MiB now, growing) up to \
         max_slot_wal_keep_size. A connector applied later goes on where this one stopped, and loses nothing. If none \
         will come, drop it: connectors remove --drop-slot"
    )
}

/// What it means to drop it.
#[must_use]
pub fn explain_drop(name: &str) -> String {
    format!(
        "without slot {name} events written from now on do not reach Kafka, not even by a connector applied later: \
         they have to be sent again from the event store"
    )
}
