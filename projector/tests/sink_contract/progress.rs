//! What every store must do with saved progress.

use anyhow::Result;
use projector::apply::{Partition, Progress};
use projector::event::{EventRef, TxSnapshot};
use projector::sink::Sink;
use std::sync::Arc;

fn partition(number: i32) -> Partition {
    Partition { topic: "events.ördér".into(), number }
}

/// The partitions that the suite saves progress of.
pub(super) const NUMBERS: [i32; 3] = [0, 11, 12];

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
