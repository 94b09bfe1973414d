//! One document's history, event by event: why is it as it is?

use super::VerbError;
use super::history::{Reader, fold};
use super::memory::{Answers, Memory};
use crate::control::Control;
use crate::event::{Catalog, Decoder};
use crate::expr::json;
use crate::host::{self, Lookups};
use crate::projection::{Compiled, ReadModelKind};
use crate::sink::{StoreUrls, Stored};
use serde::Serialize;
use serde_json::Value as Json;
use std::sync::Arc;

/// Where history and documents are.
pub(crate) struct Sources<'a> {
    pub(crate) control: &'a Control,
    pub(crate) catalog: &'a Arc<Catalog>,
    pub(crate) stores: &'a StoreUrls,
    pub(crate) decoder: &'a Arc<Decoder>,
    /// The database with the event store.
    pub(crate) event_store: &'a str,
}

/// How a document came to be.
#[derive(Debug, Serialize)]
pub(crate) struct Trace {
    pub(crate) steps: Vec<Step>,
    /// What the read store has.
    pub(crate) stored: Json,
    /// Whether that is what the events come to.
    pub(crate) same: bool,
    /// The projection as it was applied: it says what is personal.
    #[serde(skip)]
    pub(crate) compiled: Arc<Compiled>,
}

/// An event that changed the document.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) event: String,
    pub(crate) aggregate: String,
    pub(crate) at: String,
    pub(crate) before: Json,
    pub(crate) after: Json,
}

/// Folds the history of a live read model's document anew, in memory.
///
/// # Errors
/// [`VerbError`]: there is no such read model, it has rows, or something doesn't answer.
pub(crate) async fn trace(sources: &Sources<'_>, name: &str, key: &str) -> Result<Trace, VerbError> {
    let live = sources.control.live().await?;
    let generation = live.iter().find(|g| g.read_model == name);
    let generation = generation.ok_or_else(|| VerbError::NotFound(format!("no read model `{name}` is live")))?;
    let (compiled, sink) = host::open(generation, sources.catalog, sources.stores)?;
    if compiled.kind == ReadModelKind::Facts {
        return Err(VerbError::Refused(format!("`{name}` keeps rows, which no event changes")));
    }
    let compiled = Arc::new(compiled);
    // Where each document has one aggregate, no other has to be looked at.
    let only = if compiled.kind == ReadModelKind::Entity { vec![key.to_owned()] } else { Vec::new() };
    let mut reader = Reader::new(sources.event_store, Arc::clone(sources.decoder), Arc::clone(&compiled), only);
    let (catalog, stores) = (Arc::clone(sources.catalog), sources.stores.clone());
    let lookups = Lookups::new(Arc::clone(&compiled), sources.control.clone(), catalog, stores);
    let mut memory = Memory::new(Arc::clone(&compiled), Answers::Stores(Box::new(lookups))).await?;
    let mut steps: Vec<Step> = Vec::new();
    let mut before = Json::Null;
    while let Some((partition, event)) = reader.next().await? {
        let envelope = event.envelope.clone();
        fold(&mut memory, vec![(partition, event)]).await?;
        let after = shown(memory.document(key).await?);
        if after != before {
            steps.push(Step {
                event: envelope.event_type.to_string(),
                aggregate: format!(
                    "{} {} of {}",
                    envelope.aggregate_type, envelope.reference.sequence, envelope.reference.aggregate_id
                ),
                at: json::time_text(&envelope.occurred_at),
                before: std::mem::replace(&mut before, after.clone()),
                after,
            });
        }
    }
    let stored = shown(sink.load(&[key.to_owned()]).await?.into_iter().next().flatten());
    let same = without_nulls(&stored) == without_nulls(&before);
    Ok(Trace { steps, stored, same, compiled })
}

fn shown(stored: Option<Stored>) -> Json {
    let fields = stored.and_then(|stored| stored.fields);
    fields.map_or(Json::Null, |fields| Json::Object(json::object_to_json(&fields)))
}

/// Stores have no field where it is null.
fn without_nulls(document: &Json) -> Json {
    match document {
        Json::Object(map) => map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect(),
        other => other.clone(),
    }
}
