//! Payloads in the Confluent wire format: a zero, the schema's id in the registry (big endian), the Avro datum.

use super::{AvroError, Catalog, Envelope, Shape};
use crate::expr::{RunError, Value};
use apache_avro::Schema;
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id};
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// Why an event's payload couldn't be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The registry is down or slow. Try again; not the event's fault.
    #[error("the schema registry is not available: {0}")]
    Registry(String),
    /// The payload isn't in the Confluent wire format.
    #[error("the payload doesn't begin with a zero byte and a schema id")]
    WireFormat,
    /// The registry has no such schema.
    #[error("schema {id} can't be used: {reason}")]
    Schema {
        /// Its id.
        id: u32,
        /// Why.
        reason: String,
    },
    /// The payload doesn't fit its schema.
    #[error("schema {id}: {error}")]
    Avro {
        /// Its id.
        id: u32,
        /// Why.
        error: AvroError,
    },
    /// The folder of schemas doesn't know this event or this version of it.
    #[error("event {0} version {1} is unknown to the folder of schemas")]
    Unknown(Arc<str>, u32),
    /// An upcaster stopped.
    #[error("upcasting from version {0}: {1}")]
    Upcast(u32, RunError),
}

impl DecodeError {
    /// Whether a later try may succeed with the same event.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Registry(_))
    }
}

/// Reads payloads. Asks the registry once for each schema id.
pub struct Decoder {
    catalog: Arc<Catalog>,
    registry: SrSettings,
    shapes: RwLock<HashMap<u32, Arc<Shape>>>,
}

impl Decoder {
    /// A decoder for the registry at `url` (Confluent's API).
    ///
    /// # Errors
    /// When the URL can't be used.
    pub fn new(catalog: Arc<Catalog>, url: &str) -> Result<Self, DecodeError> {
        let mut settings = SrSettings::new_builder(url.to_owned());
        settings.set_timeout(Duration::from_secs(5));
        let registry = settings.build().map_err(|e| DecodeError::Registry(e.to_string()))?;
        Ok(Self { catalog, registry, shapes: RwLock::default() })
    }

    /// Reads an event's payload in the newest version of its type.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub async fn decode(&self, event: &Envelope, payload: &[u8]) -> Result<Value, DecodeError> {
        let [0, a, b, c, d, datum @ ..] = payload else { return Err(DecodeError::WireFormat) };
        let id = u32::from_be_bytes([*a, *b, *c, *d]);
        let known = self.shapes.read().ok().and_then(|shapes| shapes.get(&id).cloned());
        let shape = match known {
            Some(shape) => shape,
            None => self.fetch(id, event).await?,
        };
        let data = shape.read(datum).map_err(|error| DecodeError::Avro { id, error })?;
        let lifted = self.catalog.lift(&event.event_type, event.schema_version, data);
        lifted.map_err(|(version, error)| DecodeError::Upcast(version, error))
    }

    async fn fetch(&self, id: u32, event: &Envelope) -> Result<Arc<Shape>, DecodeError> {
        let unusable = |reason: String| DecodeError::Schema { id, reason };
        let registered = get_schema_by_id(id, &self.registry)
            .await
            .map_err(|e| if e.retriable { DecodeError::Registry(e.to_string()) } else { unusable(e.to_string()) })?;
        let writer = Schema::parse_str(&registered.schema).map_err(|e| unusable(e.to_string()))?;
        let name = writer.name().map(|name| name.name().to_owned()).unwrap_or_default();
        if name != *event.event_type {
            return Err(unusable(format!("it is of `{name}`, but the event's header says `{}`", event.event_type)));
        }
        let unknown = || DecodeError::Unknown(Arc::clone(&event.event_type), event.schema_version);
        let reader = self.catalog.reader(&event.event_type, event.schema_version).ok_or_else(unknown)?;
        let shape = Arc::new(Shape::resolve(&writer, reader).map_err(|e| unusable(e.to_string()))?);
        if let Ok(mut shapes) = self.shapes.write() {
            shapes.insert(id, Arc::clone(&shape));
        }
        Ok(shape)
    }
}
