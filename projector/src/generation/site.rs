//! What a job reaches, and what can be said of a rebuild from there.

use crate::apply::Partition;
use crate::control::{Control, ControlError, Member, Origin, ProgressMap, Rebuild, State};
use crate::event::{Catalog, Decoder};
use crate::host::{self, HostError};
use crate::projection::{Compiled, Store};
use crate::sink::redis::neighbour;
use crate::sink::{SinkError, StoreUrls};
use crate::source::{Bounds, Edges, EventStoreError, KafkaConfig, SourceError};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// What a job needs to reach.
#[derive(Clone)]
pub struct Site {
    /// The control store.
    pub control: Control,
    /// The event types.
    pub catalog: Arc<Catalog>,
    /// The read stores.
    pub stores: StoreUrls,
    /// Kafka.
    pub kafka: KafkaConfig,
    /// Where its topics begin and end.
    pub edges: Edges,
    /// Reads events, where it was told how.
    pub decoder: Option<Arc<Decoder>>,
    /// The event store, if it was named.
    pub event_store: Option<String>,
    /// Who we are, for others.
    pub name: String,
    /// Who we are, for the lease.
    pub id: Uuid,
}

/// Why a job can't go on for now.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The control store.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A read store.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// Kafka.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A generation can't be opened.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The event store.
    #[error(transparent)]
    EventStore(#[from] EventStoreError),
    /// The history is nowhere that it could be read.
    #[error("{0}")]
    HistoryGone(String),
    /// There is no place to build it.
    #[error("{0}")]
    Place(String),
}

/// What can be seen of a rebuild.
#[derive(Clone, Debug)]
pub struct Status {
    /// The rebuild.
    pub rebuild: Rebuild,
    /// The generation that is to be live.
    pub target: Member,
    /// The number of the one that is.
    pub replaces: i32,
    /// Messages that it has handled.
    pub done: i64,
    /// Messages that there are.
    pub total: i64,
    /// Messages that the live one hasn't handled.
    pub live_behind: i64,
    /// Whether both stand still now.
    pub at_barrier: bool,
}

pub(super) fn position(progress: &ProgressMap, partition: &Partition) -> i64 {
    progress.get(partition).map_or(0, |progress| progress.next_offset)
}

/// How far a rebuild is.
///
/// # Errors
/// The control store or Kafka doesn't answer.
pub(super) async fn status_of(site: &Site, rebuild: &Rebuild) -> Result<Status, JobError> {
    let control = &site.control;
    let (target, live) = (control.member(rebuild.generation_id).await?, control.member(rebuild.replaces).await?);
    let (of_target, of_live) =
        (control.progress(rebuild.generation_id).await?, control.progress(rebuild.replaces).await?);
    let (mut done, mut total, mut live_behind) = (0, 0, 0);
    let history = rebuild.history.filter(|history| !history.finished);
    for (topic, count) in &target.generation.topics {
        for (number, (_, end)) in site.edges.lately(topic, *count).await? {
            let partition = Partition { topic: topic.as_str().into(), number };
            done += position(&of_target, &partition).clamp(0, end);
            total += end;
            if live.generation.topics.contains_key(topic) {
                live_behind += (end - position(&of_live, &partition)).max(0);
            }
        }
    }
    if let Some(history) = history {
        (done, total) = (history.done, history.total);
    }
    let at_barrier = control.barrier_of(rebuild.lead()).await?.is_some();
    let replaces = live.generation.generation;
    Ok(Status { rebuild: rebuild.clone(), target, replaces, done, total, live_behind, at_barrier })
}

/// Where the whole history is.
///
/// # Errors
/// It is nowhere that it could be read, with what to do.
pub async fn origin(
    site: &Site,
    name: &str,
    topics: &BTreeMap<String, i32>,
    wanted: Option<Origin>,
) -> Result<Origin, JobError> {
    if wanted != Some(Origin::EventStore) {
        let mut gone = None;
        for (topic, count) in topics {
            gone = gone.or(first_gone(topic, &site.edges.of(topic, *count).await?));
        }
        match gone {
            None => return Ok(Origin::Kafka),
            Some(gone) if wanted == Some(Origin::Kafka) || site.event_store.is_none() => {
                return Err(JobError::HistoryGone(format!(
                    "{name}: {gone}, so nothing can be built from there; `--from event-store` reads the history from the event \
                     store (WRITE_DATABASE_URL)"
                )));
            }
            Some(_) => {}
        }
    }
    if site.event_store.is_none() || site.decoder.is_none() {
        return Err(JobError::HistoryGone(format!(
            "{name}: its history is to be read from the event store; say where that is: --write-database-url (WRITE_DATABASE_URL)"
        )));
    }
    Ok(Origin::EventStore)
}

/// That nothing else lives where the generation would be built.
///
/// # Errors
/// What speaks against it, and what to do.
pub async fn may_rebuild(site: &Site, compiled: &Compiled) -> Result<(), JobError> {
    let name = &compiled.projection.name.value;
    let Store::Redis(store) = &compiled.projection.store else { return Ok(()) };
    for member in site.control.members().await? {
        let of_us = member.generation.read_model == *name;
        let Ok((other, _)) = host::open(&member.generation, &site.catalog, &site.stores) else { continue };
        let Store::Redis(theirs) = &other.projection.store else { continue };
        if theirs.database != store.database && theirs.database != neighbour(store.database) {
            continue;
        }
        if of_us && member.state == State::Retired {
            return Err(JobError::Place(format!(
                "{name}: database {} still holds {} for a way back; `projector rebuild retire {name}` gives that up",
                neighbour(store.database),
                member.generation.id()
            )));
        }
        if !of_us {
            return Err(JobError::Place(format!(
                "{name}: another generation needs database {} and its neighbour {} for itself, since they are swapped, and {} is \
                 there too; give one of them a `database:` of another pair (0 and 1, 2 and 3, …)",
                store.database,
                neighbour(store.database),
                member.generation.read_model
            )));
        }
    }
    Ok(())
}

pub(super) fn first_gone(topic: &str, bounds: &Bounds) -> Option<String> {
    let (number, (first, _)) = bounds.iter().find(|(_, (first, _))| *first > 0)?;
    Some(format!("the first {first} events of {topic}/{number} are gone from Kafka"))
}

impl Site {
    /// How far a rebuild is.
    ///
    /// # Errors
    /// The control store or Kafka doesn't answer.
    pub async fn status(&self, rebuild: &Rebuild) -> Result<Status, JobError> {
        status_of(self, rebuild).await
    }
}
