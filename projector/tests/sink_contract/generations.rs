//! Two generations of a read model: each in its own place, one read directly, swapped, browsed, removed.

use super::fixtures::{apart, fenced, named, one, place, row, row_kind, run_name, tombstone, urls, written};
use anyhow::{Context as _, Result, ensure};
use projector::apply::{Outcome, Partition, Progress};
use projector::projection::{ClickhouseStore, ElasticsearchStore, PostgresStore, RedisStore, Store};
use projector::sink::{Place, Sink, open};
use std::collections::BTreeSet;
use uuid::Uuid;

fn partition() -> Partition {
    Partition { topic: "loan".into(), number: 0 }
}

async fn keys(sink: &dyn Sink) -> Result<BTreeSet<String>> {
    let (mut all, mut cursor) = (BTreeSet::new(), None);
    loop {
        let page = sink.browse(cursor.as_deref(), 7).await?;
        all.extend(page.documents.into_iter().map(|(key, _)| key));
        cursor = page.next;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

/// Documents come back page by page; what is removed is gone, and what isn't ours stays.
async fn browsed_and_removed(old: &dyn Sink, new: &dyn Sink) -> Result<()> {
    let documents: Vec<_> = (0..40).map(|n| named(&format!("k{n:02}"), 1)).collect();
    written(new, &documents).await?;
    written(new, &[tombstone("k07", 2)]).await?;
    new.refresh().await?;
    let found = keys(new).await?;
    ensure!(found.len() == 39 && !found.contains("k07"), "{found:?}");
    ensure!(keys(old).await? == BTreeSet::from(["old".to_owned()]), "the other one's are its own");
    ensure!(one(new, "k03").await?.context("k03 is gone")?.version == 1, "another version");
    let progress = Progress { next_offset: 9, fence: 1, ..Progress::default() };
    for sink in [old, new] {
        sink.save_progress(&[(partition(), progress.clone())]).await?;
    }
    old.remove(&[partition()]).await?;
    old.remove(&[partition()]).await?;
    ensure!(
        new.load_progress(&[partition()]).await?[0].as_ref().is_some_and(|p| p.next_offset == 9),
        "progress is gone"
    );
    ensure!(keys(new).await?.len() == 39, "the other one's documents are gone");
    Ok(())
}

/// Two generations of `store`, the first one live with one document.
async fn two(name: &str, store: &Store) -> Result<(std::sync::Arc<dyn Sink>, std::sync::Arc<dyn Sink>)> {
    let (old, new) = (open(store, place(name, 1), &urls())?, open(store, place(name, 2), &urls())?);
    old.prepare().await?;
    old.go_live().await?;
    new.prepare_aside().await?;
    new.replaying(true).await?;
    written(old.as_ref(), &[named("old", 1)]).await?;
    old.refresh().await?;
    new.replaying(false).await?;
    Ok((old, new))
}

async fn swapped(name: String, store: Store) -> Result<()> {
    let (old, new) = two(&name, &store).await?;
    new.go_live().await?;
    new.go_live().await?;
    browsed_and_removed(old.as_ref(), new.as_ref()).await?;
    Ok(new.remove(&[partition()]).await?)
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn in_elasticsearch() -> Result<()> {
    apart(swapped(run_name(), Store::Elasticsearch(ElasticsearchStore::default()))).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn in_postgres() -> Result<()> {
    apart(swapped(run_name(), Store::Postgres(PostgresStore::default()))).await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn in_clickhouse() -> Result<()> {
    let name = run_name();
    let store = Store::Clickhouse(ClickhouseStore { day: "day".into(), columns: Default::default(), rollup: None });
    let sink = |generation| {
        let place = Place { read_model: name.clone(), generation, document: row_kind() };
        open(&store, place, &urls())
    };
    let (old, new) = (sink(1)?, sink(2)?);
    for sink in [&old, &new] {
        sink.prepare().await?;
        sink.go_live().await?;
    }
    let rows: Vec<_> =
        (0..20).map(|n| row(Uuid::new_v4(), n % 3, ["2026-11-20", "2026-11-21"][usize::from(n % 2)], 5)).collect();
    written(new.as_ref(), &rows).await?;
    let expected: BTreeSet<_> = rows.iter().map(|row| row.key.clone()).collect();
    ensure!(keys(new.as_ref()).await? == expected, "other rows than were written");
    let some = [rows[3].key.clone(), format!("{}/0", Uuid::new_v4())];
    let fetched = new.fetch(&some).await?;
    ensure!(fetched[0].is_some() && fetched[1].is_none(), "{fetched:?}");
    old.remove(&[partition()]).await?;
    ensure!(new.count().await? == 20, "another one's rows are gone");
    Ok(new.remove(&[partition()]).await?)
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn in_redis_the_key_stays_the_same_under_open_connections() -> Result<()> {
    let name = run_name();
    // A pair of its own: what is swapped is all that is in both.
    let store = Store::Redis(RedisStore { prefix: format!("{name}:"), database: 14 });
    let steps = {
        let name = name.clone();
        async move { redis_steps(&name, &store).await }
    };
    let result = apart(steps).await;
    for database in [14, 15] {
        let client = redis::Client::open(format!("{}/{database}", urls().redis_url))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let keys: Vec<String> = redis::cmd("KEYS").arg(format!("*{name}*")).query_async(&mut connection).await?;
        if !keys.is_empty() {
            redis::cmd("DEL").arg(keys).exec_async(&mut connection).await?;
        }
    }
    result
}

async fn redis_steps(name: &str, store: &Store) -> Result<()> {
    let (old, new) = two(name, store).await?;
    let third = open(store, place(name, 3), &urls())?;
    fenced(third.prepare_aside().await);
    fenced(third.prepare().await);
    written(new.as_ref(), &[named("old", 1), named("new", 1)]).await?;
    ensure!(one(old.as_ref(), "new").await?.is_none(), "it reads the other one's database");

    let client = redis::Client::open(format!("{}/14", urls().redis_url))?;
    let mut reader = client.get_multiplexed_async_connection().await?;
    let mut see = async |key: &str| -> Result<bool> {
        Ok(redis::cmd("EXISTS").arg(format!("{name}:{key}")).query_async::<i64>(&mut reader).await? == 1)
    };
    ensure!(!see("new").await?, "seen before the swap");
    // Another process swaps; who writes and reads through open connections goes on in its own.
    let job = open(store, place(name, 2), &urls())?;
    job.go_live().await?;
    job.go_live().await?;
    ensure!(see("new").await?, "not seen after the swap");
    written(old.as_ref(), &[named("late", 1)]).await?;
    ensure!(one(new.as_ref(), "late").await?.is_none(), "a write landed in the other one");
    ensure!(one(old.as_ref(), "late").await?.is_some() && !see("late").await?, "a write landed where readers look");
    ensure!(new.write(&[named("new", 1)]).await? == [Outcome::Stale], "it writes elsewhere");
    let progress = Progress { next_offset: 3, fence: 1, ..Progress::default() };
    old.save_progress(&[(partition(), progress)]).await?;
    ensure!(new.load_progress(&[partition()]).await?[0].is_none(), "progress landed in the other one");

    // And back.
    open(store, place(name, 1), &urls())?.go_live().await?;
    ensure!(see("late").await? && !see("new").await?, "the way back is the same");
    written(new.as_ref(), &[named("newer", 1)]).await?;
    ensure!(!see("newer").await?, "a write landed where readers look");
    open(store, place(name, 1), &urls())?.prepare_aside().await?;
    open(store, place(name, 2), &urls())?.prepare().await?;

    new.remove(&[partition()]).await?;
    ensure!(see("late").await? && one(old.as_ref(), "old").await?.is_some(), "another one's keys are gone");
    third.prepare_aside().await?;
    ensure!(keys(third.as_ref()).await?.is_empty(), "something was left");
    third.remove(&[partition()]).await?;
    browsed(old.as_ref()).await
}

async fn browsed(sink: &dyn Sink) -> Result<()> {
    let found = keys(sink).await?;
    ensure!(found == BTreeSet::from(["late".to_owned(), "old".to_owned()]), "{found:?}");
    sink.remove(&[partition()]).await?;
    ensure!(keys(sink).await?.is_empty(), "something was left");
    Ok(())
}
