//! `./dev bench event`: what one event costs, step by step, in time. How many instructions that is, `tests/instructions.rs` counts.
#![allow(missing_docs, clippy::unwrap_used)]

mod work;

use divan::Bencher;
use divan::counter::ItemsCount;
use projector::apply::{Delivery, Lane};
use projector::event::Raw;
use std::sync::LazyLock;
use work::{EVENTS_EACH, Known, Shelf, envelope, messages};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const VISITS: usize = 200;

static KNOWN: LazyLock<Known> = LazyLock::new(Known::load);
static MESSAGES: LazyLock<Vec<Raw>> = LazyLock::new(|| messages(VISITS));

fn events() -> ItemsCount {
    ItemsCount::new(VISITS * EVENTS_EACH)
}

fn deliveries() -> Vec<Delivery> {
    (0..).zip(MESSAGES.iter()).map(|(offset, raw)| KNOWN.delivery(offset, raw.clone())).collect()
}

fn main() {
    let mut shelf = Shelf::default();
    shelf.fold(KNOWN.batch(Lane::default(), deliveries()));
    let versions = i64::try_from(VISITS * EVENTS_EACH).unwrap();
    assert_eq!(shelf.sum(), (VISITS, versions), "what is measured must be right");
    divan::main();
}

/// The envelope from key and headers.
#[divan::bench]
fn a_envelope(bencher: Bencher<'_, '_>) {
    bencher.counter(events()).bench(|| MESSAGES.iter().map(envelope).collect::<Vec<_>>());
}

/// The payload from Avro.
#[divan::bench]
fn b_payload(bencher: Bencher<'_, '_>) {
    let envelopes: Vec<_> = MESSAGES.iter().map(|raw| (envelope(raw), raw.payload().unwrap())).collect();
    bencher
        .counter(events())
        .bench(|| envelopes.iter().map(|(e, payload)| KNOWN.payload(e, payload)).collect::<Vec<_>>());
}

/// What is new, what comes twice, what waits; and which document each event is for.
#[divan::bench]
fn c_judge_and_sort(bencher: Bencher<'_, '_>) {
    bencher.counter(events()).with_inputs(deliveries).bench_values(|all| KNOWN.batch(Lane::default(), all));
}

/// The programs: each document's five events.
#[divan::bench]
fn d_fold(bencher: Bencher<'_, '_>) {
    let batch = || KNOWN.batch(Lane::default(), deliveries());
    bencher.counter(events()).with_inputs(batch).bench_values(|mut batch| {
        let loaded = vec![None; VISITS];
        let writes = batch.fold(loaded);
        (batch, writes)
    });
}

/// From answered writes to what is saved as handled.
#[divan::bench]
fn e_settle(bencher: Bencher<'_, '_>) {
    let folded = || {
        let mut batch = KNOWN.batch(Lane::default(), deliveries());
        let outcomes = Shelf::default().write(batch.fold(vec![None; VISITS]));
        (batch, outcomes)
    };
    bencher.counter(events()).with_inputs(folded).bench_values(|(mut batch, outcomes)| {
        batch.answered(outcomes);
        batch.finish()
    });
}

/// All of it, in one batch.
#[divan::bench]
fn f_all(bencher: Bencher<'_, '_>) {
    bencher.counter(events()).with_inputs(|| MESSAGES.clone()).bench_values(|messages| {
        let deliveries = (0..).zip(messages).map(|(offset, raw)| KNOWN.delivery(offset, raw)).collect();
        Shelf::default().fold(KNOWN.batch(Lane::default(), deliveries))
    });
}
