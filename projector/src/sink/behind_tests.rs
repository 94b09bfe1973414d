//! What is put off, with a store that fails and hosts that die at any step: nothing is lost, and progress is never ahead.
#![allow(clippy::unwrap_used)]

use super::super::memory::{Fault, MemorySink, MemoryStore};
use super::super::{Place, Sink, Write};
use super::*;
use crate::expr::{Kind, Object, Value};
use proptest::prelude::*;
use std::sync::atomic::AtomicU64;

fn place() -> Place {
    Place { read_model: "loans".into(), generation: 2, document: Kind::any() }
}

fn partition() -> Partition {
    Partition { topic: "events.loan".into(), number: 0 }
}

/// A document whose field is the sum of the sequences folded into it.
fn write(key: &str, version: i64, sum: i64) -> Write {
    let fields = Some(Object::from([("sum".into(), Value::Integer(sum))]));
    Write { key: key.into(), version, fields: fields.map(Arc::new), ..Write::default() }
}

fn sum(stored: &Stored) -> i64 {
    stored.fields.as_ref().unwrap()["sum"].as_integer().unwrap()
}

async fn behind(store: &Arc<MemoryStore>, bytes_max: usize) -> (Behind, Arc<AtomicU64>) {
    let taken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&taken);
    let sink = Arc::new(MemorySink::open(Arc::clone(store), &place()));
    let told: Told = Box::new(move |n, _| _ = count.fetch_add(n, Ordering::SeqCst));
    let behind = Behind { bytes_max, ..Behind::new(sink, told) };
    behind.prepare().await.unwrap();
    behind.put_off(true).await.unwrap();
    (behind, taken)
}

#[tokio::test]
async fn many_folds_are_one_write() {
    let store = Arc::<MemoryStore>::default();
    let (behind, taken) = behind(&store, BYTES_MAX).await;
    for version in 1..=5 {
        let known = behind.load(&["a".into()]).await.unwrap().remove(0);
        assert_eq!(known.map_or(0, |stored| stored.version), version - 1, "what was put off is loaded");
        assert_eq!(behind.write(&[write("a", version, 0)]).await.unwrap(), [Outcome::Written]);
        assert_eq!(behind.write(&[write("a", version, 7)]).await.unwrap(), [Outcome::Stale], "as any store says");
    }
    assert_eq!(store.writes(), 0);
    behind.save_progress(&[(partition(), Progress { next_offset: 5, ..Progress::default() })]).await.unwrap();
    assert_eq!((store.writes(), taken.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(store.documents()["a"].version, 5);
    behind.write(&[write("a", 6, 0)]).await.unwrap();
    behind.put_off(false).await.unwrap();
    assert_eq!((store.writes(), store.documents()["a"].version), (2, 6), "before anybody looks");
    behind.write(&[write("a", 7, 0)]).await.unwrap();
    assert_eq!(store.documents()["a"].version, 7, "no longer put off");
}

#[tokio::test]
async fn no_more_is_put_off_than_there_is_room_for() {
    let store = Arc::<MemoryStore>::default();
    let (behind, _) = behind(&store, 10_000).await;
    for n in 0..1_000 {
        behind.write(&[write(&format!("k-{n:03}"), 1, 1)]).await.unwrap();
        assert!(behind.store.held().bytes <= 10_000);
    }
    drop(behind.store.writing.lock().await);
    let (written, held) = (store.documents(), behind.store.held());
    assert_eq!(written.len() + held.writes.len(), 1_000);
    let last = written.keys().next_back().unwrap();
    assert!(held.writes.keys().all(|key| key > last), "the oldest have gone");
}

#[tokio::test]
async fn what_could_not_be_written_beside_the_work_is_written_by_who_needs_room_next() {
    let store = Arc::<MemoryStore>::default();
    let (behind, _) = behind(&store, 10_000).await;
    store.fail_next([Fault::Before, Fault::Before]);
    let (mut written, mut told) = (0, 0);
    while behind.store.held().leaving.writes.is_empty() {
        behind.write(&[write(&format!("k-{written:03}"), 1, 1)]).await.unwrap();
        written += 1;
    }
    drop(behind.store.writing.lock().await);
    assert!(store.documents().is_empty(), "it failed, and nobody was kept waiting for it");
    for n in written..written + 100 {
        // Put off all the same.
        told += usize::from(behind.write(&[write(&format!("k-{n:03}"), 1, 1)]).await.is_err());
    }
    assert_eq!(told, 1, "the second time it is the caller's");
    behind.write_all().await.unwrap();
    assert_eq!(store.documents().len(), written + 100);
}

#[tokio::test]
async fn what_no_store_takes_is_refused_at_once() {
    let store = Arc::<MemoryStore>::default();
    let (behind, _) = behind(&store, BYTES_MAX).await;
    let reserved = Some(Object::from([("_seq".into(), Value::from("x"))]));
    let refused = behind.write(&[Write { fields: reserved.map(Arc::new), ..write("a", 1, 1) }]).await.unwrap();
    assert!(matches!(refused[..], [Outcome::Rejected(_)]), "{refused:?}");
    assert_eq!(behind.load(&["a".into()]).await.unwrap(), [None]);
}

/// A store that refuses some documents.
struct Picky(MemorySink);

#[async_trait]
impl Sink for Picky {
    async fn prepare(&self) -> Result<(), SinkError> {
        self.0.prepare().await
    }

    async fn go_live(&self) -> Result<(), SinkError> {
        self.0.go_live().await
    }

    async fn load(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        self.0.load(keys).await
    }

    async fn write(&self, batch: &[Write]) -> Result<Vec<Outcome>, SinkError> {
        let mut outcomes = self.0.write(batch).await?;
        for (write, outcome) in batch.iter().zip(&mut outcomes).filter(|(write, _)| write.key.starts_with("bad")) {
            *outcome = Outcome::Rejected(format!("{} is bad", write.key));
        }
        Ok(outcomes)
    }

    async fn load_progress(&self, partitions: &[Partition]) -> Result<Vec<Option<Progress>>, SinkError> {
        self.0.load_progress(partitions).await
    }

    async fn save_progress(&self, progress: &[(Partition, Progress)]) -> Result<(), SinkError> {
        self.0.save_progress(progress).await
    }

    async fn count(&self) -> Result<u64, SinkError> {
        self.0.count().await
    }
}

#[tokio::test]
async fn what_the_store_refuses_is_named_and_nothing_is_saved() {
    let store = Arc::<MemoryStore>::default();
    let sink = Arc::new(Picky(MemorySink::open(Arc::clone(&store), &place())));
    let behind = Behind::new(sink, Box::new(|_, _| {}));
    behind.prepare().await.unwrap();
    behind.put_off(true).await.unwrap();
    behind.write(&[write("good", 1, 1), write("bad", 2, 3)]).await.unwrap();
    let progress = [(partition(), Progress { next_offset: 3, ..Progress::default() })];
    for _ in 0..2 {
        let said = behind.save_progress(&progress).await.unwrap_err().to_string();
        assert!(said.contains("document `bad` as it is after event 2: bad is bad"), "{said}");
    }
    assert_eq!(behind.load_progress(&[partition()]).await.unwrap(), [None]);
}

/// What happens next.
#[derive(Clone, Debug)]
enum Act {
    /// So many events are folded.
    Fold(usize),
    Save,
    /// The next calls that change something fail, before or after they took effect.
    Fail(Vec<bool>),
    Die,
    /// A former owner writes what it had put off, however late.
    Zombie,
    /// The partition goes to another host, which folds so many events, and comes back.
    Away(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => (1_usize..20).prop_map(Act::Fold),
        2 => Just(Act::Save),
        2 => prop::collection::vec(any::<bool>(), 1..3).prop_map(Act::Fail),
        1 => Just(Act::Die),
        1 => Just(Act::Zombie),
        1 => (0_usize..20).prop_map(Act::Away),
    ];
    prop::collection::vec(act, 1..60)
}

/// An owner folds events from a place on, each once, in order.
async fn fold(owner: &Behind, events: &[(String, i64)]) -> Result<(), TestCaseError> {
    for (key, sequence) in events {
        let known = owner.load(std::slice::from_ref(key)).await.unwrap().remove(0).unwrap_or_default();
        if *sequence > known.version {
            prop_assert_eq!(known.version + 1, *sequence, "an event of {} is missing", key);
            let before = if known.version == 0 { 0 } else { sum(&known) };
            let next = write(key, *sequence, before + sequence);
            // Unavailable: again, until it is answered.
            while owner.write(std::slice::from_ref(&next)).await.is_err() {}
        }
    }
    Ok(())
}

async fn save(owner: &Behind, at: usize) {
    let progress = Progress { next_offset: i64::try_from(at).unwrap(), ..Progress::default() };
    while owner.save_progress(&[(partition(), progress.clone())]).await.is_err() {}
}

/// What an owner does, as the host is one.
async fn replay(acts: Vec<Act>, bytes_max: usize) -> Result<(), TestCaseError> {
    let log: Vec<(String, i64)> = (0..200_usize).map(|n| (format!("k-{}", n * n % 13), n)).fold(
        Vec::new(),
        |mut log: Vec<(String, i64)>, (key, _)| {
            let sequence = 1 + log.iter().filter(|(other, _)| *other == key).count();
            log.push((key, i64::try_from(sequence).unwrap()));
            log
        },
    );
    let store = Arc::<MemoryStore>::default();
    let (mut owner, mut at, mut former) = (behind(&store, bytes_max).await.0, 0_usize, Vec::new());
    let calm = [Act::Fail(Vec::new()), Act::Fold(log.len()), Act::Save];
    for act in acts.into_iter().chain(calm) {
        match act {
            Act::Fold(count) => {
                let end = log.len().min(at + count);
                fold(&owner, &log[at..end]).await?;
                at = end;
            }
            Act::Save => save(&owner, at).await,
            Act::Fail(faults) => {
                store.fail_next(faults.into_iter().map(|before| if before { Fault::Before } else { Fault::After }));
            }
            Act::Die => {
                former.push(owner);
                owner = behind(&store, bytes_max).await.0;
                let saved = owner.load_progress(&[partition()]).await.unwrap().remove(0).unwrap_or_default();
                at = usize::try_from(saved.next_offset).unwrap();
            }
            Act::Away(count) => {
                // As the host does before it lets a partition go.
                while owner.write_all().await.is_err() {}
                save(&owner, at).await;
                let (other, end) = (behind(&store, bytes_max).await.0, log.len().min(at + count));
                fold(&other, &log[at..end]).await?;
                save(&other, end).await;
                at = end;
            }
            Act::Zombie => {
                for zombie in former.drain(..) {
                    _ = zombie.write_all().await;
                }
            }
        }
        let saved = owner.load_progress(&[partition()]).await.unwrap().remove(0).unwrap_or_default();
        let saved = usize::try_from(saved.next_offset).unwrap();
        let documents = store.documents();
        for (key, sequence) in &log[..saved] {
            let version = documents.get(key).map_or(0, |stored| stored.version);
            prop_assert!(version >= *sequence, "progress {} is ahead of {} at {}", saved, key, version);
        }
        for (key, stored) in &documents {
            prop_assert_eq!(sum(stored), (1..=stored.version).sum::<i64>(), "{} at {}", key, stored.version);
        }
    }
    let documents = store.documents();
    for (key, sequence) in &log {
        prop_assert!(documents[key].version >= *sequence);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn nothing_is_lost_whoever_dies(acts in acts(), bytes_max in 200_usize..4_000) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(replay(acts, bytes_max))?;
    }
}
