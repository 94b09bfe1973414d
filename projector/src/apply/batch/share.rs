//! One partition's share of a batch while it is under way: its messages with their plans, and where it must stop.

use super::super::lane::{Delivery, Item, Lane, LetterNote, Plan};
use super::super::{Partition, Progress};
use super::{Part, lookup};
use std::collections::HashMap;

pub(super) struct Share {
    pub(super) partition: Partition,
    pub(super) lane: Lane,
    pub(super) items: Vec<Item>,
    pub(super) letters: Option<Vec<LetterNote>>,
    pub(super) no_parking: bool,
    /// The first item that can't be handled now.
    pub(super) stop: Option<(usize, String)>,
    /// What was looked up for an item, by its number.
    pub(super) looked_up: HashMap<usize, lookup::Answer>,
}

impl Share {
    pub(super) fn new(partition: Partition, part: Part) -> Self {
        let items: Vec<Item> = match &part.letters {
            None => part.lane.admit(part.deliveries, part.give_up),
            Some(notes) => {
                let plan =
                    |note: Option<&LetterNote>| if note.is_some_and(|n| n.skip) { Plan::Pass } else { Plan::Fold };
                let letters = part.deliveries.into_iter().enumerate();
                letters.map(|(i, delivery)| letter(delivery, plan(notes.get(i)))).collect()
            }
        };
        let stop = items.iter().enumerate().find_map(|(i, item)| match &item.plan {
            Plan::Stop(reason) => Some((i, reason.clone())),
            _ => None,
        });
        Self {
            partition,
            lane: part.lane,
            items,
            letters: part.letters,
            no_parking: part.no_parking,
            stop,
            looked_up: HashMap::new(),
        }
    }

    /// Its progress once all is folded; none where something else is to be done first.
    pub(super) fn foreseen(&self) -> Option<Progress> {
        if self.letters.is_some() || self.stop.is_some() {
            return None;
        }
        self.lane.foreseen(&self.items)
    }
}

fn letter(delivery: Delivery, plan: Plan) -> Item {
    let plan = match (&delivery.event, plan) {
        (Err(reason), Plan::Fold) => Plan::Fail(reason.clone()),
        (_, plan) => plan,
    };
    Item::new(delivery, plan, false)
}
