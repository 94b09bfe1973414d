//! How many instructions an event takes on its way through the core: a number that doesn't drift with the machine's noise, held
//! to a budget. Counted by valgrind on this very test, for two numbers of events, so that what is done once doesn't count.
//!
//! Raise the budget only for something that is worth it, and lower it when an event has become cheaper.
#![allow(clippy::unwrap_used)]

#[path = "../benches/event/work.rs"]
mod work;

use projector::apply::Lane;
use std::process::Command;
use work::{EVENTS_EACH, Known, Shelf, messages};

/// In the profile that tests are built with.
const BUDGET: f64 = 1.0;
/// How far below it the budget is worth being lowered.
const SLACK: f64 = 0.9;
const VISITS: usize = 400;
const COUNTED: &str = "INSTRUCTIONS_VISITS";

/// What is counted. By itself it shows that the work is done: each visit has one document, at its fifth version.
#[test]
fn the_work() {
    let visits = std::env::var(COUNTED).map_or(10, |n| n.parse().unwrap());
    let (known, mut shelf, mut lane) = (Known::load(), Shelf::default(), Lane::default());
    let mut all = messages(visits).into_iter().enumerate().peekable();
    while all.peek().is_some() {
        let batch = all.by_ref().take(500);
        let batch = batch.map(|(offset, raw)| known.delivery(i64::try_from(offset).unwrap(), raw)).collect();
        let finished = shelf.fold(known.batch(lane, batch));
        assert_eq!((finished.stops.len(), finished.parked.len()), (0, 0));
        lane = finished.lanes.into_iter().next().unwrap().1;
    }
    let versions = i64::try_from(visits * EVENTS_EACH).unwrap();
    assert_eq!(shelf.sum(), (visits, versions));
}

fn instructions(visits: usize) -> f64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe().unwrap());
    valgrind.args(["--exact", "the_work", "--test-threads=1"]).env(COUNTED, visits.to_string());
    let output = valgrind.output().expect("valgrind, which ./dev test installs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let count = said.lines().find_map(|line| line.split_once("Collected :")).expect("callgrind's sum").1;
    count.trim().parse().unwrap()
}

#[test]
fn an_event_stays_within_its_budget() {
    let (few, many) = (instructions(VISITS), instructions(3 * VISITS));
    #[allow(clippy::cast_precision_loss, reason = "some thousands")]
    let each = (many - few) / (2 * VISITS * EVENTS_EACH) as f64;
    eprintln!("{each:.0} instructions an event, of {BUDGET:.0}");
    assert!(each <= BUDGET, "{each:.0} instructions an event, above the budget of {BUDGET:.0}: profile it with `./dev bench event`");
    assert!(each >= BUDGET * SLACK, "{each:.0} instructions an event: lower the budget of {BUDGET:.0}, so that it is kept");
}
