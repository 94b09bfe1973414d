//! What must hold when a store goes away at an awkward moment, and the same batch comes again.

use super::fixtures::{loan, row, unavailable};
use super::proxy::{Mode, Proxy};
use anyhow::{Result, bail, ensure};
use projector::apply::{Outcome, Partition, Progress, Write};
use projector::sink::{Sink, SinkError};
use std::time::Duration;
use uuid::Uuid;

/// Bytes after which most of a batch below is still to come; ClickHouse's is sent compressed.
const DOCUMENTS_BYTES: usize = 256 << 10;
const FACTS_BYTES: usize = 16 << 10;

/// A batch of documents of about 0.5 MB, or of facts.
fn documents(named: &str, facts: bool) -> Vec<Write> {
    let one = |i| {
        if facts { row(Uuid::now_v7(), 0, "2026-11-21", i) } else { Write { key: format!("{named}-{i}"), ..loan(i) } }
    };
    (0..if facts { 3_000 } else { 500 }).map(one).collect()
}

/// Calls again until the store is back, as the host does.
async fn again(sink: &dyn Sink, batch: &[Write]) -> Result<Vec<Outcome>> {
    for _ in 0..50 {
        match sink.write(batch).await {
            Ok(outcomes) => return Ok(outcomes),
            Err(SinkError::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => return Err(error.into()),
        }
    }
    bail!("the store isn't back after 50 tries")
}

/// `through` reaches the store through `proxy`, and `direct` without it; both are one place, already prepared.
pub(super) async fn outages(through: &dyn Sink, direct: &dyn Sink, proxy: &Proxy, facts: bool) -> Result<()> {
    let count = async || -> Result<u64> {
        direct.refresh().await?;
        Ok(direct.count().await?)
    };
    let middle = if facts { FACTS_BYTES } else { DOCUMENTS_BYTES };
    let before = count().await?;
    through.write(&documents("warm", facts)[..1]).await?;

    // The server is gone in the middle of a batch. Some of it may have landed.
    let batch = documents("torn", facts);
    proxy.set(Mode::CutAfter(middle));
    unavailable(through.write(&batch).await)?;
    unavailable(through.write(&batch[..1]).await)?;
    proxy.heal();
    let outcomes = again(through, &batch).await?;
    ensure!(outcomes.iter().all(|o| matches!(o, Outcome::Written | Outcome::Stale)), "{outcomes:?}");
    assert_eq!(count().await?, before + 1 + batch.len() as u64, "all of it, each once");

    // All of a batch landed, but nobody hears of it.
    let batch = documents("unheard", facts);
    proxy.set(Mode::SwallowAfter(middle));
    unavailable(through.write(&batch).await)?;
    proxy.heal();
    let outcomes = again(through, &batch).await?;
    if !facts {
        assert_eq!(outcomes, vec![Outcome::Stale; batch.len()], "it is known to have landed");
    }
    assert_eq!(count().await?, before + 1 + 2 * batch.len() as u64, "nothing twice");

    if !facts {
        let keys: Vec<String> = batch.iter().map(|write| write.key.clone()).collect();
        let loaded = through.load(&keys).await?;
        ensure!(loaded == batch.iter().map(|w| Some(w.stored())).collect::<Vec<_>>(), "not as they were written");
    }
    unheard_progress(through, proxy).await
}

/// Progress whose answer was lost is saved again, and is there.
async fn unheard_progress(sink: &dyn Sink, proxy: &Proxy) -> Result<()> {
    let partition = |number| Partition { topic: "events.ördér".into(), number };
    let saved = |next_offset| Progress { next_offset, fence: 1 << 52, ..Progress::default() };
    proxy.set(Mode::CutAfter(0));
    unavailable(sink.save_progress(&[(partition(0), saved(1))]).await)?;
    proxy.heal();
    for _ in 0..50 {
        if sink.save_progress(&[(partition(0), saved(2))]).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(sink.load_progress(&[partition(0)]).await?, [Some(saved(2))]);
    Ok(())
}
