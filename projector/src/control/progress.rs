//! The published copy of progress, and the waking of those who wait for it.

use super::{Control, ControlError};
use crate::apply::Progress;
use crate::sink::Partition;
use sqlx::types::Json;
use std::collections::BTreeMap;

/// The channel on which a generation's id is notified whenever its published progress moved.
pub const PROGRESS_CHANNEL: &str = "projector_progress";

/// Progress by partition.
pub type ProgressMap = BTreeMap<Partition, Progress>;

impl Control {
    /// Publishes what moved, and wakes whoever waits for these generations.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn publish_progress(&self, moved: &[(i64, Partition, Progress)]) -> Result<(), ControlError> {
        let generations: Vec<_> = moved.iter().map(|(id, ..)| *id).collect();
        let topics: Vec<_> = moved.iter().map(|(_, p, _)| p.topic.to_string()).collect();
        let partitions: Vec<_> = moved.iter().map(|(_, p, _)| p.number).collect();
        let progress: Vec<_> = moved.iter().map(|(.., p)| Json(p)).collect();
        sqlx::query(
            "with moved as (
                 insert into progress (generation_id, topic, partition, progress)
                 select * from unnest($1::bigint[], $2::text[], $3::int[], $4::jsonb[])
                 on conflict (generation_id, topic, partition) do update set progress = excluded.progress, updated_at = now()
                 returning generation_id)
             select pg_notify($5, generation_id::text) from (select distinct generation_id from moved) as each",
        )
        .bind(generations)
        .bind(topics)
        .bind(partitions)
        .bind(progress)
        .bind(PROGRESS_CHANNEL)
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// The published progress of a generation.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn progress(&self, generation_id: i64) -> Result<ProgressMap, ControlError> {
        let rows: Vec<(String, i32, Json<Progress>)> =
            sqlx::query_as("select topic, partition, progress from progress where generation_id = $1")
                .bind(generation_id)
                .fetch_all(self.pool())
                .await?;
        Ok(rows
            .into_iter()
            .map(|(topic, number, Json(progress))| (Partition { topic: topic.into(), number }, progress))
            .collect())
    }
}
