//! The order, proved on made-up histories; `tests/republish/order.rs` shows that Postgres gives this very order to real ones.
//!
//! The history is that of a database with a few sessions, step by step: transactions get their id with their first write, a
//! statement keeps the snapshot that it began with while it waits for an aggregate's lock, locks go with the transaction's end.

use crate::apply::{Progress, Seen};
use crate::event::EventRef;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};

const SESSIONS: usize = 5;
const AGGREGATES: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    aggregate: usize,
    sequence: i64,
    txid: u64,
    tx_min: u64,
}

impl Row {
    fn reference(&self) -> EventRef {
        EventRef {
            epoch: "e".into(),
            txid: self.txid,
            tx_min: self.tx_min,
            snapshot: None,
            aggregate_id: format!("a{}", self.aggregate).into(),
            sequence: self.sequence,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A statement begins, and takes its snapshot.
    Begin { session: usize, aggregate: usize },
    /// The session's statement goes on, if nobody holds its aggregate.
    Write { session: usize },
    /// The session's transaction ends.
    End { session: usize, commit: bool },
}

#[derive(Default)]
struct Session {
    txid: Option<u64>,
    statement: Option<(usize, u64)>,
    rows: Vec<Row>,
}

#[derive(Default)]
struct Database {
    last_txid: u64,
    running: BTreeSet<u64>,
    sessions: [Session; SESSIONS],
    holders: [Option<usize>; AGGREGATES],
    sequences: [i64; AGGREGATES],
    /// In the order of the commits: Debezium's.
    log: Vec<Row>,
}

impl Database {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Begin { session, aggregate } => {
                let tx_min = self.running.first().copied().unwrap_or(self.last_txid + 1);
                self.sessions[session].statement.get_or_insert((aggregate, tx_min));
            }
            Step::Write { session } => {
                let Some((aggregate, tx_min)) = self.sessions[session].statement else { return };
                if self.holders[aggregate].is_some_and(|holder| holder != session) {
                    return;
                }
                self.holders[aggregate] = Some(session);
                self.sequences[aggregate] += 1;
                let txid = *self.sessions[session].txid.get_or_insert_with(|| {
                    self.last_txid += 1;
                    self.running.insert(self.last_txid);
                    self.last_txid
                });
                self.sessions[session].statement = None;
                let sequence = self.sequences[aggregate];
                self.sessions[session].rows.push(Row { aggregate, sequence, txid, tx_min });
            }
            Step::End { session, commit } => {
                let ended = std::mem::take(&mut self.sessions[session]);
                ended.txid.iter().for_each(|txid| _ = self.running.remove(txid));
                for aggregate in 0..AGGREGATES {
                    if self.holders[aggregate] == Some(session) {
                        self.holders[aggregate] = None;
                        if !commit {
                            let written = ended.rows.iter().filter(|r| r.aggregate == aggregate).count();
                            self.sequences[aggregate] -= i64::try_from(written).unwrap_or_default();
                        }
                    }
                }
                if commit {
                    self.log.extend(ended.rows);
                }
            }
        }
    }
}

/// What the query of the module does, on one epoch.
fn in_order(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|r| (r.aggregate, r.sequence));
    let mut floors: HashMap<usize, u64> = HashMap::new();
    let mut placed: Vec<(u64, Row)> = rows
        .into_iter()
        .map(|row| {
            let floor = floors.entry(row.aggregate).or_default();
            *floor = row.tx_min.max(*floor);
            (*floor, row)
        })
        .collect();
    placed.sort_by_key(|(floor, row)| (*floor, row.sequence));
    placed.into_iter().map(|(_, row)| row).collect()
}

/// Whether each event is new to a reader, and each aggregate's sequences rise.
fn is_kept(rows: &[Row]) -> bool {
    let mut progress = Progress::default();
    let mut last: BTreeMap<usize, i64> = BTreeMap::new();
    (0_i64..).zip(rows).all(|(offset, row)| {
        let new = progress.seen(&row.reference()) == Seen::New;
        progress.handled(&row.reference(), offset);
        let before = last.insert(row.aggregate, row.sequence).unwrap_or(0);
        new && before < row.sequence
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        (0..SESSIONS, 0..AGGREGATES).prop_map(|(session, aggregate)| Step::Begin { session, aggregate }),
        (0..SESSIONS).prop_map(|session| Step::Write { session }),
        (0..SESSIONS).prop_map(|session| Step::Write { session }),
        (0..SESSIONS, prop::bool::weighted(0.8)).prop_map(|(session, commit)| Step::End { session, commit }),
    ];
    prop::collection::vec(one, 10..250)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// A topic refilled from a snapshot, then what Debezium sends: a window of what the snapshot saw, and what it didn't see.
    #[test]
    fn a_refilled_topic_is_read_like_the_lost_one((before, after) in (steps(), steps()), window in 0_usize..50) {
        let mut database = Database::default();
        before.iter().for_each(|step| database.step(step));
        let seen = database.log.len();
        prop_assert!(is_kept(&database.log), "what Debezium sends must be right first");
        let refill = in_order(database.log.clone());
        prop_assert!(is_kept(&refill), "{:?}", refill);

        after.iter().for_each(|step| database.step(step));
        let mut progress = Progress::default();
        let resent = &database.log[seen.saturating_sub(window)..];
        for (offset, row) in (0_i64..).zip(refill.iter().chain(resent)) {
            let expected = match usize::try_from(offset).unwrap_or_default() {
                at if at < seen => Seen::New,
                at if at < seen + window.min(seen) => Seen::Duplicate,
                _ => Seen::New,
            };
            prop_assert_eq!(progress.seen(&row.reference()), expected, "at {} of {} {:?}", offset, seen, row);
            progress.handled(&row.reference(), offset);
        }
    }
}

/// The history in which a simpler order fails, as steps.
fn history(steps: &[Step]) -> Vec<Row> {
    let mut database = Database::default();
    steps.iter().for_each(|step| database.step(step));
    database.log
}

#[test]
fn by_transaction_an_aggregate_would_go_backwards() {
    use Step::{Begin, End, Write};
    let rows = history(&[
        Begin { session: 0, aggregate: 1 },
        Write { session: 0 },
        Begin { session: 1, aggregate: 0 },
        Write { session: 1 },
        End { session: 1, commit: true },
        Begin { session: 0, aggregate: 0 },
        Write { session: 0 },
        End { session: 0, commit: true },
    ]);
    assert!(is_kept(&in_order(rows.clone())));
    let mut wrong = rows;
    wrong.sort_by_key(|r| (r.tx_min, r.txid, r.sequence));
    assert!(!is_kept(&wrong), "the test shows nothing: {wrong:?}");
}

#[test]
fn by_tx_min_a_statement_that_waited_would_overtake() {
    use Step::{Begin, End, Write};
    let rows = history(&[
        // an old transaction, so that snapshots differ
        Begin { session: 2, aggregate: 1 },
        Write { session: 2 },
        // this one's snapshot sees it, then waits for the next one's lock
        Begin { session: 1, aggregate: 0 },
        End { session: 2, commit: true },
        Begin { session: 0, aggregate: 0 },
        Write { session: 0 },
        End { session: 0, commit: true },
        Write { session: 1 },
        End { session: 1, commit: true },
    ]);
    assert!(is_kept(&in_order(rows.clone())));
    let mut wrong = rows;
    wrong.sort_by_key(|r| (r.tx_min, r.sequence));
    assert!(!is_kept(&wrong), "the test shows nothing: {wrong:?}");
}
