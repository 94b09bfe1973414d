//! How many instructions an event takes on its way through the core: a number that doesn't drift with the machine's noise, held
//! to a budget. Counted by valgrind, on this very test.
//!
//! Raise the budget only for something that is worth it, and lower it when an event has become cheaper.
#![allow(clippy::unwrap_used)]

#[path = "../benches/event/work.rs"]
mod work;

use projector::apply::Lane;
use projector::event::Raw;
use std::process::Command;
use work::{EVENTS_EACH, Known, Shelf, messages};

/// In the profile that tests are built with.
const BUDGET: f64 = 46_000.0;
/// How far below it the budget is worth being lowered.
const SLACK: f64 = 0.9;
const VISITS: usize = 1_000;
const COUNTED: &str = "INSTRUCTIONS_VISITS";

/// What is counted; valgrind knows it by its name.
#[inline(never)]
fn counted_work(known: &Known, shelf: &mut Shelf, messages: Vec<Raw>) {
    let (mut lane, mut messages) = (Lane::default(), (0..).zip(messages).peekable());
    while messages.peek().is_some() {
        let batch = messages.by_ref().take(500).map(|(offset, raw)| known.delivery(offset, raw)).collect();
        let finished = shelf.fold(known.batch(lane, batch));
        assert_eq!((finished.stops.len(), finished.parked.len()), (0, 0));
        lane = finished.lanes.into_iter().next().unwrap().1;
    }
}

/// By itself it shows that the work is done: each visit has one document, at its fifth version.
#[test]
fn the_work() {
    let visits = std::env::var(COUNTED).map_or(10, |n| n.parse().unwrap());
    let (known, mut shelf) = (Known::load(), Shelf::default());
    counted_work(&known, &mut shelf, messages(visits));
    assert_eq!(shelf.sum(), (visits, i64::try_from(visits * EVENTS_EACH).unwrap()));
}

#[test]
fn an_event_stays_within_its_budget() {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted_work*"]);
    valgrind.arg(std::env::current_exe().unwrap()).args(["--exact", "the_work", "--test-threads=1"]);
    let output = valgrind.env(COUNTED, VISITS.to_string()).output().expect("valgrind, which ./dev test installs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let count = said.lines().find_map(|line| line.split_once("Collected :")).expect("callgrind's sum").1;
    #[allow(clippy::cast_precision_loss, reason = "some thousands")]
    let each = count.trim().parse::<f64>().unwrap() / (VISITS * EVENTS_EACH) as f64;
    eprintln!("{each:.0} instructions an event, of {BUDGET:.0}");
    assert!(
        each <= BUDGET,
        "{each:.0} instructions an event are above the budget of {BUDGET:.0}; `./dev bench event` shows where"
    );
    assert!(
        each >= BUDGET * SLACK,
        "{each:.0} instructions an event: lower the budget of {BUDGET:.0}, so that this is kept"
    );
}
