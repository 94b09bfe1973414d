//! Two hosts that share the partitions, and what befalls them: the host's part of the work, step by step, with the very lanes
//! and batches of production.

mod batch;
mod letters;

use super::Mutation;
use super::store::Store;
use super::world::{Dice, PARTITIONS, World, deliveries};
use projector::apply::{Delivery, Lane, Outcome, Parked, Partition, Progress, Write, occurrence};
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
    /// Letters whose last retry didn't end.
    cut_short: BTreeSet<Uuid>,
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
            cut_short: BTreeSet::new(),
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
}
