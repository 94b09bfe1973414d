//! Dead letters: parking what can't be folded, durably, before progress passes it; and folding it after all, or passing over
//! it, when an operator asks. All of it in the owner, so that nothing races an aggregate's order.

use super::HostError;
use super::calls::Calls;
use crate::apply::{Delivery, LetterNote, Parked, Partition, Stop};
use crate::control::{Control, DeadLetter, DeadLetterState};
use crate::event::Raw;
use chrono::Utc;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// Dead letters of one aggregate that are folded in one go.
const LETTERS_MAX: i64 = 500;

/// A generation's dead letters.
#[derive(Clone)]
pub(super) struct Letters {
    pub(super) control: Control,
    pub(super) generation_id: i64,
    pub(super) calls: Calls,
}

impl Letters {
    /// Takes over these partitions: a fence for each, above any former owner's, and the aggregates that are parked there.
    pub(super) async fn claim(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<(i64, BTreeMap<Arc<str>, i64>)>, HostError> {
        let (control, id) = (&self.control, self.generation_id);
        let fences = self.calls.control(|| Box::pin(control.claim(id, partitions))).await?;
        let parked = self.calls.control(|| Box::pin(control.parked(id, partitions))).await?;
        let of = |partition: &Partition| {
            let mine = parked.iter().filter(|p| p.partition == *partition);
            mine.map(|p| (Arc::from(p.aggregate_id.as_str()), p.first_sequence.unwrap_or(i64::MIN))).collect()
        };
        Ok(partitions.iter().zip(fences).map(|(partition, fence)| (fence, of(partition))).collect())
    }

    /// Parks, durably. Nothing is parked by an owner who lost the partition: that ends it.
    pub(super) async fn park(&self, fence: i64, parked: Vec<Parked>) -> Result<(), HostError> {
        let letters: Vec<_> = parked.into_iter().map(|parked| self.letter(parked)).collect();
        for letter in letters.iter().filter(|letter| letter.reason.is_some()) {
            tracing::error!(
                generation = self.calls.generation, dead_letter = %letter.dead_letter_id, topic = %letter.partition.topic,
                partition = letter.partition.number, offset = letter.offset, reason = letter.reason, "parked"
            );
        }
        self.calls.control(|| Box::pin(self.control.park(fence, &letters))).await
    }

    /// The aggregates whose letters an operator wants to be tried again, or given up.
    pub(super) async fn asked(&self, partitions: &[Partition]) -> Result<Vec<(Partition, String)>, HostError> {
        let parked = self.calls.control(|| Box::pin(self.control.parked(self.generation_id, partitions))).await?;
        let asked = parked.into_iter().filter(|p| p.asked.is_some());
        Ok(asked.map(|p| (p.partition, p.aggregate_id)).collect())
    }

    /// The letters of an aggregate, in order, read and noted.
    pub(super) async fn of(
        &self,
        partition: &Partition,
        aggregate: &str,
    ) -> Result<(Vec<DeadLetter>, Vec<Delivery>, Vec<LetterNote>), HostError> {
        let (control, id) = (&self.control, self.generation_id);
        let letters = self.calls.control(|| Box::pin(control.letters(id, partition, aggregate, LETTERS_MAX))).await?;
        let (mut deliveries, mut notes) = (Vec::new(), Vec::new());
        for letter in &letters {
            let raw = Raw::new(letter.key.as_deref(), &letter.headers, letter.payload.as_deref());
            deliveries.push(self.calls.read(letter.offset, raw).await?);
            let done = letter.done.iter().cloned().collect();
            notes.push(LetterNote { done, skip: letter.state == DeadLetterState::Skip });
        }
        Ok((letters, deliveries, notes))
    }

    /// Notes that the first `settled` letters are done with, and why the next one isn't.
    pub(super) async fn settle(
        &self,
        fence: i64,
        letters: &[DeadLetter],
        settled: usize,
        stop: Option<&Stop>,
    ) -> Result<(), HostError> {
        let ids: Vec<Uuid> = letters.iter().take(settled).map(|letter| letter.dead_letter_id).collect();
        if let (Some(first), false) = (letters.first(), ids.is_empty()) {
            let (control, id, partition) = (&self.control, self.generation_id, &first.partition);
            self.calls.control(|| Box::pin(control.settle(fence, id, partition, &ids))).await?;
            tracing::info!(
                generation = self.calls.generation,
                aggregate = first.aggregate_id,
                letters = ids.len(),
                "dead letters settled"
            );
        }
        let (Some(letter), Some(stop)) = (letters.get(settled), stop) else { return Ok(()) };
        let again = [DeadLetter {
            reason: Some(stop.reason.clone()),
            tries: letter.tries + 1,
            done: stop.done.iter().cloned().collect(),
            state: DeadLetterState::Parked,
            updated_at: Utc::now(),
            ..letter.clone()
        }];
        tracing::error!(generation = self.calls.generation, dead_letter = %letter.dead_letter_id, reason = stop.reason, "still fails");
        self.calls.control(|| Box::pin(self.control.park(fence, &again))).await
    }

    fn letter(&self, parked: Parked) -> DeadLetter {
        let Parked { partition, delivery, reason, done } = parked;
        let envelope = delivery.event.as_ref().ok().map(|event| &event.envelope);
        let raw = &delivery.raw;
        let place = || format!("{}/{}/{}", partition.topic, partition.number, delivery.offset);
        let now = Utc::now();
        DeadLetter {
            dead_letter_id: envelope.map_or_else(|| unreadable_id(&place(), raw), |envelope| envelope.id),
            generation_id: self.generation_id,
            offset: delivery.offset,
            aggregate_id: delivery.aggregate().to_string(),
            sequence: envelope.map(|envelope| envelope.reference.sequence),
            event_type: envelope.map(|envelope| envelope.event_type.to_string()),
            headers: raw.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            key: raw.key().map(<[u8]>::to_vec),
            payload: raw.payload().map(<[u8]>::to_vec),
            tries: if reason.is_some() { i32::try_from(crate::apply::TRIES).unwrap_or(i32::MAX) } else { 0 },
            reason,
            done: done.into_iter().collect(),
            state: DeadLetterState::Parked,
            parked_at: now,
            updated_at: now,
            partition,
        }
    }
}

/// The id of a message without one: the same each time it is read at that place.
fn unreadable_id(place: &str, raw: &Raw) -> Uuid {
    let mut name = place.as_bytes().to_vec();
    name.extend(raw.payload().unwrap_or_default());
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &name)
}
