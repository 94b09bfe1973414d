//! What every store of facts must do.

use super::fixtures::{row, written};
use super::progress::progress;
use anyhow::{Result, ensure};
use projector::apply::{Outcome, Write};
use projector::expr::{Object, Value};
use projector::sink::Sink;
use uuid::Uuid;

/// The suite; leaves two rows of event `one` and one of event `two`, whose amounts are −3, 5 and more than a double tells apart.
pub(super) async fn facts(sink: &dyn Sink) -> Result<()> {
    sink.prepare().await?;
    sink.prepare().await?;
    sink.go_live().await?;
    sink.go_live().await?;

    // The same ids again, in the same and in another block, are the same rows.
    let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
    let big = (1_i64 << 53) + 1;
    let batch = [row(one, 0, "2026-11-21", big), row(one, 1, "2020-01-31", -3), row(two, 0, "2026-11-21", 5)];
    written(sink, &batch).await?;
    written(sink, &batch).await?;
    written(sink, &batch[2..]).await?;
    assert_eq!(sink.count().await?, 3);

    // A bad row is refused alone.
    let fields = Some(Object::from([("_row".into(), Value::from(1))]).into());
    let bad = Write { fields, ..row(Uuid::now_v7(), 0, "2026-11-20", 1) };
    let outcomes = sink.write(&[batch[0].clone(), bad, batch[2].clone()]).await?;
    ensure!(matches!(&outcomes[..], [Outcome::Written, Outcome::Rejected(_), Outcome::Written]), "{outcomes:?}");
    assert_eq!(sink.count().await?, 3);
    progress(sink).await
}
