#![allow(clippy::unwrap_used)]

use super::super::feed::{Feed, ProgressSource};
use super::*;
use crate::event::EventRef;
use async_trait::async_trait;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// What a projector would have published; reads can be held at a gate, to come between a read's start and its end.
#[derive(Default)]
struct Published {
    progress: Mutex<ProgressMap>,
    reads: AtomicUsize,
    gate: Option<Gate>,
}

#[derive(Default)]
struct Gate {
    taken: Notify,
    open: Notify,
}

#[async_trait]
impl ProgressSource for Published {
    async fn read(&self, _: i64) -> Result<ProgressMap, String> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let progress = self.progress.lock().unwrap().clone();
        if let Some(gate) = &self.gate {
            gate.taken.notify_one();
            gate.open.notified().await;
        }
        Ok(progress)
    }
}

impl Published {
    fn handle(&self, id: &str, txid: u64, sequence: i64) {
        let partition = Partition { topic: "events.loan".into(), number: partition_of(id, 12) };
        let mut all = self.progress.lock().unwrap();
        let progress = all.entry(partition).or_default();
        let event =
            EventRef { epoch: "e".into(), txid, tx_min: txid, snapshot: None, aggregate_id: id.into(), sequence };
        let offset = progress.next_offset;
        progress.handled(&event, offset);
    }
}

fn topics() -> BTreeMap<String, i32> {
    BTreeMap::from([("events.loan".to_owned(), 12)])
}

fn token(epoch: &str, txid: u64, streams: &[(&str, &str, i64)]) -> Token {
    let stream = |(kind, id, sequence): &(&str, &str, i64)| super::super::token::Stream {
        aggregate_type: (*kind).into(),
        aggregate_id: (*id).into(),
        sequence: *sequence,
    };
    Token { epoch: epoch.into(), txid, streams: streams.iter().map(stream).collect() }
}

fn started(source: Published) -> (Arc<Feed>, Arc<Published>) {
    let source = Arc::new(source);
    let feed = Feed::new(7);
    tokio::spawn(Arc::clone(&feed).follow(Arc::clone(&source) as Arc<dyn ProgressSource>));
    (feed, source)
}

async fn wait_for(feed: &Arc<Feed>, token: Token, wait_ms: u64) -> Result<Arc<ProgressMap>, Unmet> {
    let demands = demands(&[token], &topics());
    reach(&mut feed.subscribe(), &demands, deadline(Instant::now(), wait_ms)).await
}

#[test]
fn only_streams_of_topics_that_the_read_model_takes_are_asked_for() {
    let asked = demands(&[token("e", 5, &[("loan", "l-1", 1), ("shelf", "s-1", 9)])], &topics());
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].partition.number, partition_of("l-1", 12));
}

#[tokio::test]
async fn what_is_handled_already_is_answered_at_once() {
    let (feed, source) = started(Published::default());
    source.handle("l-1", 5, 1);
    feed.notify();
    assert!(
        wait_for(&feed, token("e", 5, &[("loan", "l-1", 1)]), 0).await.is_ok(),
        "one look is granted without waiting"
    );
    assert!(
        wait_for(&feed, token("e", 5, &[("shelf", "s-1", 1)]), 0).await.is_ok(),
        "nothing is asked of this read model"
    );
}

#[tokio::test]
async fn a_waiter_wakes_when_its_event_is_handled_not_before() {
    let (feed, source) = started(Published::default());
    let asked = token("e", 20, &[("loan", "l-1", 2), ("loan", "l-2", 1)]);
    let waiter = tokio::spawn({
        let feed = Arc::clone(&feed);
        async move { wait_for(&feed, asked, 1_000).await }
    });
    for (id, sequence) in [("l-3", 1), ("l-1", 2)] {
        source.handle(id, 20, sequence);
        feed.notify();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!waiter.is_finished(), "one of two streams isn't there yet");
    }
    source.handle("l-2", 20, 1);
    feed.notify();
    assert!(waiter.await.unwrap().is_ok());
}

#[tokio::test]
async fn at_the_time_limit_it_says_what_was_reached() {
    let (feed, source) = started(Published::default());
    source.handle("l-1", 5, 1);
    feed.notify();
    let begin = Instant::now();
    let asked = token("e", 9, &[("loan", "l-1", 2)]);
    let Err(Unmet::Behind(progress)) = wait_for(&feed, asked.clone(), 300).await else { panic!("it isn't there") };
    assert!((300..900).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    let asked = demands(&[asked], &topics());
    assert_eq!(reached(&asked, &progress)[0]["next_offset"], 1);
    assert_eq!(asked[0].to_json()["stream"], json!(["loan", "l-1", 2]));
}

#[test]
fn waits_are_bounded_whatever_is_asked() {
    assert!(deadline(Instant::now(), u64::MAX) - Instant::now() <= Duration::from_millis(WAIT_MS_MAX));
}

#[tokio::test]
async fn another_epoch_is_said_at_once() {
    let (feed, source) = started(Published::default());
    source.handle("l-1", 5, 1);
    feed.notify();
    let begin = Instant::now();
    let outcome = wait_for(&feed, token("restored", 1, &[("loan", "l-9", 1), ("loan", "l-1", 1)]), 5_000).await;
    assert_eq!(outcome, Err(Unmet::UnknownEpoch { token: "restored".into(), reached: "e".into() }));
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_notification_during_a_read_is_not_lost() {
    let (feed, source) = started(Published { gate: Some(Gate::default()), ..Published::default() });
    let gate = source.gate.as_ref().unwrap();
    let waiter = tokio::spawn({
        let feed = Arc::clone(&feed);
        async move { wait_for(&feed, token("e", 5, &[("loan", "l-1", 1)]), 900).await }
    });
    gate.taken.notified().await;
    // The read has taken its snapshot, without the event; now the event is published, and only then the read ends.
    source.handle("l-1", 5, 1);
    feed.notify();
    let begin = Instant::now();
    gate.open.notify_one();
    gate.taken.notified().await;
    gate.open.notify_one();
    assert!(waiter.await.unwrap().is_ok());
    assert!(begin.elapsed() < Duration::from_millis(500), "by the notification, not by the look each second");
}

#[tokio::test]
async fn what_was_notified_while_nobody_waited_is_read_for_the_first_waiter() {
    let (feed, source) = started(Published::default());
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    source.handle("l-1", 5, 1);
    feed.notify();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let reads = source.reads.load(Ordering::SeqCst);
    let begin = Instant::now();
    assert!(wait_for(&feed, token("e", 5, &[("loan", "l-1", 1)]), 1_000).await.is_ok());
    assert_eq!(source.reads.load(Ordering::SeqCst), reads + 1);
    assert!(begin.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn a_lost_notification_costs_a_second_at_most() {
    let (feed, source) = started(Published::default());
    let waiter = tokio::spawn({
        let feed = Arc::clone(&feed);
        async move { wait_for(&feed, token("e", 5, &[("loan", "l-1", 1)]), 5_000).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begin = Instant::now();
    source.handle("l-1", 5, 1);
    assert!(waiter.await.unwrap().is_ok());
    assert!(begin.elapsed() <= Duration::from_millis(1_900), "{:?}", begin.elapsed());
}

#[test]
fn the_recent_set_tells_of_events_that_left_no_trace_in_the_document() {
    let source = Published::default();
    source.handle("l-1", 5, 3);
    let progress = source.progress.lock().unwrap().clone();
    assert!(recently_handled(&progress, "l-1", 2, &topics()));
    assert!(!recently_handled(&progress, "l-1", 4, &topics()));
    assert!(!recently_handled(&progress, "l-2", 1, &topics()));
    assert_eq!(offsets_of(&progress, "l-1", &topics()), [1]);
    assert_eq!(position(&progress), 1);
}

#[tokio::test]
async fn a_dead_letter_is_never_answered_with_success() {
    let source = Published::default();
    source.handle("l-1", 10, 1);
    source.handle("l-1", 11, 2);
    source.handle("l-1", 12, 3);
    let partition = Partition { topic: "events.loan".into(), number: partition_of("l-1", 12) };
    source.progress.lock().unwrap().get_mut(&partition).unwrap().parked.insert("l-1".into(), 2);
    let (feed, source) = started(source);
    assert!(
        wait_for(&feed, token("e", 10, &[("loan", "l-1", 1)]), 1_000).await.is_ok(),
        "what came before it is there"
    );
    let begun = Instant::now();
    for (txid, sequence) in [(11, 2), (12, 3)] {
        let unmet = wait_for(&feed, token("e", txid, &[("loan", "l-1", sequence)]), 5_000).await.unwrap_err();
        assert!(matches!(unmet, Unmet::Parked(_)), "{unmet:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "at once");
    let progress = source.progress.lock().unwrap().clone();
    assert!(recently_handled(&progress, "l-1", 1, &topics()) && !recently_handled(&progress, "l-1", 2, &topics()));
}
