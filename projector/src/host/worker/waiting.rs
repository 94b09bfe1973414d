//! What waits for somebody: events held for one that is missing, and dead letters that an operator wants tried again or given up.

use super::super::fold::Manner;
use super::{HostError, Worker};
use crate::apply::{Part, Partition};
use std::time::Duration;
use tokio::time::Instant;

/// How often operators' wishes for dead letters are looked for, while there are any.
const LETTERS_EVERY: Duration = Duration::from_secs(1);

impl Worker {
    /// Parks what has waited long enough for an event that didn't come.
    pub(super) async fn give_up(&mut self) -> Result<(), HostError> {
        self.land_all().await?;
        let now = Instant::now();
        let due = self.owned.iter().filter(|(_, owned)| owned.give_up_at.is_some_and(|at| at <= now));
        let due: Vec<_> = due.map(|(partition, _)| partition.clone()).collect();
        let parts = due.into_iter().map(|partition| {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.give_up_at = None;
            }
            let (partition, part) = self.part(partition, Vec::new());
            (partition, Part { give_up: true, ..part })
        });
        let parts = parts.collect();
        let folded = self.folding.fold(parts, Manner::default()).await?;
        self.settle(folded.finished, folded.saved).await
    }

    pub(super) fn has_letters(&self) -> bool {
        self.owned.values().any(|owned| owned.lane.has_parked())
    }

    /// Does what operators asked for dead letters of ours.
    pub(super) async fn look_at_letters(&mut self) -> Result<(), HostError> {
        self.next_letters = Instant::now() + LETTERS_EVERY;
        self.land_all().await?;
        let ours: Vec<_> =
            self.owned.iter().filter(|(_, owned)| owned.lane.has_parked()).map(|(p, _)| p.clone()).collect();
        for (partition, aggregate) in self.letters.asked(&ours).await? {
            // From here on nothing of before is read again: a letter that was passed over would be folded then.
            self.save_all().await?;
            self.retry_letters(partition, &aggregate).await?;
        }
        Ok(())
    }

    /// Folds an aggregate's dead letters, in order, until none is left or one still fails.
    async fn retry_letters(&mut self, partition: Partition, aggregate: &str) -> Result<(), HostError> {
        loop {
            let (mut letters, mut deliveries, notes) = self.letters.of(&partition, aggregate).await?;
            let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
            if letters.is_empty() {
                owned.lane.unpark(aggregate);
                let published = [(partition, owned.lane.published())];
                self.setup.publisher.publish(self.setup.generation.generation_id, &published);
                return Ok(());
            }
            deliveries.truncate(deliveries.iter().take_while(|delivery| owned.lane.covers(delivery)).count());
            letters.truncate(deliveries.len());
            if letters.is_empty() {
                // They will be, once they are read again; until then they stay asked for.
                return Ok(());
            }
            let fence = owned.fence;
            let part = Part { deliveries, letters: Some(notes), ..Part::default() };
            let finished = self.folding.fold(vec![(partition.clone(), part)], Manner::default()).await?.finished;
            let settled = finished.settled.first().map_or(0, |(_, settled)| *settled);
            let stop = finished.stops.first().map(|(_, stop)| stop);
            self.letters.settle(fence, &letters, settled, stop).await?;
            self.setup.stats.with(|s| s.applied += finished.applied.len() as u64);
            if stop.is_some() {
                return Ok(());
            }
        }
    }
}
