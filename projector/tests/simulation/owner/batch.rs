//! A batch on its way: loaded, folded, written, settled and saved, with what may happen between any two of these.

use super::super::Mutation;
use super::super::store::Store;
use super::{Crash, Sim, Step, Zombie, partition};
use projector::apply::{Batch, Finished, Lane, Outcome, Part, Partition, Progress, Stored, Write};
use projector::projection::ReadModelKind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Sim<'_> {
    pub(super) fn load(&mut self, keys: &[String]) -> Vec<Option<Stored>> {
        let strip = |state: &Arc<str>, names: &[&str]| -> Arc<str> {
            let mut json: serde_json::Value = serde_json::from_str(state).unwrap();
            fn clean(json: &mut serde_json::Value, names: &[&str]) {
                if let Some(map) = json.as_object_mut() {
                    map.iter_mut().filter(|(name, _)| names.contains(&name.as_str())).for_each(|(name, value)| {
                        *value = if name == "guard" {
                            serde_json::to_value(Progress::default()).unwrap()
                        } else {
                            serde_json::json!([])
                        };
                    });
                    map.values_mut().for_each(|inner| clean(inner, names));
                }
            }
            clean(&mut json, names);
            json.to_string().into()
        };
        let names: &[&str] = match self.mutation {
            Mutation::GuardForgotten => &["guard"],
            Mutation::MissingForgotten => &["missing"],
            Mutation::LetterIdsForgotten => &["ids"],
            _ => &[],
        };
        let entity = self.kind() == ReadModelKind::Entity;
        keys.iter()
            .map(|key| {
                let mut stored = self.store.documents.get(key).cloned()?;
                if !names.is_empty() {
                    stored.state = stored.state.as_ref().map(|state| strip(state, names));
                }
                if self.mutation == Mutation::VersionForgotten && entity {
                    stored.version -= 1;
                }
                if let (Mutation::PartSequenceForgotten, Some(state)) = (self.mutation, &stored.state) {
                    let mut json: serde_json::Value = serde_json::from_str(state).unwrap();
                    if let Some(sequence) = json["own"]["sequence"].as_i64() {
                        json["own"]["sequence"] = (sequence - 1).into();
                        stored.state = Some(json.to_string().into());
                    }
                }
                Some(stored)
            })
            .collect()
    }

    /// One batch of one host, of all it owns.
    pub(super) fn batch(&mut self, h: usize, outer: bool) -> Step<bool> {
        let mut parts = Vec::new();
        let numbers: Vec<usize> = self.hosts[h].owned.keys().copied().collect();
        for p in numbers {
            let size = 1 + self.dice.below(20);
            let cold_always = self.mutation == Mutation::TrackerForgets;
            let Some(owned) = self.hosts[h].owned.get_mut(&p) else { continue };
            let deliveries: Vec<_> = self.logs[p]
                .iter()
                .skip(owned.read_at)
                .take(size.min(self.limit[p].saturating_sub(owned.read_at)))
                .cloned()
                .collect();
            owned.holding = if owned.lane.is_holding() { owned.holding + 1 } else { 0 };
            let give_up = owned.holding > 4 && owned.read_at >= self.logs[p].len();
            if deliveries.is_empty() && !give_up {
                continue;
            }
            owned.read_at += deliveries.len();
            let mut lane = std::mem::take(&mut owned.lane);
            if cold_always && lane.failed() == 0 && !lane.is_holding() {
                lane = Lane::new(lane.progress().clone(), self.store.parked_aggregates(&partition(p)));
                lane.accept(Arc::clone(&self.accepted));
            }
            parts.push((partition(p), Part { lane, deliveries, give_up, ..Part::default() }));
            if give_up {
                self.reach("hold", "given up");
            }
        }
        if parts.is_empty() {
            self.save(h);
            return Ok(false);
        }
        if self.mutation == Mutation::ProgressFirst {
            for (partition, part) in &parts {
                let ahead = Batch::new(Arc::clone(&self.compiled), vec![(partition.clone(), part.clone())]);
                let mut copy = self.store.clone();
                if let Some(finished) = drive(ahead, &mut copy, self.kind()) {
                    finished.lanes.iter().for_each(|(p, lane)| _ = self.store.save(p, lane.progress()));
                }
            }
        }
        self.may_crash("load", "crash before")?;
        if self.store.transactional {
            // Left to the batch, so that nothing older is saved behind it.
            let left = |p: &usize| parts.iter().any(|(at, _)| *at == partition(*p));
            self.hosts[h].unsaved.retain(|p, _| !left(p));
        }
        let (finished, saved) = self.fold(h, parts, outer)?;
        self.may_crash("park", "crash before")?;
        self.settle(h, finished, saved)?;
        Ok(true)
    }

    /// Loads, folds and writes until the store has answered; tells whether that saved progress too.
    pub(super) fn fold(&mut self, h: usize, parts: Vec<(Partition, Part)>, outer: bool) -> Step<(Finished, bool)> {
        let mut batch = Batch::new(Arc::clone(&self.compiled), parts);
        let kind = self.kind();
        let (mut entries, mut written, mut saved) = (BTreeMap::new(), BTreeSet::new(), None);
        for round in 0.. {
            if batch.is_done() {
                break;
            }
            if round > 500 {
                self.stuck = true;
                return Err(Crash);
            }
            for search in batch.searches() {
                self.may_crash("search", "crash before")?;
                let early = self.hosts[h].early.as_ref().filter(|_| self.mutation == Mutation::SearchedEarly);
                let store = early.unwrap_or(&self.store);
                let mut found = store.children(&search.parent, search.after.as_deref(), search.limit);
                if self.mutation == Mutation::DocumentsNotTold {
                    found.clear();
                }
                if !found.is_empty() {
                    self.reach("search", "documents that name the parent");
                    written.clear();
                }
                batch.found(&search, found);
                self.may_crash("search", "crash after")?;
            }
            let keys = batch.keys();
            let mut loaded = self.load(&keys);
            if self.mutation == Mutation::ParentReadOnce {
                for (key, loaded) in keys.iter().zip(&mut loaded).filter(|(key, _)| key.starts_with('_')) {
                    loaded.clone_from(entries.entry(key.clone()).or_insert(loaded.clone()));
                }
            }
            self.may_crash("load", "crash after")?;
            if outer && self.unlucky(6) {
                // The other host works on the same documents meanwhile.
                if self.batch(1 - h, false).is_err() {
                    self.crash(1 - h);
                }
            }
            let mut writes = batch.fold(loaded);
            if writes.is_empty() {
                continue;
            }
            if self.mutation == Mutation::RowIdsUnstable && kind == ReadModelKind::Facts {
                self.salt += 1;
                writes.iter_mut().for_each(|write| write.key = format!("{}/{}", write.key, self.salt));
            }
            if self.unlucky(30) {
                self.reach("rebalance", "a former owner goes on");
                let outcomes = vec![Outcome::Written; writes.len()];
                batch.answered(outcomes);
                let mut zombie = Zombie { writes, saves: Vec::new(), parks: Vec::new() };
                if batch.is_done() {
                    let finished = batch.finish();
                    zombie.saves =
                        finished.lanes.iter().map(|(p, lane)| (p.clone(), lane.progress().clone())).collect();
                    let fence = |p: &Partition| {
                        finished.lanes.iter().find(|(q, _)| q == p).map_or(0, |(_, lane)| lane.progress().fence)
                    };
                    zombie.parks =
                        finished.parked.iter().map(|one| (fence(&one.partition), vec![one.clone()])).collect();
                }
                self.zombies.push(zombie);
                return Err(Crash);
            }
            let foreseen = if self.store.transactional { batch.foreseen() } else { None };
            let outcomes = loop {
                match self.dice.below(if self.calm { 1 } else { 30 }) {
                    27 => self.reach("write", "fails, nothing done"),
                    28 => {
                        for write in &writes[..self.dice.below(writes.len() + 1)] {
                            self.store.write(kind, write);
                        }
                        self.reach("write", "fails, part of it done");
                        self.may_crash("write", "crash in the middle")?;
                    }
                    29 => {
                        self.write(&writes, foreseen.as_ref());
                        self.reach("write", "done, answer lost");
                    }
                    _ => break self.write(&writes, foreseen.as_ref()),
                }
            };
            if self.saves(&outcomes) {
                saved = foreseen;
            }
            for (write, outcome) in writes.iter().zip(&outcomes) {
                if kind == ReadModelKind::Join && *outcome == Outcome::Written && !written.insert(write.key.clone()) {
                    self.reach("verify", "a parent had moved");
                }
                match outcome {
                    Outcome::Stale => self.reach("write", "conflict, folded again"),
                    Outcome::Rejected(_) => self.reach("write", "refused for its content"),
                    Outcome::Written => {}
                }
            }
            batch.answered(outcomes);
            self.may_crash("write", "crash after")?;
        }
        if self.mutation == Mutation::SearchedEarly {
            self.hosts[h].early = Some(self.store.clone());
        }
        let finished = batch.finish();
        if let (Some(saved), Mutation::None) = (&saved, self.mutation) {
            let lanes = finished.lanes.iter().map(|(p, lane)| (p.clone(), lane.progress().clone()));
            assert_eq!(*saved, lanes.collect::<Vec<_>>(), "what was saved with the writes is what came of them");
        }
        Ok((finished, saved.is_some()))
    }

    fn saves(&self, outcomes: &[Outcome]) -> bool {
        self.mutation == Mutation::SavedWithoutAll || outcomes.iter().all(|outcome| *outcome == Outcome::Written)
    }

    /// Writes, and saves what is given, if the store takes all.
    fn write(&mut self, writes: &[Write], progress: Option<&Vec<(Partition, Progress)>>) -> Vec<Outcome> {
        let kind = self.kind();
        let outcomes: Vec<_> = writes.iter().map(|write| self.store.write(kind, write)).collect();
        if let Some(progress) = progress.filter(|_| self.saves(&outcomes)) {
            progress.iter().for_each(|(p, progress)| _ = self.store.save(p, progress));
            self.reach("write", "saves progress");
        }
        outcomes
    }

    pub(super) fn settle(&mut self, h: usize, finished: Finished, saved: bool) -> Step<()> {
        if finished.duplicates > 0 {
            self.reach("admit", "duplicate");
        }
        let save_early = self.mutation == Mutation::ParkedLate;
        if save_early {
            finished.lanes.iter().for_each(|(p, lane)| _ = self.store.save(p, lane.progress()));
            self.may_crash("park", "crash before")?;
        }
        for one in &finished.parked {
            let p = usize::try_from(one.partition.number).unwrap();
            let fence = self.hosts[h].owned.get(&p).map_or(0, |owned| owned.fence);
            let half = !one.done.is_empty();
            if !self.store.park(fence, std::slice::from_ref(one)) {
                // Fenced: this owner is at its end.
                self.reach("park", "fenced");
                return Err(Crash);
            }
            self.reach(
                "park",
                if one.reason.is_none() {
                    "behind an earlier one"
                } else if half {
                    "half done"
                } else {
                    "poison"
                },
            );
        }
        self.may_crash("park", "crash after")?;
        for (partition, lane) in finished.lanes {
            let p = usize::try_from(partition.number).unwrap();
            let Some(owned) = self.hosts[h].owned.get_mut(&p) else { continue };
            if lane.is_holding() {
                *self.reached.entry(("hold", "an event came too early")).or_default() += 1;
            }
            let mut progress = lane.progress().clone();
            match self.mutation {
                Mutation::RecentForgotten => progress.recent.clear(),
                Mutation::WatermarkTooFar => progress.watermark += 3,
                Mutation::RunningForgotten => progress.running.clear(),
                Mutation::HolePassed => progress.next_offset = i64::try_from(owned.read_at).unwrap(),
                _ => {}
            }
            let forgets = matches!(
                self.mutation,
                Mutation::RecentForgotten | Mutation::WatermarkTooFar | Mutation::RunningForgotten
            );
            owned.lane = lane;
            if forgets && owned.lane.failed() == 0 && !owned.lane.is_holding() {
                // In memory too: what is saved is what is used.
                owned.lane = Lane::new(progress.clone(), self.store.parked_aggregates(&partition));
                owned.lane.accept(Arc::clone(&self.accepted));
            }
            if !saved {
                self.hosts[h].unsaved.insert(p, progress);
            }
        }
        for (partition, stop) in finished.stops {
            let p = usize::try_from(partition.number).unwrap();
            if let Some(owned) = self.hosts[h].owned.get_mut(&p) {
                owned.read_at = usize::try_from(owned.lane.progress().next_offset).unwrap();
            }
            self.last_stop = stop.reason.clone();
            if stop.reason.contains("epoch") {
                self.reach("admit", "unknown epoch");
                if self.calm || self.dice.one_in(3) {
                    self.accepted = Arc::new(self.world.epochs.iter().cloned().collect());
                    let lanes = self.hosts.iter_mut().flat_map(|host| host.owned.values_mut());
                    lanes.for_each(|owned| owned.lane.accept(Arc::clone(&self.accepted)));
                }
            } else {
                self.reach("fold", "poison, tried again");
            }
        }
        if self.calm || self.dice.one_in(2) {
            self.may_crash("save", "crash before")?;
            self.save(h);
            self.may_crash("save", "crash after")?;
        }
        Ok(())
    }

    pub(super) fn save(&mut self, h: usize) {
        for (p, progress) in std::mem::take(&mut self.hosts[h].unsaved) {
            self.store.save(&partition(p), &progress);
        }
    }
}

/// A batch against a store without faults.
fn drive(mut batch: Batch, store: &mut Store, kind: ReadModelKind) -> Option<Finished> {
    while !batch.is_done() {
        for search in batch.searches() {
            let found = store.children(&search.parent, search.after.as_deref(), search.limit);
            batch.found(&search, found);
        }
        let loaded = batch.keys().iter().map(|key| store.documents.get(key).cloned()).collect();
        let writes = batch.fold(loaded);
        if writes.is_empty() {
            continue;
        }
        batch.answered(writes.iter().map(|write| store.write(kind, write)).collect());
    }
    Some(batch.finish())
}
