//! What every store must do with saved progress.

use super::fixtures::{named, put};
use anyhow::Result;
use projector::apply::{Outcome, Partition, Progress, Write};
use projector::event::{EventRef, TxSnapshot};
use projector::sink::Sink;
use std::sync::Arc;

fn partition(number: i32) -> Partition {
    Partition { topic: "events.ördér".into(), number }
}

/// The partitions that the suite saves progress of.
pub(super) const NUMBERS: [i32; 4] = [0, 11, 12, 13];

pub(super) async fn progress(sink: &dyn Sink) -> Result<()> {
    assert_eq!(sink.load_progress(&[partition(0), partition(1)]).await?, [None, None]);
    let mut first = Progress::default();
    first.handled(
        &EventRef {
            epoch: "7.1".into(),
            txid: u64::MAX,
            tx_min: 9,
            snapshot: Some(Arc::new(TxSnapshot::new(2_000, vec![9, 1_990]))),
            aggregate_id: "ä/\"\u{0}".into(),
            sequence: 3,
        },
        41,
    );
    let second = Progress { next_offset: i64::MAX, ..Progress::default() };
    sink.save_progress(&[(partition(0), first.clone()), (partition(11), second.clone())]).await?;
    let loaded = sink.load_progress(&[partition(11), partition(1), partition(0)]).await?;
    assert_eq!(loaded, [Some(second), None, Some(first.clone())]);
    first.passed(42);
    sink.save_progress(&[(partition(0), first.clone())]).await?;
    assert_eq!(sink.load_progress(&[partition(0)]).await?, [Some(first)], "the newest counts");
    sink.save_progress(&[]).await?;
    former_owner(sink).await
}

/// An owner who was given up but doesn't know yet changes nothing, whatever it has read meanwhile.
async fn former_owner(sink: &dyn Sink) -> Result<()> {
    let at = |fence, next_offset| Progress { next_offset, fence, ..Progress::default() };
    let steps = [
        (at(0, 5), at(0, 5)),
        (at(2, 10), at(2, 10)),
        (at(1, 900), at(2, 10)),
        (at(0, 901), at(2, 10)),
        (at(2, 11), at(2, 11)),
        // The next owner begins where the last one had saved, be it earlier than where that one had come.
        (at(3, 7), at(3, 7)),
        (at(2, 12), at(3, 7)),
        (at(4_000_000_000, 8), at(4_000_000_000, 8)),
        (at(3_999_999_999, 9), at(4_000_000_000, 8)),
    ];
    for (saved, expected) in steps {
        // Another partition of the same save lands, whatever becomes of this one.
        let beside = Progress { fence: i64::MAX >> 12, ..saved.clone() };
        sink.save_progress(&[(partition(12), saved.clone()), (partition(11), beside.clone())]).await?;
        let loaded = sink.load_progress(&[partition(12), partition(11)]).await?;
        assert_eq!(loaded, [Some(expected), Some(beside)], "after {saved:?}");
    }
    Ok(())
}

/// Progress that goes with a batch: where the store has transactions it is saved with it, or not at all; elsewhere it is left to the caller.
pub(super) async fn with_its_batch(sink: &dyn Sink) -> Result<()> {
    let (key, at) = (|n: i64| format!("with-progress-{n}"), partition(NUMBERS[3]));
    let progress = |fence, next_offset| [(at.clone(), Progress { next_offset, fence, ..Progress::default() })];
    // In several statements, if it comes to that.
    let mut batch: Vec<Write> = (0..1_500).map(|n| named(&key(n), 5)).collect();
    let (outcomes, saved) = sink.write_with_progress(&batch, &progress(1, 10)).await?;
    assert_eq!(outcomes, vec![Outcome::Written; batch.len()]);
    assert_eq!(saved, sink.has_transactions());
    let expected = [saved.then(|| progress(1, 10)[0].1.clone())];
    assert_eq!(sink.load_progress(std::slice::from_ref(&at)).await?, expected);

    for spoilt in [0, 700, 1_200, 1_499] {
        // One that is stale, one that is refused: the others land, and nothing is saved.
        for stale in [true, false] {
            batch.iter_mut().for_each(|write| write.version += 1);
            let mut batch = batch.clone();
            if stale {
                batch[spoilt].version = 1;
            } else {
                batch[spoilt] = put(&key(0), 99, serde_json::json!({ "_name": "ours" }));
                batch[spoilt].key = key(i64::try_from(spoilt)?);
            }
            let (outcomes, saved) = sink.write_with_progress(&batch, &progress(1, 11)).await?;
            let others = outcomes.iter().enumerate().filter(|(at, _)| *at != spoilt);
            assert!(others.into_iter().all(|(_, outcome)| *outcome == Outcome::Written), "{spoilt}: {outcomes:?}");
            assert_ne!(outcomes[spoilt], Outcome::Written);
            assert!(!saved);
            assert_eq!(sink.load_progress(std::slice::from_ref(&at)).await?, expected, "{spoilt}");
        }
    }

    // A former owner's lands with its writes as little as by itself.
    sink.save_progress(&progress(7, 20)).await?;
    batch.iter_mut().for_each(|write| write.version += 1);
    sink.write_with_progress(&batch, &progress(6, 30)).await?;
    assert_eq!(sink.load_progress(std::slice::from_ref(&at)).await?, [Some(progress(7, 20)[0].1.clone())]);
    // Nothing to write says nothing of progress.
    let (outcomes, _) = sink.write_with_progress(&[], &[]).await?;
    assert!(outcomes.is_empty());
    Ok(())
}
