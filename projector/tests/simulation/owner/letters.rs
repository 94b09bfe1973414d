//! Dead letters: an operator retries them, or gives them up.

use super::super::Mutation;
use super::super::store::{Letter, letter_id};
use super::{Sim, Step, partition};
use projector::apply::{LetterNote, Part};
use std::collections::BTreeSet;

impl Sim<'_> {
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
        let id = letter_id(&first.parked);
        // Whether a retry that was cut short has folded it can't be said; to give it up then is right either way.
        let skip = garbled && self.calm || self.dice.one_in(5) && !self.cut_short.contains(&id);
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
    pub(super) fn retry(&mut self, h: usize, p: usize, aggregate: &str) -> Step<()> {
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
            let ids: Vec<_> = letters.iter().map(|letter| letter_id(&letter.parked)).collect();
            self.cut_short.extend(&ids);
            let (finished, _) = self.fold(h, vec![(partition(p), part)], false)?;
            self.may_crash("letters", "crash before they are settled")?;
            ids.iter().for_each(|id| _ = self.cut_short.remove(id));
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
