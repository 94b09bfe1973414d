//! What progress comes to before the store has answered: a store with transactions saves it with the writes that it covers.

use super::super::{Partition, Progress};
use super::{Batch, State};
use crate::projection::ReadModelKind;

impl Batch {
    /// Each partition's progress, should the store write all that [`Batch::fold`] has just given. None where anything else is to be
    /// done before it holds: another round, parking, a stop, a held event.
    #[must_use]
    pub fn foreseen(&self) -> Option<Vec<(Partition, Progress)>> {
        let mut folds = self.documents.iter().flat_map(|document| &document.folds);
        // A join looks again after it has written.
        if self.compiled.kind == ReadModelKind::Join
            || folds.any(|fold| !matches!(fold.state, State::InFlight | State::Done))
        {
            return None;
        }
        self.shares.iter().map(|share| Some((share.partition.clone(), share.foreseen()?))).collect()
    }
}
