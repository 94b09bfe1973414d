//! What every store of documents must do.

use super::fixtures::{changed, named, object, one, put, tombstone, written};
use super::progress::{progress, with_its_batch};
use anyhow::{Result, ensure};
use chrono::{TimeDelta, Utc};
use projector::apply::{Outcome, Stored, Write};
use projector::expr::{Object, Value};
use projector::sink::Sink;
use serde_json::json;
use std::sync::Arc;

/// What a store can't do, which is said in its own manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Any,
    WithoutZeroBytes,
}

/// The suite.
pub(super) async fn documents(sink: &dyn Sink, text: Text) -> Result<()> {
    sink.prepare().await?;
    sink.prepare().await?;
    let nothing = one(sink, "nothing").await?;
    ensure!(nothing.is_none(), "there is no such document: {nothing:?}");
    ensure!(sink.load(&[]).await?.is_empty() && sink.write(&[]).await?.is_empty(), "nothing asked, nothing given");

    conditional(sink).await?;
    changes(sink).await?;
    one_bad_item(sink).await?;
    many_in_order(sink).await?;
    batches_beside_each_other(sink).await?;
    tombstones(sink).await?;
    values(sink, text).await?;
    keys(sink).await?;
    state(sink).await?;
    expiry(sink).await?;
    children(sink).await?;
    progress(sink).await?;
    with_its_batch(sink).await?;

    sink.go_live().await?;
    sink.go_live().await?;
    purge(sink).await
}

/// What nobody has seen for longer than events are kept is gone, and nothing else.
async fn purge(sink: &dyn Sink) -> Result<()> {
    let ago = |days, write: Write| Write { expires: Some(Utc::now() - TimeDelta::days(days)), ..write };
    let over = ago(20, named("purge-over", 1));
    let batch = [
        ago(40, named("purge-long-over", 1)),
        over.clone(),
        ago(40, tombstone("purge-long-gone", 3)),
        tombstone("purge-gone", 3),
        named("purge-live", 1),
    ];
    written(sink, &batch).await?;
    let before = visible(sink).await?;
    sink.upkeep().await?;
    assert_eq!(visible(sink).await?, before, "no reader sees it");
    for key in ["purge-long-over", "purge-long-gone"] {
        let stored = one(sink, key).await?;
        ensure!(stored.is_none(), "`{key}` is still there: {stored:?}");
    }
    let stored = one(sink, "purge-over").await?;
    ensure!(stored.is_none() || stored == Some(over.stored()), "a guard in part: {stored:?}");
    assert_eq!(one(sink, "purge-gone").await?, Some(tombstone("purge-gone", 3).stored()));
    assert_eq!(sink.write(&[named("purge-gone", 3)]).await?, [Outcome::Stale], "the guard is kept");
    ensure!(one(sink, "purge-live").await?.is_some());
    // Its next version finds nothing, and is taken.
    written(sink, &[named("purge-long-gone", 4)]).await
}

async fn conditional(sink: &dyn Sink) -> Result<()> {
    written(sink, &[named("a", 1), named("b", 5)]).await?;
    let stale = sink.write(&[named("a", 2), named("b", 4), named("c", 1)]).await?;
    assert_eq!(stale, [Outcome::Written, Outcome::Stale, Outcome::Written], "each item has its own answer");
    assert_eq!(one(sink, "b").await?, Some(named("b", 5).stored()));

    let again = sink.write(&[named("a", 2), named("c", 1)]).await?;
    assert_eq!(again, [Outcome::Stale, Outcome::Stale], "a batch that comes again changes nothing");

    // Another number of digits, and numbers that a double can't tell apart.
    written(sink, &[named("b", 10)]).await?;
    assert_eq!(sink.write(&[named("b", 9)]).await?, [Outcome::Stale]);
    let big = (1_i64 << 53) + 2;
    written(sink, &[named("b", big)]).await?;
    assert_eq!(sink.write(&[named("b", big - 1)]).await?, [Outcome::Stale]);
    written(sink, &[named("b", big + 1)]).await?;
    assert_eq!(one(sink, "b").await?.map(|s| s.version), Some(big + 1));

    // The whole document is replaced: fields that it no longer has are gone.
    written(sink, &[put("a", 3, json!({ "name": "a", "n": 1 }))]).await?;
    written(sink, &[put("a", 4, json!({ "name": "a" }))]).await?;
    assert_eq!(one(sink, "a").await?.and_then(|s| s.fields), Some(object(json!({ "name": "a" })).into()));
    Ok(())
}

/// Whoever writes only what changed leaves the same document as who replaces all of it.
async fn changes(sink: &dyn Sink) -> Result<()> {
    let key = "changed";
    written(sink, &[put(key, 3, json!({ "name": "a", "n": 1, "open": true, "rate": 0.5 }))]).await?;
    // What isn't said to be new isn't.
    let next =
        put(key, 4, json!({ "name": "a", "n": 2, "rate": 0.5, "products": [{ "name": "p", "price": 1, "tags": [] }] }));
    let next = Write { changed: Some(changed(3, &["n", "open", "products", "at"])), ..next };
    written(sink, std::slice::from_ref(&next)).await?;
    assert_eq!(one(sink, key).await?, Some(next.stored()));
    assert_eq!(sink.write(&[next]).await?, [Outcome::Stale], "a batch that comes again changes nothing");
    let nothing = Write {
        changed: Some(changed(4, &[])),
        ..put(
            key,
            5,
            json!({ "name": "a", "n": 2, "rate": 0.5, "products": [{ "name": "p", "price": 1, "tags": [] }] }),
        )
    };
    written(sink, std::slice::from_ref(&nothing)).await?;
    assert_eq!(one(sink, key).await?, Some(nothing.stored()), "only its version");
    let gone = Write { changed: Some(changed(5, &["rate", "n", "products"])), ..put(key, 6, json!({ "name": "a" })) };
    written(sink, std::slice::from_ref(&gone)).await?;
    assert_eq!(one(sink, key).await?, Some(gone.stored()));
    // A store that forgot what it had acknowledged holds an older document, or none; part of one never comes to be. Two digits, since
    // versions aren't texts.
    for key in [key, "forgotten"] {
        let after = put(key, 11, json!({ "name": "b", "n": 3 }));
        let after = Write { changed: Some(changed(10, &["n"])), ..after };
        written(sink, &[after.clone(), named(&format!("beside-{key}"), 1)]).await?;
        assert_eq!(one(sink, key).await?, Some(after.stored()));
    }
    Ok(())
}

async fn one_bad_item(sink: &dyn Sink) -> Result<()> {
    let fields = Some(Object::from([("_seq".into(), Value::from("x"))]).into());
    let bad = Write { key: "bad".into(), version: 1, fields, ..Write::default() };
    let outcomes = sink.write(&[named("good-1", 1), bad, named("good-2", 1)]).await?;
    ensure!(matches!(&outcomes[..], [Outcome::Written, Outcome::Rejected(_), Outcome::Written]), "{outcomes:?}");
    ensure!(one(sink, "good-2").await?.is_some() && one(sink, "bad").await?.is_none(), "the others land");
    Ok(())
}

/// As many as it takes at once, each loading what it wrote before while the others write; one has a bad item, one comes too late.
async fn batches_beside_each_other(sink: &dyn Sink) -> Result<()> {
    let key = |writer: usize, i: i64| format!("beside-{writer}-{i}");
    let writer = async |writer: usize| -> Result<()> {
        for round in 1..=3 {
            let batch: Vec<Write> = (0..600).map(|i| named(&key(writer, i), 10 * round)).collect();
            written(sink, &batch).await?;
            let keys: Vec<String> = batch.iter().map(|write| write.key.clone()).collect();
            let expected: Vec<_> = batch.iter().map(|write| Some(write.stored())).collect();
            ensure!(sink.load(&keys).await? == expected, "writer {writer}, round {round}: not what it wrote");
        }
        let fields = Some(Object::from([("_seq".into(), Value::from("x"))]).into());
        let bad = Write { key: format!("beside-bad-{writer}"), version: 1, fields, ..Write::default() };
        let last = [named(&key(writer, 0), 29), bad, named(&key(writer, 1), 31)];
        let outcomes = sink.write(&last).await?;
        ensure!(matches!(&outcomes[..], [Outcome::Stale, Outcome::Rejected(_), Outcome::Written]), "{outcomes:?}");
        Ok(())
    };
    futures::future::try_join_all((0..sink.writers()).map(writer)).await.map(drop)
}

async fn many_in_order(sink: &dyn Sink) -> Result<()> {
    let batch: Vec<Write> = (0..2500).map(|i| named(&format!("many-{i}"), i + 1)).collect();
    written(sink, &batch).await?;
    let mut keys: Vec<String> = batch.iter().map(|w| w.key.clone()).rev().collect();
    keys.insert(1, "missing".into());
    let loaded = sink.load(&keys).await?;
    assert_eq!(loaded.len(), keys.len());
    ensure!(loaded[1].is_none(), "what isn't there is none, in its place");
    for (key, stored) in keys.iter().zip(loaded).filter(|(key, _)| *key != "missing") {
        let version: i64 = key.trim_start_matches("many-").parse::<i64>()? + 1;
        assert_eq!(stored, Some(named(key, version).stored()));
    }
    Ok(())
}

async fn visible(sink: &dyn Sink) -> Result<u64> {
    sink.refresh().await?;
    Ok(sink.count().await?)
}

async fn tombstones(sink: &dyn Sink) -> Result<()> {
    let before = visible(sink).await?;
    written(sink, &[named("gone", 3)]).await?;
    assert_eq!(visible(sink).await?, before + 1);
    written(sink, &[tombstone("gone", 4)]).await?;
    assert_eq!(visible(sink).await?, before, "a tombstone isn't counted");
    assert_eq!(one(sink, "gone").await?, Some(Stored { version: 4, ..Stored::default() }));
    assert_eq!(sink.write(&[named("gone", 4)]).await?, [Outcome::Stale], "a late writer doesn't revive it");
    written(sink, &[named("gone", 5)]).await?;
    assert_eq!(one(sink, "gone").await?, Some(named("gone", 5).stored()));
    Ok(())
}

async fn values(sink: &dyn Sink, text: Text) -> Result<()> {
    let zero = put("zero-byte", 1, json!({ "name": "a\u{0}b" }));
    let outcomes = sink.write(&[named("before-zero", 1), zero, named("after-zero", 1)]).await?;
    let taken = match text {
        Text::Any => outcomes == [Outcome::Written, Outcome::Written, Outcome::Written],
        Text::WithoutZeroBytes => {
            matches!(&outcomes[..], [Outcome::Written, Outcome::Rejected(_), Outcome::Written])
        }
    };
    ensure!(taken, "a zero byte in text: {outcomes:?}");

    let rich = put(
        "rich",
        1,
        json!({
            "name": "Ünï😀 \"quoted\" \\ \u{1}\u{7f}\u{2028}\r\n\tend",
            "n": 9_007_199_254_740_993_i64,
            "rate": 0.1,
            "open": false,
            "at": "2026-11-21T05:00:00.123456Z",
            "grid": [[1, 2, 3], [], [i64::MIN, i64::MAX]],
            "products": [
                { "name": "1", "price": -1, "tags": ["x", "true"] },
                { "name": "", "price": i64::MAX, "tags": [] },
            ],
        }),
    );
    let small = put("small", 1, json!({ "name": "", "rate": 1e-300, "n": 0, "grid": [], "products": [] }));
    let whole =
        put("whole", 1, json!({ "name": "2026-11-21T05:00:00Z", "rate": 5.0, "at": "1969-12-31T23:59:59.999999Z" }));
    let empty = put("empty", 1, json!({}));
    let large = put("large", 1, json!({ "name": "ä".repeat(3 << 20) }));
    let lines: Vec<_> =
        (0..20_000).map(|i| json!({ "name": format!("line {i}"), "price": i, "tags": ["t"] })).collect();
    let long = put("long", 1, json!({ "name": "long", "products": lines }));
    let batch = [rich, small, whole, empty, large, long];
    written(sink, &batch).await?;
    for write in batch {
        let stored = one(sink, &write.key).await?;
        ensure!(stored == Some(write.stored()), "`{}` isn't as it was written", write.key);
    }
    Ok(())
}

async fn keys(sink: &dyn Sink) -> Result<()> {
    let keys =
        ["schlüssel/ 鍵:*?\"\\{}\n", "é", "e\u{301}", "É", "😀", "שלום", "a b", "a%20b", " a", "-", "__x", "'; --"];
    let batch: Vec<Write> = keys.iter().map(|key| put(key, 1, json!({ "name": format!("of {key:?}") }))).collect();
    written(sink, &batch).await?;
    for (write, stored) in batch.iter().zip(sink.load(&keys.map(str::to_owned)).await?) {
        assert_eq!(stored, Some(write.stored()), "each key is its own: {:?}", write.key);
    }
    Ok(())
}

async fn state(sink: &dyn Sink) -> Result<()> {
    let with = |state: Option<&str>, write: Write| Write { state: state.map(Arc::from), ..write };
    let large = format!("{{\"é\\u0000\":[{}1]}}", "\"\\\\slice\", ".repeat(20_000));
    let steps = [
        with(Some("[1,2]"), named("stateful", 1)),
        with(None, named("stateful", 2)),
        with(Some(&large), named("stateful", 3)),
        with(Some(""), tombstone("stateful", 4)),
        with(Some("not JSON: \"ü\" \n"), tombstone("stateful", 5)),
        with(None, tombstone("stateful", 6)),
        with(Some("{\"name\":\"another\"}"), named("stateful", 7)),
    ];
    for write in steps {
        written(sink, std::slice::from_ref(&write)).await?;
        let stored = one(sink, "stateful").await?;
        ensure!(stored == Some(write.stored()), "state at version {}: {stored:?}", write.version);
    }
    assert_eq!(sink.write(&[with(Some("late"), named("stateful", 7))]).await?, [Outcome::Stale]);
    assert_eq!(one(sink, "stateful").await?.and_then(|s| s.state).as_deref(), Some("{\"name\":\"another\"}"));
    Ok(())
}

async fn expiry(sink: &dyn Sink) -> Result<()> {
    let at = |expires, write: Write| Write { expires: Some(expires), ..write };
    let before = visible(sink).await?;
    let soon = Utc::now() + TimeDelta::seconds(3);
    let past = at(Utc::now() - TimeDelta::days(400), named("long-over", 1));
    let long_ago = at(chrono::DateTime::UNIX_EPOCH - TimeDelta::days(1), named("before-1970", 1));
    let far = at(Utc::now() + TimeDelta::days(10_000), named("far", 1));
    let short = at(soon, named("short", 1));
    let kept = at(soon, named("kept", 1));
    written(sink, &[past, long_ago, far, short.clone(), kept]).await?;
    assert_eq!(visible(sink).await?, before + 3, "what expires later is still there");
    assert_eq!(one(sink, "short").await?, Some(short.stored()));
    written(sink, &[named("kept", 2)]).await?;

    let left = (soon - Utc::now()).to_std().unwrap_or_default();
    tokio::time::sleep(left + std::time::Duration::from_millis(100)).await;
    assert_eq!(visible(sink).await?, before + 2, "what is expired isn't seen; a write without expiry stays");
    let stored = one(sink, "short").await?;
    ensure!(stored.is_none() || stored == Some(short.stored()), "dropped, or as it was: {stored:?}");
    assert_eq!(one(sink, "kept").await?, Some(named("kept", 2).stored()));
    Ok(())
}

async fn children(sink: &dyn Sink) -> Result<()> {
    let of =
        |parents: &[&str], write: Write| Write { parents: parents.iter().map(|p| (*p).to_owned()).collect(), ..write };
    let parent = "pärent/{1}:*";
    let mut keys: Vec<String> = (0..25).map(|i| format!("child-{i:02}")).collect();
    keys.extend(["Child", "child", "chïld", "😀 child", "~child"].map(str::to_owned));
    let mut batch: Vec<Write> = keys.iter().map(|key| of(&[parent, "other"], named(key, 1))).collect();
    batch.push(of(&["other"], named("only-other", 1)));
    batch.push(named("nobody's", 1));
    written(sink, &batch).await?;
    keys.sort_unstable();

    assert_eq!(sink.children(parent, None, 1000).await?, keys, "all, in order, without asking for a refresh");
    assert_eq!(sink.children(parent, None, 7).await?, keys[..7]);
    let mut found: Vec<String> = Vec::new();
    while found.len() < keys.len() {
        let page = sink.children(parent, found.last().map(String::as_str), 8).await?;
        ensure!(!page.is_empty() && found.last() < page.first(), "{page:?} comes after {found:?}");
        found.extend(page);
    }
    let after_last = sink.children(parent, found.last().map(String::as_str), 8).await?;
    ensure!(after_last.is_empty(), "{after_last:?} comes after the last");
    assert_eq!(found, keys, "page by page");
    assert_eq!(sink.children("other", None, 1000).await?.len(), keys.len() + 1);
    ensure!(sink.children("nobody", None, 10).await?.is_empty(), "a parent that none names");

    // A child that moves is found where it is, and its fields show nothing of it.
    written(sink, &[of(&["third"], named("child-03", 2))]).await?;
    assert_eq!(sink.children("third", None, 10).await?, ["child-03"]);
    assert_eq!(one(sink, "child-03").await?, Some(named("child-03", 2).stored()));
    written(sink, &[of(&["third"], tombstone("child-04", 2))]).await?;
    let third = sink.children("third", None, 10).await?;
    ensure!(third.contains(&"child-03".to_owned()), "{third:?}");
    Ok(())
}
