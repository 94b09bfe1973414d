//! Steps with a verdict each, and the table of them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::{
    letters,
    processes::{Process, connector_running, projector_ready},
    tools,
    write_side::WriteSide,
};
use uuid::Uuid;

/// Seconds that the projector may need to catch up after a step.
const CATCH_UP_S: u64 = 90;
/// Words, with commas between: only steps whose names hold one of them are done.
const CHOICE: &str = "FAULTS";

struct Row {
    step: String,
    took: Duration,
    settled: Duration,
    events: i64,
    result: String,
}

/// What was done so far; printed when dropped, that is in any case.
pub(crate) struct Steps {
    write_side: WriteSide,
    rows: Vec<Row>,
    failed: usize,
    /// The orders that may have dead letters.
    pub(crate) poisoned: Vec<Uuid>,
}

impl Steps {
    pub(crate) fn new(write_side: WriteSide) -> Self {
        Self { write_side, rows: Vec::new(), failed: 0, poisoned: Vec::new() }
    }

    /// Does a step, which answers with a remark, and audits what it left. One that fails doesn't hide what is wrong with
    /// the next ones: a projector that may be stuck is started anew before them.
    pub(crate) async fn step(&mut self, name: &str, work: impl Future<Output = Result<String>>) -> Result<()> {
        if !chosen(name) {
            return Ok(());
        }
        eprintln!("step: {name}");
        let (before, began) = (self.write_side.events().await?, Instant::now());
        let done = work.await;
        let (took, began) = (began.elapsed(), Instant::now());
        let result = match done {
            Ok(remark) => settled(&self.poisoned).await.map(|()| remark),
            Err(error) => Err(error),
        };
        let settled = began.elapsed();
        let events = self.write_side.events().await? - before;
        let text = match &result {
            Ok(remark) => format!("0 different, {} poisoned; {remark}", self.poisoned.len()),
            Err(error) => format!("FAILED: {error:#}"),
        };
        let row = Row { step: name.to_owned(), took, settled, events, result: text };
        eprintln!("  {row}");
        self.rows.push(row);
        if result.is_err() {
            self.failed += 1;
            revive().await?;
        }
        Ok(())
    }

    /// The verdict on all of them.
    pub(crate) fn verdict(&self, events_min: i64) -> Result<()> {
        ensure!(self.failed == 0, "{} of {} steps failed", self.failed, self.rows.len());
        let events = self.events();
        ensure!(std::env::var_os(CHOICE).is_some() || events >= events_min, "only {events} events flowed");
        Ok(())
    }

    /// Events that were written during all steps.
    fn events(&self) -> i64 {
        self.rows.iter().map(|row| row.events).sum()
    }
}

fn chosen(name: &str) -> bool {
    std::env::var(CHOICE).map_or(true, |words| words.split(',').any(|word| name.contains(word)))
}

/// What died is started, the projector in any case; waits until it has caught up, as the next step's audit would blame it.
async fn revive() -> Result<()> {
    tools::run("xtask", &["up"]).await?;
    if let Ok(projector) = Process::running("projector-run") {
        projector.kill().await?;
    }
    tools::run("xtask", &["services", "up"]).await?;
    tools::audit(CATCH_UP_S).await.map(drop)
}

/// Everything runs, the audit finds nothing, and the dead letters are those of the poisoned orders.
async fn settled(poisoned: &[Uuid]) -> Result<()> {
    connector_running().await?;
    projector_ready().await?;
    tools::audit_agrees(CATCH_UP_S).await?;
    letters::are_of(poisoned).await
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (took, settled) = (self.took.as_secs_f64(), self.settled.as_secs_f64());
        write!(f, "{:<52} {took:>7.1} {settled:>9.1} {:>7}  {}", self.step, self.events, self.result)
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        eprintln!("\n{:<52} {:>7} {:>9} {:>7}  result", "step", "took s", "audited s", "events");
        self.rows.iter().for_each(|row| eprintln!("{row}"));
        eprintln!("{} events in all\n", self.events());
    }
}
