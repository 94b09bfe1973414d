//! The control store's dead letters, fences and epochs, on a real Postgres, each test in a database of its own.

#![allow(clippy::unwrap_used, clippy::type_complexity, missing_docs)]

use projector::apply::{Partition, Progress};
use projector::control::{
    Actor, Control, ControlError, DEAD_LETTERS_CHANNEL, DeadLetter, DeadLetterState, Fate, Selection, aggregate_text,
};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

const TESTS: Actor<'_> = Actor { who: "tests", why: None };

/// A control store with a generation, whose partition is ours.
struct Store {
    control: Control,
    generation_id: i64,
    partition: Partition,
    fence: i64,
    server: String,
    database: String,
}

impl Store {
    async fn start() -> Self {
        let server = std::env::var("CONTROL_DATABASE_URL").unwrap();
        let database = format!("control_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("create database {database}"))).execute(&mut admin).await.unwrap();
        let control = Control::connect(&format!("{}/{database}", server.rsplit_once('/').unwrap().0)).await.unwrap();
        let topics = BTreeMap::from([("loan".to_owned(), 3)]);
        let generation_id = control.create_live("loans", "f", "", &topics, TESTS).await.unwrap().generation_id;
        let partition = Partition { topic: "loan".into(), number: 1 };
        let fence = control.claim(generation_id, std::slice::from_ref(&partition)).await.unwrap()[0];
        Self { control, generation_id, partition, fence, server, database }
    }

    /// To be called at the end; a test that fails leaves its database for a look.
    async fn stop(self) {
        self.control.pool().close().await;
        let mut admin = PgConnection::connect(&self.server).await.unwrap();
        let drop = format!("drop database {} with (force)", self.database);
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
    }

    fn letter(&self, aggregate: &str, offset: i64, reason: Option<&str>) -> DeadLetter {
        // A time that Postgres can keep: microseconds.
        let now = chrono::DateTime::from_timestamp_micros(chrono::Utc::now().timestamp_micros()).unwrap();
        DeadLetter {
            dead_letter_id: Uuid::new_v4(),
            generation_id: self.generation_id,
            partition: self.partition.clone(),
            offset,
            aggregate_id: aggregate_text(Some(aggregate.as_bytes())),
            sequence: Some(offset),
            event_type: Some("Borrowed".to_owned()),
            headers: vec![("id".to_owned(), vec![0xff, 0]), ("id".to_owned(), Vec::new())],
            key: Some(aggregate.as_bytes().to_vec()),
            payload: None,
            reason: reason.map(str::to_owned),
            tries: 3,
            done: vec!["b\0\"1".to_owned()],
            state: DeadLetterState::Parked,
            parked_at: now,
            updated_at: now,
        }
    }

    async fn park(&self, letters: &[DeadLetter]) {
        self.control.park(self.fence, letters).await.unwrap();
    }

    async fn settle(&self, letter: &DeadLetter) {
        let ids = [letter.dead_letter_id];
        self.control.settle(self.fence, self.generation_id, &self.partition, &ids).await.unwrap();
    }

    async fn letters(&self, aggregate: &str) -> Vec<DeadLetter> {
        self.control.letters(self.generation_id, &self.partition, aggregate, 100).await.unwrap()
    }

    async fn asked(&self) -> Vec<(String, i64, Option<DeadLetterState>)> {
        let parked = self.control.parked(self.generation_id, std::slice::from_ref(&self.partition)).await.unwrap();
        parked.into_iter().map(|p| (p.aggregate_id, p.letters, p.asked)).collect()
    }

    async fn ask(&self, what: DeadLetterState, letter: &DeadLetter) -> Result<(), String> {
        let ids = [letter.dead_letter_id];
        let asked = self.control.ask(what, Selection::Letters(&ids, None), "ann", Some("a misprint")).await;
        asked.map(|_| ()).map_err(|e| e.to_string())
    }

    async fn fate(&self, letter: &DeadLetter) -> Fate {
        self.control.dead_letter_fate(self.generation_id, letter.dead_letter_id).await.unwrap()
    }
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_is_parked_twice_is_there_once_in_its_place() {
    let store = Store::start().await;
    let (first, second) = (store.letter("a", 4, Some("no shelf")), store.letter("a", 7, None));
    // Out of order, and one of them twice in one go.
    store.park(&[second.clone(), first.clone(), first.clone()]).await;
    let kept = store.letters("a").await;
    let stamped = |l: &DeadLetter, kept: &DeadLetter| DeadLetter { updated_at: kept.updated_at, ..l.clone() };
    assert_eq!(kept, [stamped(&first, &kept[0]), stamped(&second, &kept[1])], "whole, in the order of offsets");

    let again = DeadLetter { offset: 90, tries: 4, reason: Some("still none".into()), done: vec![], ..first.clone() };
    store.park(&[again, DeadLetter { tries: 9, ..second.clone() }]).await;
    let kept = store.letters("a").await;
    assert_eq!((kept[0].offset, kept[0].tries, kept[0].reason.as_deref()), (4, 4, Some("still none")));
    assert!(kept[0].done.is_empty(), "what the last try left is what counts");
    assert_eq!((kept.len(), kept[1].tries), (2, 3), "one without a fault of its own stays as it is");

    store.park(&[store.letter("b\0", 5, Some("a NUL \0 in it"))]).await;
    assert_eq!(store.letters("b\0").await[0].key.as_deref(), Some(&b"b\0"[..]));
    let elsewhere = Partition { topic: "loan".into(), number: 2 };
    let none = store.control.parked(store.generation_id, &[elsewhere]).await.unwrap();
    assert_eq!((store.asked().await, none), (vec![("a".into(), 2, None), ("b\u{fffd}".into(), 1, None)], vec![]));
    store.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_former_owner_can_neither_park_nor_settle() {
    let store = Store::start().await;
    let letter = store.letter("a", 1, Some("no shelf"));
    store.park(std::slice::from_ref(&letter)).await;
    let others = Partition { topic: "loan".into(), number: 0 };
    let both = [store.partition.clone(), others.clone(), store.partition.clone()];
    let fences = store.control.claim(store.generation_id, &both).await.unwrap();
    assert!(fences[0] > store.fence && fences[0] == fences[2], "{fences:?} after {}", store.fence);
    let parked = store.control.park(store.fence, &[store.letter("a", 2, None)]).await;
    assert!(matches!(&parked, Err(ControlError::Fenced { partition, .. }) if *partition == store.partition));
    let ids = [letter.dead_letter_id];
    let settled = store.control.settle(store.fence, store.generation_id, &store.partition, &ids).await;
    assert!(matches!(settled, Err(ControlError::Fenced { .. })));
    let unclaimed = Partition { topic: "loan".into(), number: 2 };
    let unowned = DeadLetter { partition: unclaimed, ..store.letter("a", 3, None) };
    assert!(matches!(store.control.park(fences[0], &[unowned]).await, Err(ControlError::Fenced { .. })));
    assert_eq!(store.letters("a").await.len(), 1, "what was refused left nothing");
    store.control.settle(fences[0], store.generation_id, &store.partition, &ids).await.unwrap();
    assert!(store.letters("a").await.is_empty());
    store.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_claim_waits_for_the_owner_that_is_parking_and_always_grows() {
    let store = Store::start().await;
    // Far ahead of the clock, as if that had gone back.
    sqlx::query("update partition_owner set fence = fence + 1000000000").execute(store.control.pool()).await.unwrap();
    let partition = [store.partition.clone()];
    let mut last = store.fence + 1_000_000_000;
    for _ in 0..20 {
        let fence = store.control.claim(store.generation_id, &partition).await.unwrap()[0];
        assert!(fence > last, "{fence} after {last}");
        last = fence;
    }
    let mut parking = store.control.pool().begin().await.unwrap();
    sqlx::query("select fence from partition_owner for share").execute(&mut *parking).await.unwrap();
    let claim = store.control.claim(store.generation_id, &partition);
    assert!(tokio::time::timeout(Duration::from_millis(300), claim).await.is_err(), "it has to wait");
    parking.commit().await.unwrap();
    assert!(store.control.claim(store.generation_id, &partition).await.unwrap()[0] > last);
    store.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn only_the_first_is_skipped_and_the_next_follows_by_itself() {
    let store = Store::start().await;
    let (first, second) = (store.letter("a", 1, Some("no shelf")), store.letter("a", 2, None));
    store.park(&[first.clone(), second.clone(), store.letter("b", 3, Some("torn"))]).await;
    let refusal = store.ask(DeadLetterState::Skip, &second).await.unwrap_err();
    assert!(refusal.contains(&first.dead_letter_id.to_string()) && refusal.contains("waits behind"), "{refusal}");
    let unknown = store.ask(DeadLetterState::Retry, &store.letter("c", 9, None)).await.unwrap_err();
    assert!(unknown.contains("there is no dead letter"), "{unknown}");

    let mut listener = PgListener::connect_with(store.control.pool()).await.unwrap();
    listener.listen(DEAD_LETTERS_CHANNEL).await.unwrap();
    store.ask(DeadLetterState::Skip, &first).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(5), listener.recv()).await.unwrap().unwrap();
    assert_eq!(told.payload(), store.generation_id.to_string());
    drop(listener);
    assert_eq!(store.fate(&first).await, Fate::Asked);
    let skip = Some(DeadLetterState::Skip);
    assert_eq!(store.asked().await, [("a".to_owned(), 2, skip), ("b".to_owned(), 1, None)]);

    store.park(&[DeadLetter { tries: 6, ..first.clone() }]).await;
    assert_eq!(store.asked().await[0].2, skip, "a retry that fails meanwhile doesn't undo the skip");
    let late = store.ask(DeadLetterState::Retry, &first).await.unwrap_err();
    assert!(late.contains("ann has asked for it to be skipped"), "{late}");

    store.settle(&first).await;
    assert_eq!(store.fate(&first).await, Fate::Skipped);
    assert_eq!(store.asked().await[0], ("a".to_owned(), 1, Some(DeadLetterState::Retry)), "the next is due");
    store.settle(&second).await;
    store.settle(&second).await;
    assert_eq!(store.fate(&second).await, Fate::Applied);
    let log: Vec<(Uuid, String, Option<String>, Option<String>, i32)> = sqlx::query_as(
        "select dead_letter_id, outcome, asked_by, asked_why, tries from dead_letter_log order by dead_letter_log_id",
    )
    .fetch_all(store.control.pool())
    .await
    .unwrap();
    let by_ann = (first.dead_letter_id, "skipped".to_owned(), Some("ann".to_owned()), Some("a misprint".to_owned()), 6);
    assert_eq!(log, [by_ann, (second.dead_letter_id, "applied".to_owned(), None, None, 3)]);
    store.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_retry_that_fails_is_parked_again_and_can_be_asked_for_again() {
    let store = Store::start().await;
    let (first, other) = (store.letter("a", 1, Some("no shelf")), store.letter("b", 2, Some("torn")));
    store.park(&[first.clone(), store.letter("a", 3, None), other.clone()]).await;
    let lines = store.control.dead_letters(Some("loans"), 10).await.unwrap();
    let seen: Vec<_> = lines.iter().map(|l| (l.aggregate_id.as_str(), l.waiting)).collect();
    assert!(seen.contains(&("a", 1)) && seen.contains(&("b", 0)) && seen.len() == 2, "{seen:?}");
    assert!(store.control.dead_letters(Some("books"), 10).await.unwrap().is_empty());

    let asked = store.control.ask(DeadLetterState::Retry, Selection::All("loans"), "ann", None).await.unwrap();
    assert_eq!(asked.len(), 2);
    let hasty = store.ask(DeadLetterState::Skip, &first).await.unwrap_err();
    assert!(hasty.contains("just asked for a retry"), "{hasty}");
    store.park(&[DeadLetter { tries: 6, reason: Some("no room".into()), ..first.clone() }]).await;
    assert_eq!(store.fate(&first).await, Fate::Parked(Some("no room".into()), 6));
    assert_eq!(store.fate(&other).await, Fate::Asked);
    assert_eq!(store.fate(&store.letter("c", 1, None)).await, Fate::Gone);
    store.ask(DeadLetterState::Skip, &first).await.unwrap();
    store.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn an_event_that_two_read_models_parked_needs_the_read_model() {
    let store = Store::start().await;
    let letter = store.letter("a", 1, Some("no shelf"));
    store.park(std::slice::from_ref(&letter)).await;
    let topics = BTreeMap::from([("loan".to_owned(), 3)]);
    let books = store.control.create_live("books", "f", "", &topics, TESTS).await.unwrap().generation_id;
    let fence = store.control.claim(books, std::slice::from_ref(&store.partition)).await.unwrap()[0];
    store.control.park(fence, &[DeadLetter { generation_id: books, ..letter.clone() }]).await.unwrap();
    let which = store.ask(DeadLetterState::Skip, &letter).await.unwrap_err();
    assert!(which.contains("loans") && which.contains("books") && which.contains("--read-model"), "{which}");
    let ids = [letter.dead_letter_id];
    let of_books = Selection::Letters(&ids, Some("books"));
    let asked = store.control.ask(DeadLetterState::Skip, of_books, "ann", Some("why")).await.unwrap();
    assert_eq!(asked.iter().map(|l| l.generation_id).collect::<Vec<_>>(), [books]);
    assert_eq!(store.asked().await[0].2, None, "the other read model's stays parked");
    store.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn an_epoch_is_accepted_once() {
    let store = Store::start().await;
    let progress = Progress { epoch: Some("7.1".into()), ..Progress::default() };
    store.control.publish_progress(&[(store.generation_id, store.partition.clone(), progress)]).await.unwrap();
    assert!(store.control.accept_epoch("7.2", "ann", "fail-over").await.unwrap());
    assert!(!store.control.accept_epoch("7.2", "bob", "me too").await.unwrap());
    assert_eq!(store.control.accepted_epochs().await.unwrap().iter().map(|e| &**e).collect::<Vec<_>>(), ["7.2"]);
    let epochs = store.control.epochs().await.unwrap();
    assert_eq!((epochs[0].epoch.as_str(), epochs[0].partitions, epochs[0].accepted_by.as_deref()), ("7.1", 1, None));
    assert_eq!(epochs[0].read_models, ["loans"]);
    assert_eq!((epochs[1].epoch.as_str(), epochs[1].accepted_by.as_deref()), ("7.2", Some("ann")));
    store.stop().await;
}
