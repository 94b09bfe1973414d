//! Writing snapshots, off the command's path: a command that is answered has only put its state in a queue.
//!
//! A snapshot saves reading and decides nothing: a lost one costs the next load some more events. So a full queue drops
//! them, and a failed write is only logged.

use sqlx::PgPool;
use tokio::sync::mpsc;

use super::streams::Snapshot;

const QUEUE_MAX: usize = 1_024;

#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    queue: mpsc::Sender<Snapshot>,
}

impl Snapshots {
    /// Ends when the last clone is dropped.
    pub(super) fn start(pool: PgPool) -> Self {
        let (queue, mut due) = mpsc::channel::<Snapshot>(QUEUE_MAX);
        tokio::spawn(async move {
            while let Some(snapshot) = due.recv().await {
                if let Err(error) = write(&pool, &snapshot).await {
                    tracing::warn!(stream = snapshot.stream_id, %error, "a snapshot could not be written");
                }
            }
        });
        Self { queue }
    }

    pub(super) fn take(&self, snapshots: Vec<Snapshot>) {
        for snapshot in snapshots {
            if self.queue.try_send(snapshot).is_err() {
                tracing::warn!("a snapshot was dropped: more are waiting than can be written");
            }
        }
    }
}

async fn write(pool: &PgPool, snapshot: &Snapshot) -> Result<(), sqlx::Error> {
    let sql = "insert into snapshots (stream_id, stream_position, data) values ($1, $2, $3)
               on conflict (stream_id, stream_position) do update set data = excluded.data, created_at = now()";
    sqlx::query(sql).bind(&snapshot.stream_id).bind(snapshot.position).bind(&snapshot.data).execute(pool).await?;
    Ok(())
}
