//! The order, given to transactions that really overlapped.

use crate::support::{Database, of};
use anyhow::{Context as _, Result, ensure};
use projector::apply::{Progress, Seen};
use projector::event::EventRef;
use projector::source::{EventStoreError, History, Key, Selection, Survey};
use sqlx::{Connection, PgConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

async fn all_keys(history: &mut History) -> Result<Vec<Key>> {
    let mut all = Vec::new();
    loop {
        let keys = history.keys().await?;
        if keys.is_empty() {
            return Ok(all);
        }
        all.extend(keys);
    }
}

/// One statement that waits for the lock of its aggregate, and keeps the snapshot from before.
const WRITE: &str = "
with head as (update heads set sequence = sequence + 1 where aggregate_id = $1 returning sequence)
insert into events (stream_id, stream_position, aggregate_id) select 'loan-' || $1, sequence, $1 from head";

/// Transactions that overlap, wait for one another, and sometimes roll back.
async fn write(url: String, mut random: u64) -> Result<()> {
    let mut connection = PgConnection::connect(&url).await?;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..120 {
        let mut transaction = connection.begin().await?;
        let aggregates: BTreeSet<u64> = (0..=next(3)).map(|_| next(10)).collect();
        for aggregate in aggregates {
            for _ in 0..=next(2) {
                sqlx::query(WRITE).bind(format!("l-{aggregate}")).execute(&mut *transaction).await?;
                tokio::time::sleep(Duration::from_micros(next(3_000))).await;
            }
        }
        if next(6) == 0 { transaction.rollback().await? } else { transaction.commit().await? }
    }
    Ok(())
}

fn reference(key: &Key) -> Result<EventRef> {
    Ok(EventRef {
        epoch: key.epoch.as_str().into(),
        txid: key.txid.try_into()?,
        tx_min: key.tx_min.try_into()?,
        snapshot: None,
        aggregate_id: key.aggregate_id.as_str().into(),
        sequence: key.sequence,
    })
}

/// Takes the events as a reader does: each must be new, and continue its aggregate.
fn take(progress: &mut Progress, last: &mut BTreeMap<String, i64>, keys: &[Key]) -> Result<()> {
    for key in keys {
        let event = reference(key)?;
        ensure!(progress.seen(&event) == Seen::New, "{key:?} is called a duplicate");
        progress.handled(&event, progress.next_offset);
        let before = last.insert(key.aggregate_id.clone(), key.sequence).unwrap_or(0);
        ensure!(before + 1 == key.sequence, "{key:?} comes behind {before}");
    }
    Ok(())
}

async fn order(url: &str) -> Result<()> {
    let writers: Vec<_> = (0..8).map(|seed| tokio::spawn(write(url.to_owned(), seed))).collect();
    let mut connection = PgConnection::connect(url).await?;
    while sqlx::query_scalar::<_, i64>("select count(*) from events").fetch_one(&mut connection).await? < 300 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut early = History::open(url, &of("loan")).await?;
    let survey = early.survey().await?;
    for writer in writers {
        writer.await??;
    }
    let seen = all_keys(&mut early).await?;
    ensure!(survey.events == u64::try_from(seen.len())?, "one snapshot, however long it takes");
    let (mut progress, mut last) = (Progress::default(), BTreeMap::new());
    take(&mut progress, &mut last, &seen)?;

    let mut late = History::open(url, &of("loan")).await?;
    let mut everything = Vec::new();
    let Survey { events, epochs, .. } = late.survey().await?;
    everything.extend(all_keys(&mut late).await?);
    ensure!(events > 1_000 && epochs == ["first"], "{events} {epochs:?}");
    let positions: BTreeSet<i64> = seen.iter().map(|key| key.position).collect();
    let (again, new): (Vec<Key>, Vec<Key>) = everything.iter().cloned().partition(|k| positions.contains(&k.position));
    ensure!(!new.is_empty() && !seen.is_empty(), "the snapshot was to be taken in the middle");
    for key in &again {
        ensure!(progress.seen(&reference(key)?) == Seen::Duplicate, "{key:?} is called new a second time");
    }
    take(&mut progress, &mut last, &new)?;
    take(&mut Progress::default(), &mut BTreeMap::new(), &everything)?;
    // What the rule is for: the plain orders break this history.
    let mut by_txid = everything.clone();
    by_txid.sort_by_key(|k| (k.tx_min, k.txid, k.sequence));
    ensure!(
        take(&mut Progress::default(), &mut BTreeMap::new(), &by_txid).is_err(),
        "the writers overlapped too little"
    );

    let some = Selection { aggregate_ids: vec!["l-1".into(), "l-2".into()], ..of("loan") };
    let keys = all_keys(&mut History::open(url, &some).await?).await?;
    let ids: BTreeSet<&str> = keys.iter().map(|k| k.aggregate_id.as_str()).collect();
    assert_eq!(ids, BTreeSet::from(["l-1", "l-2"]));
    let from = Selection { from_position: 500, ..of("loan") };
    ensure!(all_keys(&mut History::open(url, &from).await?).await?.iter().all(|k| k.position >= 500));
    Ok(())
}

/// A restored database counts its transactions anew; and some rows no transaction can have written.
async fn epochs(url: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(
        "insert into events (aggregate_type, stream_id, stream_position, aggregate_id, epoch, txid, tx_min) values
             ('book', 'book-a', 1, 'a', 'z', 1000, 1000), ('book', 'book-a', 2, 'a', 'b', 7, 7),
             ('book', 'book-b', 1, 'b', 'b', 8, 8), ('wrong', 'wrong-a', 1, 'a', 'z', 4, 5)",
    )
    .execute(&mut connection)
    .await?;
    let mut history = History::open(url, &of("book")).await?;
    assert_eq!(history.survey().await?.epochs, ["z", "b"]);
    let order: Vec<_> = all_keys(&mut history).await?.into_iter().map(|k| (k.aggregate_id, k.sequence)).collect();
    assert_eq!(order, [("a".to_owned(), 1), ("a".to_owned(), 2), ("b".to_owned(), 1)]);
    let error = History::open(url, &of("wrong")).await?.survey().await.unwrap_err();
    ensure!(matches!(error, EventStoreError::Impossible { txid: 4, watermark: 5, .. }), "{error}");
    ensure!(History::open(url, &of("none")).await?.survey().await? == Survey::default());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the stack: ./dev test"]
async fn postgres_gives_an_order_in_which_nothing_looks_like_a_duplicate() -> Result<()> {
    let database = Database::create().await?;
    let url = database.url.clone();
    let outcome = tokio::spawn(async move {
        order(&url).await?;
        epochs(&url).await
    })
    .await
    .context("the steps panicked");
    database.remove().await?;
    outcome?
}
