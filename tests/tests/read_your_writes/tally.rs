//! What all clients saw.

use std::collections::BTreeMap;

/// Reads with a token that were answered, and what was wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answered reads by endpoint: all, and those that had to wait.
    pub(crate) reads: BTreeMap<&'static str, (u64, u64)>,
    /// Answers 503 `read-model-behind`, after which the client asked again.
    pub(crate) behind: u64,
    /// Answers 503 `timed-out` or `write-side-unavailable`, after which the client asked again, by endpoint and which of them.
    pub(crate) too_slow: BTreeMap<(&'static str, String), u64>,
    /// Answers that missed what their caller had written.
    pub(crate) misses: Vec<String>,
    /// Reads with tokens of two aggregates at least.
    pub(crate) of_several: u64,
}

const SHOWN_MAX: usize = 20;

impl Tally {
    pub(crate) fn miss(&mut self, what: String) {
        if self.misses.len() < SHOWN_MAX {
            self.misses.push(what);
        }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.reads.values().map(|(all, _)| all).sum()
    }

    pub(crate) fn waited(&self) -> u64 {
        self.reads.values().map(|(_, waited)| waited).sum()
    }

    pub(crate) fn too_slow(&self) -> u64 {
        self.too_slow.values().sum()
    }

    pub(crate) fn print(&self) {
        let (answered, waited) = (self.answered(), self.waited());
        let percent = 100 * waited / answered.max(1);
        eprintln!(
            "{answered} reads, {waited} ({percent} %) waited, {} of several aggregates, {} were told to come again, {} were too slow",
            self.of_several,
            self.behind,
            self.too_slow()
        );
        for (endpoint, (all, waited)) in &self.reads {
            eprintln!("  {endpoint}: {all}, {waited} waited");
        }
        for ((endpoint, problem), count) in &self.too_slow {
            eprintln!("  {endpoint}: {count} × {problem}");
        }
    }
}
