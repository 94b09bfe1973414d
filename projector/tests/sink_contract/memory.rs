//! In memory.

use super::documents::{Text, documents};
use super::facts::facts;
use super::fixtures::{fenced, named, place, written};
use anyhow::Result;
use chrono::{TimeDelta, Utc};
use projector::apply::{Outcome, Write};
use projector::sink::Sink as _;
use projector::sink::memory::{Fault, MemorySink, MemoryStore};
use std::sync::Arc;

#[tokio::test]
async fn memory_keeps_the_contract() -> Result<()> {
    let store = Arc::new(MemoryStore::default());
    let sink = MemorySink::open(Arc::clone(&store), &place("m", 1));
    documents(&sink, Text::Any).await?;
    fenced(MemorySink::open(Arc::clone(&store), &place("m", 2)).prepare().await);
    assert_eq!(store.live().as_deref(), Some("m-g1"));

    // An unknown outcome, then the same batch again: written once.
    store.fail_next([Fault::After, Fault::Before]);
    let (batch, before) = ([named("late", 1)], store.writes());
    assert!(sink.write(&batch).await.is_err() && sink.write(&batch).await.is_err());
    assert_eq!(sink.write(&batch).await?, [Outcome::Stale]);
    assert_eq!(store.writes(), before + 1);

    // Tests see when a document expires.
    let at = Utc::now() + TimeDelta::days(3);
    written(&sink, &[Write { expires: Some(at), ..named("expiring", 1) }]).await?;
    assert_eq!((store.expires("expiring"), store.expires("late")), (Some(at), None));
    Ok(())
}

#[tokio::test]
async fn memory_keeps_the_contract_of_facts() -> Result<()> {
    let sink = MemorySink::open(Arc::default(), &place("m", 1));
    facts(&sink).await
}
