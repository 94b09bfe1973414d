//! The event store's history as a host would read it from Kafka, folded in memory: for `trace` and `try`.

use super::VerbError;
use super::memory::Memory;
use crate::apply::{Delivery, Event, Partition};
use crate::event::{Decoder, Envelope, Raw};
use crate::projection::Compiled;
use crate::source::{History, Selection, StoredEvent};
use std::sync::Arc;

/// Reads the events that feed a read model, one aggregate type after the other, and folds them.
pub(crate) struct Reader {
    compiled: Arc<Compiled>,
    decoder: Arc<Decoder>,
    url: String,
    /// Types still to be read, the next one last.
    types: Vec<String>,
    aggregates: Vec<String>,
    open: Option<History>,
    waiting: std::vec::IntoIter<StoredEvent>,
}

impl Reader {
    /// From the event store at `url`; of these aggregates only, of all if none is named.
    pub(crate) fn new(url: &str, decoder: Arc<Decoder>, compiled: Arc<Compiled>, aggregates: Vec<String>) -> Self {
        let types = compiled.aggregate_types.iter().rev().cloned().collect();
        let (url, waiting) = (url.to_owned(), Vec::new().into_iter());
        Self { compiled, decoder, url, types, aggregates, open: None, waiting }
    }

    /// The next event; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<(Partition, Event)>, VerbError> {
        loop {
            if let Some(stored) = self.waiting.next() {
                return self.read(&stored).await.map(Some);
            }
            if let Some(history) = &mut self.open {
                self.waiting = history.events().await?.into_iter();
                if self.waiting.len() == 0 {
                    self.open = None;
                }
                continue;
            }
            let Some(aggregate_type) = self.types.pop() else { return Ok(None) };
            let selection = Selection { aggregate_type, from_position: 0, aggregate_ids: self.aggregates.clone() };
            self.open = Some(History::open(&self.url, &selection).await?);
        }
    }

    /// As a host reads a message.
    async fn read(&self, stored: &StoredEvent) -> Result<(Partition, Event), VerbError> {
        let raw = Raw::new(Some(stored.aggregate_id.as_bytes()), &stored.headers(), None);
        let envelope = Envelope::read(&raw)
            .map_err(|error| VerbError::Unreadable(format!("a row of the event store: {error}")))?;
        let data = match self.compiled.program(&envelope.event_type) {
            None => None,
            Some(_) => match self.decoder.decode(&envelope, &stored.payload).await {
                Err(error) if error.is_transient() => return Err(error.into()),
                decoded => Some(decoded.map_err(|error| error.to_string())),
            },
        };
        let topic = format!("events.{}", envelope.aggregate_type);
        Ok((Partition { topic: topic.into(), number: 0 }, Event { envelope, data }))
    }
}

/// Folds events into memory as one batch.
pub(crate) async fn fold(memory: &mut Memory, events: Vec<(Partition, Event)>) -> Result<(), VerbError> {
    let mut messages = Vec::with_capacity(events.len());
    for (n, (partition, event)) in (0..).zip(events) {
        // Offsets only have to rise.
        let offset = memory.next_offset(&partition) + n;
        messages.push((partition, Delivery { offset, raw: Raw::default(), event: Ok(Box::new(event)) }));
    }
    Ok(memory.take(messages).await?)
}
