//! Who owns a partition. Kafka's group decides who reads it, but a former owner may not know yet that it is one; what must
//! not be done twice asks for the owner's **fence**, a number that grows with every owner.
//!
//! The check and the change share a transaction: the check locks the partition's row `for share`, so a new owner's claim
//! waits until the old owner's change is there for it to see, and any change after the claim is refused.

use super::{Control, ControlError};
use crate::apply::Partition;
use sqlx::{Postgres, Transaction};
use std::collections::HashMap;

impl Control {
    /// Makes the caller the owner of these partitions: gives each a fence greater than any before, in the order given.
    ///
    /// Fences are at least the time in milliseconds: read stores keep them too, and must not take a control store that was
    /// restored from a backup for an earlier owner.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn claim(&self, generation_id: i64, partitions: &[Partition]) -> Result<Vec<i64>, ControlError> {
        let (topics, numbers) = columns(partitions);
        let mut tx = self.durable().await?;
        // Sorted, so that two hosts that claim at once don't wait for each other.
        let rows: Vec<(String, i32, i64)> = sqlx::query_as(
            "insert into partition_owner (generation_id, topic, partition, fence)
             select distinct $1::bigint, topic, partition, (extract(epoch from clock_timestamp()) * 1000)::bigint
                 from unnest($2::text[], $3::int[]) as mine (topic, partition) order by topic, partition
             on conflict (generation_id, topic, partition) do update
                 set fence = greatest(excluded.fence, partition_owner.fence + 1), claimed_at = now()
             returning topic, partition, fence",
        )
        .bind(generation_id)
        .bind(topics)
        .bind(numbers)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        let fences: HashMap<_, _> =
            rows.into_iter().map(|(topic, number, fence)| (Partition { topic: topic.into(), number }, fence)).collect();
        partitions.iter().map(|p| fences.get(p).copied().ok_or_else(|| sqlx::Error::RowNotFound.into())).collect()
    }
}

/// Refuses whoever isn't the partition's owner, and keeps it from changing hands until the transaction ends.
pub(super) async fn check(
    tx: &mut Transaction<'_, Postgres>,
    fence: i64,
    generation_id: i64,
    partition: &Partition,
) -> Result<(), ControlError> {
    let newest: Option<i64> = sqlx::query_scalar(
        "select fence from partition_owner where generation_id = $1 and topic = $2 and partition = $3 for share",
    )
    .bind(generation_id)
    .bind(&*partition.topic)
    .bind(partition.number)
    .fetch_optional(&mut **tx)
    .await?;
    match newest {
        Some(newest) if newest == fence => Ok(()),
        _ => Err(ControlError::Fenced { partition: partition.clone(), fence }),
    }
}

/// Partitions as the two arrays that `unnest` takes.
pub(super) fn columns(partitions: &[Partition]) -> (Vec<String>, Vec<i32>) {
    partitions.iter().map(|p| (p.topic.to_string(), p.number)).unzip()
}
