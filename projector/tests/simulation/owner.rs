//! Two hosts that share the partitions, and what befalls them: the host's part of the work, step by step, with the very lanes
//! and batches of production.

use super::Mutation;
use super::store::{Letter, Store, letter_id};
use super::world::{Dice, PARTITIONS, World, deliveries};
use projector::apply::{
    Batch, Delivery, Finished, Lane, LetterNote, Outcome, Parked, Part, Partition, Progress, Stored, Write, occurrence,
};
use projector::projection::{Compiled, ReadModelKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// What was reached, and how often: (step, fault).
pub type Reach = BTreeMap<(&'static str, &'static str), u64>;

/// The host has died.
pub struct Crash;
type Step<T> = Result<T, Crash>;

pub fn partition(number: usize) -> Partition {
    Partition { topic: "events.loan".into(), number: i32::try_from(number).unwrap() }
}

struct Owned {
    lane: Lane,
    fence: i64,
    /// The offset to read next; beyond the lane's while something is held.
    read_at: usize,
    holding: u32,
}

#[derive(Default)]
struct Host {
    owned: BTreeMap<usize, Owned>,
    /// Progress of batches that are written, not saved yet.
    unsaved: BTreeMap<usize, Progress>,
    /// A mutation: the store as it was before this batch and the one before.
    early: Option<Store>,
}

/// What a former owner still does, long after it was replaced.
struct Zombie {
    writes: Vec<Write>,
    saves: Vec<(Partition, Progress)>,
    parks: Vec<(i64, Vec<Parked>)>,
}

pub struct Sim<'a> {
    pub compiled: Arc<Compiled>,
    pub world: &'a World,
    pub store: Store,
    pub mutation: Mutation,
    pub reached: &'a mut Reach,
    /// What operators gave up, and the documents that had it already.
    pub skipped: BTreeMap<Uuid, BTreeSet<String>>,
    /// Whether a tracker has lost its memory.
    pub cold: bool,
    dice: Dice,
    hosts: [Host; 2],
    logs: Vec<Vec<Delivery>>,
    made_anew: [bool; PARTITIONS],
    /// Offsets from which on nothing is there yet, or from which on a barrier holds.
    pub limit: [usize; PARTITIONS],
    /// Topics stay as they are.
    pub same_topics: bool,
    accepted: Arc<BTreeSet<Arc<str>>>,
    zombies: Vec<Zombie>,
    /// No more faults: the world must come to rest.
    pub calm: bool,
    pub last_stop: String,
    /// A batch never ends.
    stuck: bool,
    salt: u64,
}

impl<'a> Sim<'a> {
    pub fn new(
        compiled: Arc<Compiled>,
        world: &'a World,
        dice: Dice,
        mutation: Mutation,
        reached: &'a mut Reach,
    ) -> Self {
        let store = Store {
            forgetful: mutation == Mutation::ChangesForgotten,
            unconditional: mutation == Mutation::UnconditionalWrites,
            unfenced: mutation == Mutation::Unfenced,
            ..Store::default()
        };
        let mut sim = Self {
            compiled,
            world,
            store,
            mutation,
            reached,
            dice,
            skipped: BTreeMap::new(),
            cold: false,
            hosts: Default::default(),
            logs: world.log.clone(),
            made_anew: [false; PARTITIONS],
            limit: [usize::MAX; PARTITIONS],
            same_topics: false,
            accepted: Arc::default(),
            zombies: Vec::new(),
            calm: false,
            last_stop: String::new(),
            stuck: false,
            salt: 0,
        };
        if mutation == Mutation::EpochsMixed {
            let events = sim.logs.iter_mut().flatten().filter_map(|d| d.event.as_mut().ok());
            events.for_each(|event| event.envelope.reference.epoch = "e1".into());
        }
        for p in 0..PARTITIONS {
            sim.assign(p % 2, p);
        }
        sim
    }

    fn kind(&self) -> ReadModelKind {
        self.compiled.kind
    }

    fn reach(&mut self, step: &'static str, fault: &'static str) {
        *self.reached.entry((step, fault)).or_default() += 1;
    }

    fn unlucky(&mut self, n: usize) -> bool {
        !self.calm && self.dice.one_in(n)
    }

    fn may_crash(&mut self, step: &'static str, fault: &'static str) -> Step<()> {
        if self.unlucky(60) {
            self.reach(step, fault);
            return Err(Crash);
        }
        Ok(())
    }

    fn assign(&mut self, h: usize, p: usize) {
        let partition = partition(p);
        let fence = self.store.claim(&partition);
        let progress = self.store.progress.get(&partition).cloned().unwrap_or_default();
        let parked = if self.mutation == Mutation::ParkedForgotten {
            BTreeMap::new()
        } else {
            self.store.parked_aggregates(&partition)
        };
        let last = progress.last.clone();
        let before = usize::try_from(progress.next_offset).unwrap().checked_sub(1);
        let mut lane = Lane::new(progress, parked);
        // As the host does: the record before is read again, and tells whether the topic is still the same.
        let found = before.and_then(|at| self.logs[p].get(at)).and_then(|d| d.reference()).map(occurrence);
        if before.is_some() && last.is_some() && found != last && self.mutation != Mutation::NewTopicUnnoticed {
            self.reach("assign", "topic made anew meanwhile");
            lane.restart();
        }
        lane.fence(fence);
        lane.accept(Arc::clone(&self.accepted));
        let read_at = usize::try_from(lane.progress().next_offset).unwrap();
        self.hosts[h].unsaved.insert(p, lane.progress().clone());
        self.hosts[h].owned.insert(p, Owned { lane, fence, read_at, holding: 0 });
    }

    /// The owner's fence, and the offset that it reads next.
    pub fn stands(&self, p: usize) -> (i64, usize) {
        let owned = self.hosts.iter().find_map(|host| host.owned.get(&p)).unwrap();
        (owned.fence, usize::try_from(owned.lane.progress().next_offset).unwrap())
    }

    /// What is handled of a partition.
    pub fn progress(&self, p: usize) -> &Progress {
        self.hosts.iter().find_map(|host| host.owned.get(&p)).unwrap().lane.progress()
    }

    /// All partitions change hands, and read this log from now on.
    pub fn read_on(&mut self, logs: Vec<Vec<Delivery>>) {
        self.hosts = Default::default();
        self.logs = logs;
        self.cold = true;
        for p in 0..PARTITIONS {
            self.assign(p % 2, p);
        }
    }

    /// What is read.
    pub fn logs(&self) -> &[Vec<Delivery>] {
        &self.logs
    }

    /// Saves all that is written.
    pub fn save_all(&mut self) {
        (0..2).for_each(|h| self.save(h));
    }

    /// Everything that was in memory is gone; the partitions go to whoever is there.
    fn crash(&mut self, h: usize) {
        self.cold = true;
        let partitions: Vec<usize> = self.hosts[h].owned.keys().copied().collect();
        self.hosts[h] = Host::default();
        let to = self.dice.below(2);
        for p in partitions {
            self.assign(to, p);
        }
    }

    fn rebalance(&mut self) {
        let from = self.dice.below(2);
        let Some(p) = self.hosts[from].owned.keys().copied().next() else { return };
        self.reach("rebalance", "drained");
        self.cold = true;
        self.save(from);
        self.hosts[from].owned.remove(&p);
        self.assign(1 - from, p);
    }

    /// One thing happens. Tells whether there was anything to do.
    pub fn step(&mut self) -> bool {
        if self.stuck {
            return true;
        }
        let h = self.dice.below(2);
        if self.unlucky(40) {
            self.rebalance();
        }
        if !self.same_topics && self.unlucky(60) {
            self.make_anew();
        }
        if self.unlucky(12) {
            self.zombie_acts();
        }
        if self.unlucky(25) {
            self.operator();
        }
        let mut busy = false;
        for h in [h, 1 - h] {
            match self.batch(h, true) {
                Ok(did) => busy |= did,
                Err(Crash) => {
                    self.crash(h);
                    busy = true;
                }
            }
        }
        busy
    }

    /// The last acts of all who were left behind, and all that was asked for.
    pub fn come_to_rest(&mut self) {
        while !self.zombies.is_empty() {
            self.zombie_acts();
        }
        self.calm = true;
    }

    fn make_anew(&mut self) {
        let p = self.dice.below(PARTITIONS);
        let name = |e: &projector::apply::Event| self.world.disturbed.contains(&*e.envelope.reference.aggregate_id);
        if self.made_anew[p] || self.world.first[p].iter().any(name) || self.mutation == Mutation::EpochsMixed {
            return;
        }
        self.made_anew[p] = true;
        self.logs[p] = deliveries(self.world.sent_again(p));
        let h = usize::from(self.hosts[1].owned.contains_key(&p));
        if self.dice.one_in(2) {
            self.reach("topic made anew", "crash");
            self.crash(h);
        } else if let Some(owned) = self.hosts[h].owned.get_mut(&p) {
            if self.mutation != Mutation::NewTopicUnnoticed {
                owned.lane.restart();
                owned.read_at = 0;
            }
            self.reach("topic made anew", "under a running owner");
        }
    }

    fn zombie_acts(&mut self) {
        if self.zombies.is_empty() {
            return;
        }
        let kind = self.kind();
        let zombie = self.zombies.swap_remove(0);
        let mut all = true;
        for write in &zombie.writes {
            let outcome = self.store.write(kind, write);
            all &= outcome == Outcome::Written;
            let taken = outcome == Outcome::Written;
            self.reach("write", if taken { "of a former owner, taken" } else { "of a former owner, refused" });
        }
        if !all {
            // It would load and fold again; progress comes after that.
            return;
        }
        for (fence, parked) in &zombie.parks {
            if !self.store.park(*fence, parked) {
                // That ends it: it saves nothing that comes after.
                return self.reach("park", "of a former owner, refused");
            }
        }
        for (partition, progress) in &zombie.saves {
            if !self.store.save(partition, progress) {
                self.reach("save", "of a former owner, refused");
            }
        }
    }

    fn load(&mut self, keys: &[String]) -> Vec<Option<Stored>> {
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
    fn batch(&mut self, h: usize, outer: bool) -> Step<bool> {
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
        let finished = self.fold(h, parts, outer)?;
        self.may_crash("park", "crash before")?;
        self.settle(h, finished)?;
        Ok(true)
    }

    /// Loads, folds and writes until the store has answered.
    fn fold(&mut self, h: usize, parts: Vec<(Partition, Part)>, outer: bool) -> Step<Finished> {
        let mut batch = Batch::new(Arc::clone(&self.compiled), parts);
        let kind = self.kind();
        let (mut entries, mut written) = (BTreeMap::new(), BTreeSet::new());
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
                        writes.iter().for_each(|write| _ = self.store.write(kind, write));
                        self.reach("write", "done, answer lost");
                    }
                    _ => break writes.iter().map(|write| self.store.write(kind, write)).collect::<Vec<_>>(),
                }
            };
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
        Ok(batch.finish())
    }

    fn settle(&mut self, h: usize, finished: Finished) -> Step<()> {
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
            self.hosts[h].unsaved.insert(p, progress);
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

    fn save(&mut self, h: usize) {
        for (p, progress) in std::mem::take(&mut self.hosts[h].unsaved) {
            self.store.save(&partition(p), &progress);
        }
    }

    /// An operator looks at the first dead letter of some aggregate: retries it, or gives it up.
    pub fn operator(&mut self) -> bool {
        let letters: Vec<&Letter> = self.store.letters.values().collect();
        if letters.is_empty() {
            return false;
        }
        let letter = letters[self.dice.below(letters.len())];
        let (partition, aggregate) = (letter.parked.partition.clone(), letter.parked.delivery.aggregate());
        let Some(first) = self.store.letters_of(&partition, &aggregate).into_iter().next() else { return false };
        let garbled = first.parked.delivery.event.as_ref().is_ok_and(|e| matches!(e.data, Some(Err(_))));
        let skip = garbled && self.calm || self.dice.one_in(5);
        let id = letter_id(&first.parked);
        if skip {
            self.reach("letters", "given up");
            self.skipped.insert(id, first.done.clone());
            self.store.letters.get_mut(&id).unwrap().skip = true;
        }
        let p = usize::try_from(partition.number).unwrap();
        let h = usize::from(self.hosts[1].owned.contains_key(&p));
        if self.retry(h, p, &aggregate).is_err() {
            self.crash(h);
        }
        true
    }

    /// The owner folds an aggregate's letters, in order.
    fn retry(&mut self, h: usize, p: usize, aggregate: &str) -> Step<()> {
        if self.mutation != Mutation::LettersBeforeSave {
            self.save(h);
        }
        loop {
            let mut letters = self.store.letters_of(&partition(p), aggregate);
            if self.mutation == Mutation::LettersReversed {
                letters.reverse();
            }
            let Some(owned) = self.hosts[h].owned.get_mut(&p) else { return Ok(()) };
            if letters.is_empty() {
                owned.lane.unpark(aggregate);
                return Ok(());
            }
            if self.mutation != Mutation::LettersTooEarly {
                let covered = letters.iter().take_while(|letter| owned.lane.covers(&letter.parked.delivery)).count();
                letters.truncate(covered);
            }
            if letters.is_empty() {
                self.reach("letters", "not read again yet");
                return Ok(());
            }
            let forget = self.mutation == Mutation::DoneForgotten;
            let done = |letter: &Letter| if forget { BTreeSet::new() } else { letter.done.clone() };
            let notes = letters.iter().map(|letter| LetterNote { done: done(letter), skip: letter.skip }).collect();
            let deliveries = letters.iter().map(|letter| letter.parked.delivery.clone()).collect();
            let part = Part { deliveries, letters: Some(notes), ..Part::default() };
            let finished = self.fold(h, vec![(partition(p), part)], false)?;
            self.may_crash("letters", "crash before they are settled")?;
            let settled = finished.settled[0].1;
            for letter in &letters[..settled] {
                let id = letter_id(&letter.parked);
                self.store.letters.remove(&id);
                self.store.settled.insert(id);
            }
            if settled > 0 {
                self.reach("letters", "folded");
            }
            self.may_crash("letters", "crash after")?;
            if let Some((_, stop)) = finished.stops.first() {
                self.reach("letters", "still fails");
                let letter = self.store.letters.get_mut(&letter_id(&letters[settled].parked)).unwrap();
                letter.done.clone_from(&stop.done);
                return Ok(());
            }
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
