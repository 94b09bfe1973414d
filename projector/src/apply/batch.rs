//! A batch: the events that arrived meanwhile, of any number of partitions, folded so that N events on one document cost one
//! write. It does no I/O itself; whoever drives it loads, writes and saves:
//!
//! ```text
//! new ─→ keys ─(load)→ fold ─→ writes ─(write)→ answered ─→ keys to load again, until none ─→ finish ─→ progress, stops
//! ```

use super::document::rows;
use super::{Event, Outcome, Partition, Progress, Seen, Stored, Write};
use crate::projection::{Compiled, ReadModelKind};
use chrono::{DateTime, Utc};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its offset.
    pub offset: i64,
    /// The event, or why the message isn't one.
    pub event: Result<Event, String>,
}

/// One partition's share of a batch.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which partition.
    pub partition: Partition,
    /// How far it was handled before this batch.
    pub progress: Progress,
    /// The messages, by rising offset.
    pub deliveries: Vec<Delivery>,
}

/// Where and why a partition must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Stop {
    /// The offset of the message that couldn't be handled.
    pub offset: i64,
    /// Why, with what to do.
    pub reason: String,
}

/// What a batch came to.
#[derive(Debug, Default)]
pub struct Finished {
    /// Each partition's new progress.
    pub progress: Vec<(Partition, Progress)>,
    /// The partitions that stopped before their last message.
    pub stops: Vec<(Partition, Stop)>,
    /// When the events that changed something had happened.
    pub applied: Vec<DateTime<Utc>>,
    /// Events that had been handled before.
    pub duplicates: u64,
}

/// The place of a message in the batch: part, then index in it.
type Place = (usize, usize);

/// One document of the batch.
struct Document {
    key: String,
    /// The messages that belong to it, in order; all of one partition.
    events: Vec<Place>,
    stored: Stored,
    /// Not answered yet: has to be written, or loaded and folded again.
    open: bool,
}

/// See the module.
pub struct Batch {
    compiled: Arc<Compiled>,
    parts: Vec<Part>,
    /// What each part's watermark says of each of its messages.
    seen: Vec<Vec<Seen>>,
    /// Each part's first message that can't be handled.
    stops: Vec<Option<(usize, String)>>,
    documents: Vec<Document>,
    /// Rows that are on their way, with the message each came from.
    rows: Vec<(Write, Place)>,
    applied: BTreeSet<Place>,
}

impl Batch {
    /// Sorts the messages by document.
    #[must_use]
    pub fn new(compiled: Arc<Compiled>, parts: Vec<Part>) -> Self {
        let mut batch = Self {
            compiled,
            seen: Vec::with_capacity(parts.len()),
            stops: vec![None; parts.len()],
            parts,
            documents: Vec::new(),
            rows: Vec::new(),
            applied: BTreeSet::new(),
        };
        let mut by_key: HashMap<String, usize> = HashMap::new();
        for p in 0..batch.parts.len() {
            let mut progress = batch.parts[p].progress.clone();
            let mut seen = Vec::with_capacity(batch.parts[p].deliveries.len());
            for (i, delivery) in batch.parts[p].deliveries.iter().enumerate() {
                let event = match &delivery.event {
                    Ok(event) => event,
                    Err(reason) => {
                        batch.stops[p] = Some((i, reason.clone()));
                        break;
                    }
                };
                let verdict = progress.seen(&event.envelope.reference);
                if verdict == Seen::UnknownEpoch {
                    batch.stops[p] = Some((i, unknown_epoch(&progress, event)));
                    break;
                }
                seen.push(verdict);
                progress.handled(&event.envelope.reference, delivery.offset);
                if event.data.is_some() && batch.compiled.kind == ReadModelKind::Entity {
                    let key = event.envelope.reference.aggregate_id.to_string();
                    let at = *by_key.entry(key.clone()).or_insert(batch.documents.len());
                    if at == batch.documents.len() {
                        batch.documents.push(Document {
                            key,
                            events: Vec::new(),
                            stored: Stored::nothing(),
                            open: true,
                        });
                    }
                    batch.documents[at].events.push((p, i));
                }
            }
            batch.seen.push(seen);
        }
        batch
    }

    /// The documents to load before [`Batch::fold`]. None for facts.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.documents.iter().filter(|d| d.open).map(|d| d.key.clone()).collect()
    }

    /// Folds all events that the loaded documents (in the order of [`Batch::keys`]) haven't seen; gives the writes.
    #[must_use]
    pub fn fold(&mut self, loaded: Vec<Option<Stored>>) -> Vec<Write> {
        if self.compiled.kind == ReadModelKind::Facts {
            return self.fold_rows();
        }
        let open: Vec<usize> = (0..self.documents.len()).filter(|&d| self.documents[d].open).collect();
        debug_assert_eq!(open.len(), loaded.len(), "one answer a key");
        for (&d, stored) in open.iter().zip(loaded) {
            self.documents[d].stored = stored.unwrap_or_else(Stored::nothing);
        }
        // In offset order, so that a failing event keeps those behind it in its partition from being folded.
        let mut order: Vec<(Place, usize)> =
            open.iter().flat_map(|&d| self.documents[d].events.iter().map(move |&place| (place, d))).collect();
        order.sort_unstable();
        let mut touched = HashSet::new();
        for (place, d) in order {
            if self.is_stopped(place) {
                continue;
            }
            match self.fold_one(place, d) {
                Ok(true) => _ = touched.insert(d),
                Ok(false) => {}
                Err(reason) => self.stop(place, reason),
            }
        }
        for &d in &open {
            self.documents[d].open = touched.contains(&d);
        }
        self.writes()
    }

    /// Takes the store's answers to the writes of [`Batch::fold`]. Afterwards [`Batch::keys`] are those to load and fold again.
    pub fn answered(&mut self, outcomes: Vec<Outcome>) {
        if self.compiled.kind == ReadModelKind::Facts {
            for ((_, place), outcome) in std::mem::take(&mut self.rows).into_iter().zip(outcomes) {
                if let Outcome::Rejected(reason) = outcome {
                    self.stop(place, format!("the store refuses its row: {reason}"));
                }
            }
            return;
        }
        let open: Vec<usize> = (0..self.documents.len()).filter(|&d| self.documents[d].open).collect();
        debug_assert_eq!(open.len(), outcomes.len(), "one answer a write");
        for (d, outcome) in open.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Written => self.documents[d].open = false,
                Outcome::Stale => {}
                Outcome::Rejected(reason) => {
                    self.documents[d].open = false;
                    let first = self.documents[d].events.iter().copied().find(|place| self.applied.contains(place));
                    let key = self.documents[d].key.clone();
                    if let Some(place) = first {
                        self.stop(place, format!("the store refuses document `{key}`: {reason}"));
                    }
                }
            }
        }
    }

    /// Whether every document has its answer.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.rows.is_empty() && self.documents.iter().all(|d| !d.open)
    }

    /// The new progress: over all messages before each partition's stop.
    #[must_use]
    pub fn finish(self) -> Finished {
        debug_assert!(self.is_done(), "progress must not pass an unanswered write");
        let mut finished = Finished::default();
        for (p, part) in self.parts.into_iter().enumerate() {
            let mut progress = part.progress;
            let end = self.stops[p].as_ref().map_or(part.deliveries.len(), |(i, _)| *i);
            for (i, delivery) in part.deliveries.iter().take(end).enumerate() {
                let Ok(event) = &delivery.event else { break };
                progress.handled(&event.envelope.reference, delivery.offset);
                if self.applied.contains(&(p, i)) {
                    finished.applied.push(event.envelope.occurred_at);
                } else if event.data.is_some() {
                    finished.duplicates += 1;
                }
            }
            if let Some((i, reason)) = self.stops[p].clone() {
                finished.stops.push((part.partition.clone(), Stop { offset: part.deliveries[i].offset, reason }));
            }
            finished.progress.push((part.partition, progress));
        }
        finished
    }

    fn writes(&self) -> Vec<Write> {
        let open = self.documents.iter().filter(|d| d.open);
        open.map(|d| Write {
            key: d.key.clone(),
            version: d.stored.version,
            fields: d.stored.fields.clone(),
            ..Write::default()
        })
        .collect()
    }

    /// Folds one event into its document. `Ok(false)`: the document has it already.
    fn fold_one(&mut self, (p, i): Place, d: usize) -> Result<bool, String> {
        let Ok(event) = &self.parts[p].deliveries[i].event else { return Ok(false) };
        let (Some(data), Some(program)) = (&event.data, self.compiled.program(&event.envelope.event_type)) else {
            return Ok(false);
        };
        let document = &mut self.documents[d].stored;
        let sequence = event.envelope.reference.sequence;
        if sequence <= document.version {
            return Ok(false);
        }
        if self.seen[p][i] == Seen::Duplicate && !self.applied_before(p, i) {
            return Err(order_broken(event, self.documents[d].stored.version));
        }
        let folded = self.documents[d].stored.fold(program, event, data);
        folded.map_err(|poison| describe(event, &poison.to_string()))?;
        self.applied.insert((p, i));
        Ok(true)
    }

    /// Whether an event that the watermark calls a duplicate is one of an event in this very batch that wasn't written: then
    /// its document may honestly lack it.
    fn applied_before(&self, p: usize, i: usize) -> bool {
        let reference = |i: usize| self.parts[p].deliveries[i].event.as_ref().ok().map(|e| &e.envelope.reference);
        let this = reference(i);
        (0..i).any(|earlier| self.seen[p][earlier] == Seen::New && reference(earlier) == this)
    }

    fn fold_rows(&mut self) -> Vec<Write> {
        let mut ids = HashSet::new();
        for p in 0..self.parts.len() {
            for i in 0..self.seen[p].len() {
                let Ok(event) = &self.parts[p].deliveries[i].event else { break };
                let (Some(data), Some(program)) = (&event.data, self.compiled.program(&event.envelope.event_type))
                else {
                    continue;
                };
                if !ids.insert(event.envelope.id) {
                    continue;
                }
                match rows(program, event, data) {
                    Ok(rows) => {
                        self.rows.extend(rows.into_iter().map(|row| (row, (p, i))));
                        if self.seen[p][i] == Seen::New {
                            self.applied.insert((p, i));
                        }
                    }
                    Err(poison) => {
                        let reason = describe(event, &poison.to_string());
                        self.stop((p, i), reason);
                        break;
                    }
                }
            }
        }
        self.rows.iter().map(|(row, _)| row.clone()).collect()
    }

    fn is_stopped(&self, (p, i): Place) -> bool {
        self.stops[p].as_ref().is_some_and(|(at, _)| *at <= i)
    }

    fn stop(&mut self, (p, i): Place, reason: String) {
        if !self.is_stopped((p, i)) {
            self.stops[p] = Some((i, reason));
        }
    }
}

fn describe(event: &Event, what: &str) -> String {
    let r = &event.envelope.reference;
    format!(
        "{} {} of {} {}: {what}",
        event.envelope.event_type, r.sequence, event.envelope.aggregate_type, r.aggregate_id
    )
}

fn order_broken(event: &Event, version: i64) -> String {
    let what = format!(
        "source order broken: the watermark says it was handled, but its document is at {version}; was the topic filled by something \
         other than the one connector?"
    );
    describe(event, &what)
}

fn unknown_epoch(progress: &Progress, event: &Event) -> String {
    let known = progress.epoch.as_deref().unwrap_or("none");
    let what = format!(
        "epoch {} is not {known}: the write database was restored or failed over; an operator must accept it",
        event.envelope.reference.epoch
    );
    describe(event, &what)
}
