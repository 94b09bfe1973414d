//! Whether a read model has what the caller knows to be written, and the waiting until it has.
//!
//! A token is reached when, for each stream whose topic the read model takes, the partition that holds the stream's events has
//! handled that very event in the token's epoch ([`Progress::has`]). Streams of other topics can't show in the read model.
//! What is parked was handled, but isn't in the documents: a token that asks for it is answered at once, and never with success.
//! The order matters: progress is published after the store has the documents, and it is looked at before the data is read;
//! so what the progress covers is in the data.

use super::feed::Subscription;
use super::token::Token;
use super::write_side::Written;
use crate::apply::Progress;
use crate::control::ProgressMap;
use crate::sink::Partition;
use crate::source::partition_of;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a query waits when the caller doesn't say.
pub(crate) const WAIT_MS_DEFAULT: u64 = 1_000;
/// How long a query may wait.
pub(crate) const WAIT_MS_MAX: u64 = 5_000;
/// Who won't wait still gets one look at progress that is current.
const LOOK_MS_MIN: u64 = 50;

/// One event that must be handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) partition: Partition,
    epoch: Arc<str>,
    txid: u64,
    aggregate_type: String,
    aggregate_id: Arc<str>,
    sequence: i64,
    /// Whether the write database said that it is there, rather than a caller: then it isn't lost with an epoch that was left.
    is_certain: bool,
}

/// Why a demand isn't met.
#[derive(Debug, PartialEq)]
pub(crate) enum Unmet {
    /// Not handled yet; the progress that was looked at.
    Behind(Arc<ProgressMap>),
    /// It is, or waits behind, a dead letter: no waiting helps.
    Parked(Json),
    /// It can't be judged.
    UnknownEpoch { token: Arc<str>, reached: Arc<str> },
}

/// What the tokens ask of a read model that takes `topics`.
pub(crate) fn demands(tokens: &[Token], topics: &BTreeMap<String, i32>) -> Vec<Demand> {
    let demand = |token: &Token, stream: &super::token::Stream| {
        let topic = format!("events.{}", stream.aggregate_type);
        let partitions = *topics.get(&topic)?;
        Some(Demand {
            partition: Partition { topic: topic.into(), number: partition_of(&stream.aggregate_id, partitions) },
            epoch: Arc::clone(&token.epoch),
            txid: token.txid,
            aggregate_type: stream.aggregate_type.clone(),
            aggregate_id: Arc::clone(&stream.aggregate_id),
            sequence: stream.sequence,
            is_certain: false,
        })
    };
    tokens.iter().flat_map(|token| token.streams.iter().filter_map(move |stream| demand(token, stream))).collect()
}

/// What an event of the write database asks of a read model that takes `topics`.
pub(crate) fn demand_of(written: &Written, topics: &BTreeMap<String, i32>) -> Option<Demand> {
    let topic = format!("events.{}", written.aggregate_type);
    let partitions = *topics.get(&topic)?;
    Some(Demand {
        partition: Partition { topic: topic.into(), number: partition_of(&written.aggregate_id, partitions) },
        epoch: written.epoch.as_str().into(),
        txid: written.txid.cast_unsigned(),
        aggregate_type: written.aggregate_type.clone(),
        aggregate_id: written.aggregate_id.as_str().into(),
        sequence: written.sequence,
        is_certain: true,
    })
}

impl Demand {
    /// The event: type and id of its aggregate, its sequence there, its transaction.
    pub(crate) fn event(&self) -> (&str, &str, i64, u64) {
        (&self.aggregate_type, &self.aggregate_id, self.sequence, self.txid)
    }

    pub(crate) fn is_certain(&self) -> bool {
        self.is_certain
    }

    fn met(&self, progress: &ProgressMap) -> Result<bool, Unmet> {
        let Some(progress) = progress.get(&self.partition) else { return Ok(false) };
        match &progress.epoch {
            // Nothing was handled there yet, so neither was this.
            None => Ok(false),
            Some(epoch) if *epoch != self.epoch && self.is_certain => {
                let parked = parked_in(progress, &self.aggregate_id, self.sequence);
                match progress.past.contains(&self.epoch) {
                    true if parked => Err(Unmet::Parked(self.to_json())),
                    left => Ok(left),
                }
            }
            Some(epoch) if *epoch != self.epoch => {
                Err(Unmet::UnknownEpoch { token: Arc::clone(&self.epoch), reached: Arc::clone(epoch) })
            }
            Some(_) if parked_in(progress, &self.aggregate_id, self.sequence) => Err(Unmet::Parked(self.to_json())),
            Some(_) => Ok(progress.has(self.txid, &self.aggregate_id, self.sequence)),
        }
    }

    pub(crate) fn to_json(&self) -> Json {
        json!({"stream": [self.aggregate_type, &*self.aggregate_id, self.sequence], "txid": self.txid,
               "topic": &*self.partition.topic, "partition": self.partition.number})
    }
}

fn parked_in(progress: &Progress, aggregate_id: &str, sequence: i64) -> bool {
    progress.parked.get(aggregate_id).is_some_and(|first| sequence >= *first)
}

/// Whether an aggregate's event is, or waits behind, a dead letter.
pub(crate) fn is_parked(
    progress: &ProgressMap,
    aggregate_id: &str,
    sequence: i64,
    topics: &BTreeMap<String, i32>,
) -> bool {
    partitions_of(progress, aggregate_id, topics).flatten().any(|p| parked_in(p, aggregate_id, sequence))
}

/// Those that aren't met yet.
pub(crate) fn unmet<'a>(demands: &'a [Demand], progress: &ProgressMap) -> Vec<&'a Demand> {
    demands.iter().filter(|demand| !matches!(demand.met(progress), Ok(true))).collect()
}

pub(crate) fn all_met(demands: &[Demand], progress: &ProgressMap) -> Result<bool, Unmet> {
    // All are judged, so that an epoch that can't be judged is said at once rather than at the time limit.
    demands.iter().try_fold(true, |all, demand| Ok(demand.met(progress)? && all))
}

/// When a wait of `wait_ms` that began at `begin` ends.
pub(crate) fn deadline(begin: Instant, wait_ms: u64) -> Instant {
    begin + Duration::from_millis(wait_ms.clamp(LOOK_MS_MIN, WAIT_MS_MAX))
}

/// Waits until all demands are met, and gives the progress that meets them.
pub(crate) async fn reach(
    feed: &mut Subscription,
    demands: &[Demand],
    until: Instant,
) -> Result<Arc<ProgressMap>, Unmet> {
    loop {
        let progress = feed.look();
        if all_met(demands, &progress)? {
            return Ok(progress);
        }
        if timeout_at(until, feed.changed()).await.is_err() {
            return Err(Unmet::Behind(progress));
        }
    }
}

/// The partitions that hold an aggregate's events, with what is known of them.
fn partitions_of<'a>(
    progress: &'a ProgressMap,
    aggregate_id: &'a str,
    topics: &'a BTreeMap<String, i32>,
) -> impl Iterator<Item = Option<&'a Progress>> {
    let partition = |topic: &str, n| Partition { topic: topic.into(), number: partition_of(aggregate_id, n) };
    topics.iter().map(move |(topic, n)| progress.get(&partition(topic, *n)))
}

/// Whether an aggregate's events are known to be handled up to `sequence` or beyond: the recent set of its partition names
/// one. Unknown otherwise; the document's own version then decides.
pub(crate) fn recently_handled(
    progress: &ProgressMap,
    aggregate_id: &str,
    sequence: i64,
    topics: &BTreeMap<String, i32>,
) -> bool {
    let parked = |p: &Progress| parked_in(p, aggregate_id, sequence);
    let named = |p: &Progress| !parked(p) && p.recent.iter().any(|(_, id, s)| *s >= sequence && **id == *aggregate_id);
    partitions_of(progress, aggregate_id, topics).flatten().any(named)
}

/// The next offsets of an aggregate's partitions: while they are the same, nothing happened to it.
pub(crate) fn offsets_of(progress: &ProgressMap, aggregate_id: &str, topics: &BTreeMap<String, i32>) -> Vec<i64> {
    partitions_of(progress, aggregate_id, topics).map(|p| p.map_or(0, |p| p.next_offset)).collect()
}

/// How many messages are handled: the position that answers carry. It only grows within a generation.
pub(crate) fn position(progress: &ProgressMap) -> i64 {
    progress.values().map(|p| p.next_offset).sum()
}

/// What was reached where the demands are, for the caller who is told to come back.
pub(crate) fn reached(demands: &[Demand], progress: &ProgressMap) -> Json {
    let partitions: BTreeMap<_, _> = demands.iter().map(|d| (&d.partition, progress.get(&d.partition))).collect();
    let entry = |(partition, progress): (&Partition, Option<&Progress>)| {
        json!({"topic": &*partition.topic, "partition": partition.number,
               "next_offset": progress.map_or(0, |p| p.next_offset), "watermark": progress.map_or(0, |p| p.watermark)})
    };
    partitions.into_iter().map(entry).collect()
}

#[cfg(test)]
#[path = "freshness_tests.rs"]
mod tests;
