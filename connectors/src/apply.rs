//! `connectors apply`: the connector as configured, streaming, or a clear reason why not.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::connect::{Client, Config, ConnectError, FieldError, Status};

/// Why the connector could not be brought to run.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The configuration file is unreadable.
    #[error("reading {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Connect's validation found errors.
    #[error("Kafka Connect refuses the configuration:\n{}", list(.0))]
    Invalid(Vec<FieldError>),
    /// The connector or its task failed.
    #[error("connector {name} FAILED; its trace:\n{trace}")]
    Failed {
        /// The connector.
        name: String,
        /// The stack trace.
        trace: String,
    },
    /// It neither runs (or stops, where that was asked) nor fails.
    #[error("connector {name} is not as asked after {seconds} s; last state: {state}")]
    Timeout {
        /// The connector.
        name: String,
        /// How long was waited.
        seconds: u64,
        /// What Connect said last.
        state: String,
    },
    /// A request failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

fn list(errors: &[FieldError]) -> String {
    errors.iter().map(|error| format!("  - {error}")).collect::<Vec<_>>().join("\n")
}

/// What `apply` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The connector did not exist.
    Created,
    /// Its configuration was another.
    Changed,
    /// Nothing to do.
    Unchanged,
}

/// Reads a connector's configuration: one JSON object of strings.
///
/// # Errors
/// [`ApplyError::File`]: missing, no JSON, or values that are not strings.
pub fn read(path: &Path) -> Result<Config, ApplyError> {
    let failed = |reason: String| ApplyError::File { path: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
}

/// Validates, then creates or changes the connector where it differs. It is stopped meanwhile: what runs afterwards
/// has the new configuration, while Connect reports the old task's state for a while after a change.
/// With `from_slot`, offsets of an earlier slot are forgotten: they point to WAL that is gone.
///
/// # Errors
/// Connect is unreachable, refuses fields (all of them are named), or cannot stop the connector within `limit`.
pub async fn configure(
    client: &Client,
    name: &str,
    config: &Config,
    from_slot: bool,
    limit: Duration,
) -> Result<Outcome, ApplyError> {
    validate(client, name, config).await?;
    let outcome = match client.config(name).await? {
        Some(current) if current == named(name, config) => Outcome::Unchanged,
        Some(_) => Outcome::Changed,
        None => Outcome::Created,
    };
    if outcome == Outcome::Unchanged && !from_slot {
        // Whoever stopped it asked for `apply` now; on a running connector this does nothing.
        client.resume(name).await?;
        return Ok(outcome);
    }
    if outcome == Outcome::Created {
        client.create_stopped(name, config).await?;
    } else {
        client.stop(name).await?;
    }
    wait_stopped(client, name, limit).await?;
    if outcome == Outcome::Changed {
        client.put_config(name, config).await?;
    }
    if from_slot {
        client.forget_offsets(name).await?;
    }
    client.resume(name).await?;
    Ok(outcome)
}

async fn wait_stopped(client: &Client, name: &str, limit: Duration) -> Result<(), ApplyError> {
    let deadline = Instant::now() + limit;
    loop {
        let status = client.status(name).await?;
        if status.as_ref().is_some_and(Status::stopped) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(timeout(name, limit, status));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn timeout(name: &str, limit: Duration, status: Option<Status>) -> ApplyError {
    let state = status.map_or_else(|| "unknown to Connect".to_owned(), |s| format!("{s:?}"));
    ApplyError::Timeout { name: name.to_owned(), seconds: limit.as_secs(), state }
}

/// Connect's own validation of every field.
///
/// # Errors
/// [`ApplyError::Invalid`] with every field that is refused.
pub async fn validate(client: &Client, name: &str, config: &Config) -> Result<(), ApplyError> {
    let errors = client.validate(&named(name, config)).await?;
    if errors.is_empty() { Ok(()) } else { Err(ApplyError::Invalid(errors)) }
}

/// Connect adds the name to what it stores, and its validation demands it.
fn named(name: &str, config: &Config) -> Config {
    let mut all = config.clone();
    all.insert("name".to_owned(), name.to_owned());
    all
}

/// Waits until the connector and its task run. A failure from before this call is restarted once.
///
/// # Errors
/// [`ApplyError::Failed`] with the trace, [`ApplyError::Timeout`] with the last state.
pub async fn wait_running(client: &Client, name: &str, limit: Duration) -> Result<(), ApplyError> {
    let deadline = Instant::now() + limit;
    let mut restarted = false;
    loop {
        let status = client.status(name).await?;
        if let Some(trace) = status.as_ref().and_then(|status| status.failure()) {
            if restarted {
                return Err(ApplyError::Failed { name: name.to_owned(), trace: trace.to_owned() });
            }
            tracing::warn!(connector = name, "found failed, restarting it once");
            client.restart_failed(name).await?;
            restarted = true;
            // The status topic still says FAILED for a moment.
            tokio::time::sleep(Duration::from_secs(1)).await;
        } else if status.as_ref().is_some_and(|status| status.running()) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(timeout(name, limit, status));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
