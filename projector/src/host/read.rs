//! Reading messages: what needs nobody's answer is read by the polling thread, so that it goes on while the store is at work.

use crate::apply::Event;
use crate::event::{Decoder, Envelope, Raw};
use crate::projection::Compiled;
use std::sync::Arc;

/// Reads one projection's messages.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) compiled: Arc<Compiled>,
    pub(super) decoder: Arc<Decoder>,
}

impl Reader {
    /// Reads no more of an event than its program does.
    pub(super) fn new(compiled: Arc<Compiled>, decoder: &Decoder) -> Self {
        let decoder = Arc::new(decoder.only(compiled.wants()));
        Self { compiled, decoder }
    }

    /// What a message says, payload included where the projection takes its event; or why it isn't an event. None if the
    /// registry has to be asked for its schema first.
    pub(super) fn read(&self, raw: &Raw) -> Option<Result<Box<Event>, String>> {
        let envelope = match Envelope::read(raw) {
            Ok(envelope) => envelope,
            Err(error) => return Some(Err(error.to_string())),
        };
        let data = match self.compiled.program(&envelope.event_type) {
            Some(_) => {
                let payload = raw.payload().unwrap_or_default();
                Some(self.decoder.decode_known(&envelope, payload)?.map_err(|error| error.to_string()))
            }
            None => None,
        };
        Some(Ok(Box::new(Event { envelope, data })))
    }
}
