//! Why a verb can't be done.

use super::memory::Halt;
use crate::control::ControlError;
use crate::event::DecodeError;
use crate::generation::JobError;
use crate::host::HostError;
use crate::projection::Finding;
use crate::sink::SinkError;
use crate::source::{ConnectError, EventStoreError, SourceError};
use serde_json::json;

/// Why a verb can't be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerbError {
    /// What is named isn't there; with where to look.
    #[error("{0}")]
    NotFound(String),
    /// It can't be done as things are; with what to do first.
    #[error("{0}")]
    Refused(String),
    /// Something that it needs wasn't named when the process was started.
    #[error("{0}")]
    Unconfigured(String),
    /// Projections can't be read.
    #[error("{0}")]
    Unreadable(String),
    /// Projections are wrong: every error, with its place.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Findings(Vec<Finding>),
    /// The control store.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// What a rebuild needs.
    #[error(transparent)]
    Job(#[from] JobError),
    /// A generation can't be opened.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A read store.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// Kafka.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Kafka Connect.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The event store.
    #[error(transparent)]
    EventStore(#[from] EventStoreError),
    /// An event can't be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A read model in memory stands still.
    #[error(transparent)]
    Halt(#[from] Halt),
}

/// A finding, for machines.
pub(crate) fn finding_json(finding: &Finding) -> serde_json::Value {
    let (line, column) = finding.position();
    json!({
        "file": finding.file(), "line": line, "column": column, "rule": finding.rule(), "message": finding.message(),
        "help": finding.advice(),
    })
}
