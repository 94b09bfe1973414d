//! Standing still at a barrier (see [`crate::control::Barrier`]): nothing beyond the place is folded. What is read beyond it is
//! kept, in order, and folded once the barrier is released. Retries of dead letters wait too, since they change documents.
//!
//! An owner says that it stands at the place only when everything up to it is written, visible and saved, for all of its
//! partitions at once.

use super::super::orders::Orders;
use super::{HostError, Item, Message, Worker};
use crate::apply::Partition;
use crate::control::{Arrival, Barrier, Ends, Phase};
use tokio::sync::watch;

/// Messages kept beyond the place; with more, nothing is read until the barrier is released.
pub(super) const HELD_BACK_MAX: usize = 20_000;

/// A barrier that holds us.
#[derive(Debug)]
pub(super) struct Standstill {
    barrier: Barrier,
    /// Whether we have said that we stand at the place.
    said: bool,
}

impl Standstill {
    fn ends(&self) -> Option<&Ends> {
        match &self.barrier.phase {
            Phase::Gathering => None,
            Phase::Set(ends) | Phase::Decided(ends) => Some(ends),
        }
    }
}

/// Ends when orders have changed; never once nobody gives any.
pub(super) async fn changed(orders: &mut watch::Receiver<Orders>) {
    if orders.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Worker {
    /// Follows the orders as they are now.
    pub(super) async fn ordered(&mut self) -> Result<(), HostError> {
        self.land_all().await?;
        let orders = self.setup.orders.borrow_and_update().clone();
        self.put_off().await?;
        self.documents = orders.documents.into();
        self.follow(orders.barrier, orders.seen).await
    }

    /// Looks for a barrier by itself, as a new owner must before it goes on.
    pub(super) async fn look_for_barrier(&mut self) -> Result<(), HostError> {
        let control = &self.setup.control;
        let (seen, barriers) = self.calls.control(|| Box::pin(control.barriers())).await?;
        let id = self.setup.generation.generation_id;
        let ours = barriers.into_iter().find(|barrier| barrier.generations.contains(&id));
        if ours.is_some() {
            // What was said before doesn't hold for partitions that are new.
            self.standstill = None;
        }
        // Boxed: what is held back may be taken here, which may lead here again.
        Box::pin(self.follow(ours, seen)).await
    }

    async fn follow(&mut self, barrier: Option<Barrier>, seen: i64) -> Result<(), HostError> {
        match (barrier, &self.standstill) {
            (Some(barrier), Some(standstill)) if standstill.barrier == barrier => Ok(()),
            // Older than what a new owner found by itself.
            (Some(barrier), Some(standstill)) if barrier.barrier_id < standstill.barrier.barrier_id => Ok(()),
            (Some(barrier), before) => {
                let said = before.as_ref().is_some_and(|b| b.said && b.barrier.barrier_id == barrier.barrier_id);
                self.standstill = Some(Standstill { barrier, said });
                tracing::debug!(generation = self.calls.generation, "held by a barrier");
                self.say_where().await?;
                self.again().await
            }
            (None, Some(standstill)) if seen >= standstill.barrier.barrier_id => {
                self.standstill = None;
                tracing::debug!(generation = self.calls.generation, held_back = self.held_back.len(), "released");
                self.again().await
            }
            (None, _) => Ok(()),
        }
    }

    /// Takes again what was held back; what still lies beyond the place is held back again.
    async fn again(&mut self) -> Result<(), HostError> {
        let mut held_back = std::mem::take(&mut self.held_back);
        while let Some(first) = held_back.pop_front() {
            Box::pin(self.take(first, &mut || held_back.pop_front())).await?;
        }
        Ok(())
    }

    /// Whether a message lies beyond the place where we stand still.
    pub(super) fn is_beyond(&self, message: &Message) -> bool {
        let Some(standstill) = &self.standstill else { return false };
        let Some(owned) = self.owned.get(&message.partition).filter(|owned| owned.stopped.is_none()) else {
            return false;
        };
        let here = owned.lane.progress().next_offset;
        message.offset >= standstill.ends().map_or(here, |ends| ends.get(&message.partition).copied().unwrap_or(here))
    }

    pub(super) fn forget_held_back(&mut self, partition: &Partition) {
        self.held_back.retain(|item| !matches!(item, Item::Message(message) if message.partition == *partition));
    }

    /// Says how far our partitions are, while the place is sought.
    async fn say_where(&mut self) -> Result<(), HostError> {
        let Some(standstill) = self.standstill.as_ref().filter(|s| s.barrier.phase == Phase::Gathering) else {
            return Ok(());
        };
        let id = standstill.barrier.barrier_id;
        self.say(id, false).await
    }

    /// Says that we stand at the place, once all of our partitions do.
    pub(super) async fn arrive(&mut self) -> Result<(), HostError> {
        let Some(standstill) = self.standstill.as_ref().filter(|standstill| !standstill.said) else { return Ok(()) };
        let Some(ends) = standstill.ends().filter(|_| self.flights.is_empty()) else { return Ok(()) };
        let stands = |(partition, owned): (&Partition, &super::Owned)| {
            !owned.lane.is_holding() && ends.get(partition) == Some(&owned.lane.progress().next_offset)
        };
        if !self.owned.iter().all(stands) {
            return Ok(());
        }
        let id = standstill.barrier.barrier_id;
        self.save_all().await?;
        if self.setup.sink.needs_refresh() {
            self.calls.store(|sink| Box::pin(async move { sink.refresh().await })).await?;
        }
        if let Some(standstill) = &mut self.standstill {
            standstill.said = true;
        }
        self.say(id, true).await
    }

    async fn say(&self, barrier_id: i64, arrived: bool) -> Result<(), HostError> {
        let arrival = |(partition, owned): (&Partition, &super::Owned)| Arrival {
            partition: partition.clone(),
            fence: owned.fence,
            position: owned.lane.progress().next_offset,
            arrived,
        };
        let arrivals: Vec<_> = self.owned.iter().map(arrival).collect();
        if arrivals.is_empty() {
            return Ok(());
        }
        let (control, id) = (&self.setup.control, self.setup.generation.generation_id);
        match control.arrive(barrier_id, id, &arrivals).await {
            Ok(()) => Ok(()),
            // Then the barrier's time runs out, and it is tried again.
            Err(error) => {
                tracing::warn!(generation = self.calls.generation, %error, "not said at the barrier");
                Ok(())
            }
        }
    }
}
