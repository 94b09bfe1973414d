//! Batches under way: several at once where each document is made from one partition's events alone and the store takes several, so
//! that one is folded while the store answers for another. A partition is in one of them at most, which keeps its events in order; its
//! lane is away with the batch. Whoever needs the lanes lets all batches land first ([`Worker::land_all`]).

use super::super::HostError;
use super::super::fold::{Folded, Manner};
use super::super::traced::{self, Following};
use super::{Owned, READ_AT_ONCE, Worker};
use crate::apply::{Delivery, Part, Partition};
use crate::source::Message;
use chrono::{DateTime, Utc};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use tokio::task::{JoinError, JoinSet};

/// Events that are worth a batch of their own: with fewer, calls to the store cost more than waiting for it or for more events.
pub(super) const BATCH_MIN: usize = 250;

/// What the events of the batches under way may take in memory, for another one to be begun: where events are large, a batch's are few.
const UNDER_WAY_KIB: u32 = 16 * 1024;

/// Events that progress may remember where it is saved with each batch. More (a long transaction, and an outbox without
/// `tx_snapshot`) would make it dearer than what it goes with: it is saved now and then.
const REMEMBERED_MAX: usize = 1_000;

/// Messages, by partition, in order.
pub(super) type Messages = BTreeMap<Partition, Vec<Message>>;
/// The batches under way.
pub(super) type Flights = JoinSet<Result<Landed, HostError>>;

/// What is known of a partition while a batch has its lane.
#[derive(Debug)]
pub(super) struct Away {
    /// The offset behind the batch's last message.
    pub(super) next: i64,
    /// Events in it.
    events: usize,
    /// What they take in memory, as far as it is counted.
    kib: u32,
    /// When the oldest of them happened.
    oldest: Option<DateTime<Utc>>,
}

/// A batch that the store has answered for.
pub(super) struct Landed {
    folded: Folded,
    following: Following,
}

impl Worker {
    /// Messages that wait for a batch.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.values().map(Vec::len).sum()
    }

    /// How many more messages may wait for a batch, or be in one.
    pub(super) fn room(&self) -> usize {
        let (_, replaying) = self.setup.orders.borrow().phase();
        let away: usize = self.away().map(|away| away.events).sum();
        self.setup.cache_share.events(replaying).saturating_sub(self.waiting() + away)
    }

    fn away(&self) -> impl Iterator<Item = &Away> {
        self.owned.values().filter_map(|owned| owned.away.as_ref())
    }

    /// Whether more messages are wanted now: while batches are under way, only as many as are worth another one.
    pub(super) fn takes_more(&self) -> bool {
        let is_light = || self.away().map(|away| away.kib).sum::<u32>() < UNDER_WAY_KIB;
        self.flights.is_empty() || (self.room() >= BATCH_MIN && is_light() && self.more_than_a_few())
    }

    /// Whether so many messages are in the queue that they are worth a batch.
    pub(super) fn more_than_a_few(&self) -> bool {
        self.setup.source.queued().items >= BATCH_MIN || self.setup.source.is_full()
    }

    /// The offset of a partition's first message that isn't here yet.
    pub(super) fn next(&self, partition: &Partition) -> i64 {
        let waiting = self.waiting.get(partition).and_then(|messages| messages.last()).map(|last| last.offset + 1);
        waiting.unwrap_or_else(|| self.owned.get(partition).map_or(0, Owned::next))
    }

    /// Starts batches of what waits, as far as its partitions are here and another batch may be under way.
    pub(super) async fn start_what_may(&mut self) -> Result<(), HostError> {
        loop {
            let (room, max) = (self.beside - self.flights.len(), self.batch_max());
            let owned = &self.owned;
            let is_here = |partition: &Partition| owned.get(partition).is_none_or(|owned| owned.away.is_none());
            let messages = if room > 0 { first(&mut self.waiting, is_here, max) } else { Messages::new() };
            if messages.is_empty() {
                return Ok(());
            }
            for batch in apart(messages, room) {
                self.start(batch).await?;
            }
        }
    }

    /// How many events a batch may have.
    pub(super) fn batch_max(&self) -> usize {
        let compiled = &self.setup.reader.compiled;
        self.setup.orders.borrow().batch_max(compiled.projection.limits.batch_max.into(), compiled.kind)
    }

    async fn start(&mut self, batch: Messages) -> Result<(), HostError> {
        let (live, replaying) = self.setup.orders.borrow().phase();
        let (mut following, mut parts, mut size) = (Following::begin(live && !replaying), Vec::new(), 0);
        for (partition, messages) in batch {
            let mut deliveries = Vec::with_capacity(messages.len());
            let mut kib = 0;
            // A batch before it may have stopped the partition. What waits behind them says nothing of them.
            let next = self.owned.get(&partition).filter(|owned| owned.stopped.is_none()).map(Owned::next);
            let wanted = |message: &Message| next.is_some_and(|next| message.offset >= next);
            for message in messages.into_iter().filter(wanted) {
                kib += message.kib();
                let delivery = match message.event {
                    Some(event) => Delivery { offset: message.offset, raw: message.raw, event },
                    None => self.calls.read(message.offset, message.raw).await?,
                };
                following.note(&partition, &delivery, message.sent_ms);
                deliveries.push(delivery);
                // Reading a large batch takes a while; others are due.
                if deliveries.len() % READ_AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                }
            }
            let Some(last) = deliveries.last() else { continue };
            let happened =
                deliveries.iter().filter_map(|d| d.event.as_ref().ok().map(|event| event.envelope.occurred_at));
            let away = Away { next: last.offset + 1, events: deliveries.len(), kib, oldest: happened.min() };
            size += deliveries.len();
            parts.push(self.part(partition.clone(), deliveries));
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.away = Some(away);
            }
        }
        if parts.is_empty() {
            return Ok(());
        }
        self.note_in_hand();
        #[allow(clippy::cast_precision_loss, reason = "a batch's size")]
        self.setup.stats.measures.batch_events.observe(size as f64);
        let saves = self.calls.sink.has_transactions()
            && remembered(&parts) <= REMEMBERED_MAX
            && self.saver.leaves(parts.iter().map(|(partition, _)| partition));
        let (folding, manner) = (self.folding.clone(), Manner { large: replaying, saves });
        self.flights.spawn(async move { folding.fold(parts, manner).await.map(|folded| Landed { folded, following }) });
        Ok(())
    }

    /// A partition's share of a batch; its lane goes with it until the batch is settled.
    pub(super) fn part(&mut self, partition: Partition, deliveries: Vec<Delivery>) -> (Partition, Part) {
        let no_parking = self.parks_too_many();
        let lane = self.owned.get_mut(&partition).map(|owned| std::mem::take(&mut owned.lane)).unwrap_or_default();
        (partition, Part { lane, deliveries, no_parking, ..Part::default() })
    }

    /// Settles a batch that has landed.
    pub(super) async fn landed(
        &mut self,
        landed: Result<Result<Landed, HostError>, JoinError>,
    ) -> Result<(), HostError> {
        let Landed { folded, following } = landed.map_err(|error| {
            tracing::error!(generation = self.calls.generation, %error, "a batch ended unexpectedly");
            HostError::Died(self.calls.generation.clone())
        })??;
        let names =
            (self.setup.generation.read_model.as_str(), self.calls.generation.as_str(), self.calls.store_name());
        let unseen = following.show(names, folded.wrote, &folded.finished);
        if self.setup.sink.needs_refresh() {
            traced::keep(&mut self.traced, unseen);
        }
        self.settle(folded.finished, folded.saved).await
    }

    /// Lets all batches land, those that wait too: afterwards every lane is here.
    pub(super) async fn land_all(&mut self) -> Result<(), HostError> {
        self.start_what_may().await?;
        while let Some(landed) = self.flights.join_next().await {
            self.landed(landed).await?;
            self.start_what_may().await?;
        }
        Ok(())
    }

    /// Notes what is in hand, so that how late it is can be seen while it is.
    pub(super) fn note_in_hand(&self) {
        let oldest = self.away().filter_map(|away| away.oldest).min();
        self.setup.stats.with(|s| s.doing.in_hand = oldest);
    }
}

/// Events that progress remembers before a batch.
fn remembered(parts: &[(Partition, Part)]) -> usize {
    parts.iter().map(|(_, part)| part.lane.progress().recent.len()).sum()
}

/// Takes the first messages of these partitions, so many at most in all.
fn first(waiting: &mut Messages, is_here: impl Fn(&Partition) -> bool, max: usize) -> Messages {
    let (mut taken, mut left) = (Messages::new(), max);
    for (partition, messages) in waiting.iter_mut().filter(|(partition, _)| is_here(partition)) {
        let rest = messages.split_off(messages.len().min(left));
        let some = std::mem::replace(messages, rest);
        left -= some.len();
        if !some.is_empty() {
            taken.insert(partition.clone(), some);
        }
    }
    waiting.retain(|_, messages| !messages.is_empty());
    taken
}

/// Messages as at most so many batches of whole partitions, about alike in size.
fn apart(messages: Messages, beside: usize) -> Vec<Messages> {
    let size: usize = messages.values().map(Vec::len).sum();
    let mut batches: Vec<Messages> = Vec::new();
    batches.resize_with((size / BATCH_MIN).clamp(1, beside), Messages::new);
    let mut partitions: Vec<_> = messages.into_iter().collect();
    partitions.sort_by_key(|(_, messages)| Reverse(messages.len()));
    for (partition, messages) in partitions {
        let least = batches.iter_mut().min_by_key(|batch| batch.values().map(Vec::len).sum::<usize>());
        if let Some(batch) = least {
            batch.insert(partition, messages);
        }
    }
    batches.retain(|batch| !batch.is_empty());
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::{Lane, Progress};
    use crate::event::Raw;
    use std::sync::Arc;

    fn messages(counts: &[usize]) -> Messages {
        let of = |(number, count): (i32, &usize)| {
            let partition = Partition { topic: "events.loan".into(), number };
            let message = |offset| Message {
                partition: partition.clone(),
                offset,
                sent_ms: None,
                raw: Raw::default(),
                event: None,
                room: None,
            };
            (partition.clone(), (0..).take(*count).map(message).collect())
        };
        (0..).zip(counts).map(of).collect()
    }

    /// The partitions and sizes of the batches.
    fn parts(counts: &[usize], beside: usize) -> Vec<(Vec<i32>, usize)> {
        let batches = apart(messages(counts), beside);
        let part = |batch: &Messages| {
            (batch.keys().map(|partition| partition.number).collect(), batch.values().map(Vec::len).sum())
        };
        let mut parts: Vec<_> = batches.iter().map(part).collect();
        parts.sort();
        parts
    }

    #[test]
    fn a_batch_has_no_more_events_than_it_may() {
        let mut waiting = messages(&[5, 400, 0, 300]);
        let offsets = |messages: &Messages| -> Vec<(i32, Vec<i64>)> {
            let of = |(partition, messages): (&Partition, &Vec<Message>)| {
                (partition.number, messages.iter().map(|message| message.offset).collect())
            };
            messages.iter().map(of).collect()
        };
        let is_here = |partition: &Partition| partition.number != 0;
        assert_eq!(offsets(&first(&mut waiting, is_here, 10)), [(1, (0..10).collect())]);
        assert_eq!(offsets(&first(&mut waiting, is_here, 500)), [(1, (10..400).collect()), (3, (0..110).collect())]);
        assert_eq!(
            offsets(&waiting),
            [(0, (0..5).collect()), (3, (110..300).collect())],
            "in order, and nothing is lost"
        );
        assert_eq!(offsets(&first(&mut waiting, |_| true, 500)).len(), 2);
        assert!(waiting.is_empty());
    }

    #[test]
    fn what_progress_remembers_is_counted_over_all_partitions() {
        let part = |events: i64| {
            let recent = (0..events).map(|sequence| (7, Arc::from("a"), sequence)).collect();
            let lane = Lane::new(Progress { recent, ..Progress::default() }, BTreeMap::new());
            (Partition { topic: "events.loan".into(), number: 0 }, Part { lane, ..Part::default() })
        };
        assert_eq!((remembered(&[]), remembered(&[part(REMEMBERED_MAX as i64), part(1)])), (0, REMEMBERED_MAX + 1));
    }

    #[test]
    fn a_flood_is_divided_by_partition_and_a_few_events_are_not() {
        assert_eq!(parts(&[1, 2, 3], 4), [(vec![0, 1, 2], 6)]);
        assert_eq!(parts(&[400, 300, 200, 100], 1), [(vec![0, 1, 2, 3], 1000)]);
        assert_eq!(parts(&[400, 300, 200, 100], 2), [(vec![0, 3], 500), (vec![1, 2], 500)]);
        assert_eq!(parts(&[2000, 10], 4), [(vec![0], 2000), (vec![1], 10)], "a partition is never in two");
        assert_eq!(parts(&[], 4), []);
    }
}
