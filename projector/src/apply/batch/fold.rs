//! One event into its documents: which they are, and what comes of each.

use super::super::document::{expires, rows};
use super::super::join::{entry_key, is_entry};
use super::super::lane::{self, Plan};
use super::super::progress::occurrence;
use super::super::rollup::{self, Slices};
use super::super::{Event, Poison, Stored};
use super::{Batch, Change, Place, State};
use crate::projection::ReadModelKind;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Batch {
    /// What a message changes, by document.
    pub(super) fn changes(&self, place: Place) -> Result<Vec<(String, Change)>, String> {
        let item = self.item(place);
        let rollup = self.compiled.kind == ReadModelKind::Rollup;
        match &item.plan {
            Plan::Fail(reason) => return Err(reason.clone()),
            Plan::Stop(_) | Plan::Hold | Plan::Skip => return Ok(Vec::new()),
            // Where documents have one source, their version is all that has to be looked at.
            Plan::Check | Plan::Pass if matches!(self.compiled.kind, ReadModelKind::Facts | ReadModelKind::Rollup) => {
                return Ok(Vec::new());
            }
            // What of a parked event was added before must be known when it is retried.
            Plan::Park(_) if !rollup => return Ok(Vec::new()),
            Plan::Fold | Plan::Check | Plan::Pass | Plan::Park(_) => {}
        }
        let Some(event) = item.taken() else { return Ok(Vec::new()) };
        let Some(program) = self.compiled.program(&event.envelope.event_type) else { return Ok(Vec::new()) };
        let key = self.key(event);
        let data = match &event.data {
            Some(Ok(data)) => data,
            Some(Err(_)) if matches!(item.plan, Plan::Pass) => return Ok(vec![(key, Change::Program)]),
            Some(Err(_)) if item.plan != Plan::Fold => return Ok(Vec::new()),
            Some(Err(reason)) => return Err(describe(event, reason)),
            None => return Ok(Vec::new()),
        };
        let changes = match self.compiled.kind {
            ReadModelKind::Entity => return Ok(vec![(key, Change::Program)]),
            ReadModelKind::Join if self.is_own(event) && is_entry(&key) => {
                return Err(describe(event, "an aggregate whose id begins with `_` can't have a document here"));
            }
            ReadModelKind::Join => return Ok(vec![(key, Change::Program)]),
            ReadModelKind::Facts => rows(program, event, data, self.looked_up(place)?)
                .map(|rows| rows.into_iter().map(|r| (r.key, Change::Row(r.fields.unwrap_or_default()))).collect()),
            ReadModelKind::Rollup => rollup::additions(program, &self.compiled.projection.sum_by, event, data)
                .map(|all| all.into_iter().map(|(key, addition)| (key, Change::Addition(addition))).collect()),
        };
        match changes {
            // A follower's own fault shows when its turn comes.
            Err(_) if item.plan != Plan::Fold => Ok(Vec::new()),
            changes => changes.map_err(|poison| describe(event, &poison.to_string())),
        }
    }

    /// The document that an event's own aggregate has.
    fn key(&self, event: &Event) -> String {
        let id = &event.envelope.reference.aggregate_id;
        let aggregate = self.compiled.join.as_ref().and_then(|join| join.aggregate(&event.envelope.event_type));
        match aggregate {
            Some(aggregate) if !self.is_own(event) => entry_key(aggregate, id),
            _ => id.to_string(),
        }
    }

    /// Whether a join's event is of the aggregate that has the documents.
    pub(super) fn is_own(&self, event: &Event) -> bool {
        let join = self.compiled.join.as_ref();
        join.is_some_and(|join| join.aggregate(&event.envelope.event_type) == Some(&join.own))
    }

    /// Folds one event into its document: gives the fold's new state, if it has one.
    pub(super) fn fold_one(
        &mut self,
        place @ (p, i): Place,
        d: usize,
        f: usize,
        slices: Option<&mut Result<Slices, String>>,
    ) -> Result<Option<State>, String> {
        let parked = self.is_parked(place);
        let share = &self.shares[p];
        let item = &share.items[i];
        let Ok(event) = &item.delivery.event else { return Ok(None) };
        let document = &mut self.documents[d];
        let poison = |poison: Poison| describe(event, &poison.to_string());
        let ttl = self.compiled.projection.ttl.as_ref().map(|ttl| &ttl.value);
        let expires = |fields: Option<&crate::expr::Object>| {
            expires(ttl, fields, event.envelope.occurred_at).map_err(|reason| describe(event, &reason))
        };
        match (&document.folds[f].change, slices) {
            (Change::Program, _) => {
                let reference = &event.envelope.reference;
                if reference.sequence <= document.stored.version {
                    return Ok(Some(State::Done));
                }
                match (&item.plan, &event.data) {
                    (Plan::Check, _) if share.lane.is_parked(&reference.aggregate_id) => return Ok(Some(State::Done)),
                    (Plan::Check, _) => return Err(order_broken(event, document.stored.version)),
                    (Plan::Pass, _) => document.stored.version = reference.sequence,
                    (_, Some(Ok(data))) if !parked => {
                        let Some(program) = self.compiled.program(&event.envelope.event_type) else { return Ok(None) };
                        let before = ttl.and_then(|ttl| ttl.after.as_ref()).map(|_| document.stored.clone());
                        let looked_up = share.looked_up(i, event)?;
                        match document.stored.fold(program, event, data, looked_up).map_err(poison)? {
                            Some(names) => document.changed.iter_mut().for_each(|changed| changed.add(names)),
                            None => document.changed = None,
                        }
                        document.expires = expires(document.stored.fields.as_deref()).inspect_err(|_| {
                            before.into_iter().for_each(|before| document.stored = before);
                        })?;
                    }
                    _ => return Ok(None),
                }
            }
            (Change::Row(_), _) if parked => return Ok(None),
            (Change::Row(row), _) => {
                document.expires = expires(Some(row))?;
                document.stored = Stored { version: 1, fields: Some(Arc::clone(row)), state: None };
            }
            (Change::Addition(addition), Some(slices)) => {
                let slices = slices.as_mut().map_err(|reason| describe(event, reason))?;
                let note = share.letters.as_ref().and_then(|notes| notes.get(i));
                if note.is_some_and(|note| note.done.contains(&document.key)) {
                    return Ok(Some(State::Done));
                }
                let known = if note.is_some() { slices.has_letter(event) } else { slices.has(&share.partition, event) };
                if known {
                    return Ok(Some(State::Done));
                }
                if parked {
                    slices.mark(&share.partition, &event.envelope.reference);
                    return Ok(Some(State::Marking));
                }
                document.expires = expires(Some(&addition.labels))?;
                let fields = if note.is_some() {
                    slices.add_letter(event.envelope.id, addition)
                } else {
                    slices.add(&share.partition, &event.envelope.reference, addition)
                };
                document.stored.fields = Some(Arc::new(fields.map_err(poison)?));
            }
            (Change::Addition(_), None) | (Change::Parent(_), _) => return Ok(None),
        }
        Ok(Some(State::InFlight))
    }

    /// Gives a rollup's document the guards of all that was folded into it, and its next version.
    pub(super) fn close_rollup(&mut self, d: usize, mut slices: Slices) {
        let document = &self.documents[d];
        let shares: BTreeSet<usize> = document.folds.iter().filter(|f| f.is_flying()).map(|f| f.place.0).collect();
        for p in shares {
            let share = &self.shares[p];
            if share.letters.is_some() {
                continue;
            }
            // Not beyond what is still to be folded.
            let waiting = document.folds.iter().filter(|fold| fold.place.0 == p && self.is_due(fold));
            let waiting = waiting.map(|f| f.place.1).min().unwrap_or(usize::MAX);
            let end = share.stop.as_ref().map_or(share.items.len(), |(i, _)| *i).min(waiting);
            let items = &share.items[..end];
            // Of a duplicate nothing follows: an older guard may cover it, and not what came before it here.
            let first = items.iter().rev().filter(|item| item.plan.is_first());
            let Some(last) = first.filter_map(|item| item.delivery.reference()).next() else { continue };
            let done = |i: usize| document.folds.iter().any(|f| f.place == (p, i) && f.state == State::Done);
            let missing = items.iter().enumerate().filter(|(i, item)| matches!(item.plan, Plan::Park(_)) && !done(*i));
            let missing = missing.filter_map(|(_, item)| item.delivery.reference()).map(occurrence).collect();
            let added = document.folds.iter().filter(|f| f.place.0 == p && f.state == State::InFlight);
            let added = added.filter_map(|f| share.items[f.place.1].delivery.reference());
            slices.cover(&share.partition, &lane::covered(share.lane.progress(), items), last, added, missing);
        }
        let stored = &mut self.documents[d].stored;
        stored.version += 1;
        stored.state = Some(slices.write());
    }
}

pub(super) fn describe(event: &Event, what: &str) -> String {
    let r = &event.envelope.reference;
    format!(
        "{} {} of {} {}: {what}",
        event.envelope.event_type, r.sequence, event.envelope.aggregate_type, r.aggregate_id
    )
}

pub(super) fn order_broken(event: &Event, version: i64) -> String {
    let what = format!(
        "source order broken: the watermark says it was handled, but its document is at {version}; was the topic filled by something \
         other than the one connector?"
    );
    describe(event, &what)
}
