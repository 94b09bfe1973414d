//! Payloads, in whichever form the connector was told to send them:
//!
//! - the command side's own Avro in the Confluent wire format (a zero, the schema's id in the registry, big endian, the datum): what
//!   connectors/outbox.json does, and the only form that no converter has touched;
//! - for outboxes that keep JSON: that JSON as text in an Avro string or a JSON string (`table.expand.json.payload=false`), or
//!   expanded into an Avro record of Connect's making or plain JSON (`true`). It is read as the newest minor of the event's
//!   schema in the folder; what it leaves out has the schema's default.

use super::{AvroError, Catalog, Envelope, Shape};
use crate::expr::{RunError, Value, Wanted, json};
use apache_avro::Schema;
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id};
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Why an event's payload couldn't be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The registry is down or slow. Try again; not the event's fault.
    #[error("the schema registry is not available: {0}")]
    Registry(String),
    /// The payload is in none of the forms.
    #[error("the payload is neither JSON nor does it begin with a zero byte and a schema id")]
    WireFormat,
    /// JSON that isn't what the event's schema says.
    #[error("the payload's JSON: {0}")]
    Json(String),
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

/// What a schema id stands for.
enum Form {
    /// The event itself.
    Event(Shape),
    /// Something that Connect made of JSON.
    Connects(Shape),
}

/// Whether a schema was made by one of Connect's converters: of a text, or of JSON that the connector has expanded. They leave
/// Connect's own name for it in the schema (`payload`, from Debezium), or call the record `ConnectDefault` where it has none.
fn is_connects(writer: &Schema, text: &str) -> bool {
    let is_named = |json: Json| json.get("connect.name").is_some();
    let name = writer.name().map(|name| name.name());
    matches!(writer, Schema::String) || name == Some("ConnectDefault") || serde_json::from_str(text).is_ok_and(is_named)
}

/// Reads payloads. Asks the registry once for each schema id.
pub struct Decoder {
    catalog: Arc<Catalog>,
    registry: SrSettings,
    wanted: BTreeMap<Arc<str>, Wanted>,
    forms: RwLock<HashMap<u32, Form>>,
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
        Ok(Self { catalog, registry, wanted: BTreeMap::new(), forms: RwLock::default() })
    }

    /// Another decoder, for a reader who wants only that much of these events' data. More may come all the same: old versions are
    /// lifted as a whole, and JSON is read as it comes.
    #[must_use]
    pub fn only(&self, wanted: BTreeMap<Arc<str>, Wanted>) -> Self {
        let (catalog, registry) = (Arc::clone(&self.catalog), self.registry.clone());
        Self { catalog, registry, wanted, forms: RwLock::default() }
    }

    /// Reads an event's payload in the newest version of its type.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub async fn decode(&self, event: &Envelope, payload: &[u8]) -> Result<Value, DecodeError> {
        if let Some(decoded) = self.decode_known(event, payload) {
            return decoded;
        }
        if let Some((id, _)) = schema_id(payload) {
            self.fetch(id, event).await?;
        }
        self.decode_known(event, payload).unwrap_or(Err(DecodeError::WireFormat))
    }

    /// [`Decoder::decode`], as long as the registry hasn't to be asked for the payload's schema: then none.
    #[must_use]
    pub fn decode_known(&self, event: &Envelope, payload: &[u8]) -> Option<Result<Value, DecodeError>> {
        let data = match schema_id(payload) {
            Some((id, datum)) => {
                let forms = self.forms.read().unwrap_or_else(PoisonError::into_inner);
                let avro = |error| DecodeError::Avro { id, error };
                match forms.get(&id)? {
                    Form::Event(shape) => shape.read(datum).map_err(avro),
                    Form::Connects(shape) => {
                        shape.read(datum).map_err(avro).and_then(|value| self.of_json(event, json::to_json(&value)))
                    }
                }
            }
            None => serde_json::from_slice(payload)
                .map_err(|_| DecodeError::WireFormat)
                .and_then(|json| self.of_json(event, json)),
        };
        Some(data.and_then(|data| {
            let lifted = self.catalog.lift(&event.event_type, event.schema_version, data);
            lifted.map_err(|(version, error)| DecodeError::Upcast(version, error))
        }))
    }

    /// An event's data from JSON, or from a text that holds JSON.
    fn of_json(&self, event: &Envelope, json: Json) -> Result<Value, DecodeError> {
        let mut json = match json {
            Json::String(text) => serde_json::from_str(&text).map_err(|e| DecodeError::Json(e.to_string()))?,
            json => json,
        };
        let reader = self.reader(event)?;
        fill_in(&mut json, reader);
        let shape = Shape::new(reader).map_err(|e| DecodeError::Json(e.to_string()))?;
        shape.read_json(&json).map_err(|found| {
            let found = found.iter().map(|m| format!("{}: {}; {}", m.path.join("."), m.reason, m.help));
            DecodeError::Json(found.collect::<Vec<_>>().join("; "))
        })
    }

    fn reader(&self, event: &Envelope) -> Result<&Schema, DecodeError> {
        let unknown = || DecodeError::Unknown(Arc::clone(&event.event_type), event.schema_version);
        self.catalog.reader(&event.event_type, event.schema_version).ok_or_else(unknown)
    }

    async fn fetch(&self, id: u32, event: &Envelope) -> Result<(), DecodeError> {
        let unusable = |reason: String| DecodeError::Schema { id, reason };
        let registered = get_schema_by_id(id, &self.registry)
            .await
            .map_err(|e| if e.retriable { DecodeError::Registry(e.to_string()) } else { unusable(e.to_string()) })?;
        let writer = Schema::parse_str(&registered.schema).map_err(|e| unusable(e.to_string()))?;
        let name = writer.name().map(|name| name.name().to_owned()).unwrap_or_default();
        let form = if name == *event.event_type {
            let shape = Shape::resolve(&writer, self.reader(event)?).map_err(|e| unusable(e.to_string()))?;
            let is_lifted = self.catalog.upcaster(&event.event_type, event.schema_version).is_some();
            Form::Event(match self.wanted.get(&event.event_type) {
                Some(wanted) if !is_lifted => shape.only(wanted),
                _ => shape,
            })
        } else if is_connects(&writer, &registered.schema) {
            Form::Connects(Shape::new(&writer).map_err(|e| unusable(e.to_string()))?)
        } else {
            return Err(unusable(format!("it is of `{name}`, but the event's header says `{}`", event.event_type)));
        };
        self.forms.write().unwrap_or_else(PoisonError::into_inner).insert(id, form);
        Ok(())
    }
}

/// The schema's id and the datum of a payload in the registry's wire format.
fn schema_id(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (head, datum) = payload.split_first_chunk::<5>()?;
    let [0, id @ ..] = *head else { return None };
    Some((u32::from_be_bytes(id), datum))
}

/// Gives what JSON leaves out its default.
fn fill_in(json: &mut Json, schema: &Schema) {
    match (schema, json) {
        (Schema::Record(record), Json::Object(fields)) => {
            for field in &record.fields {
                match (fields.get_mut(&field.name), &field.default) {
                    (Some(value), _) => fill_in(value, &field.schema),
                    (None, Some(default)) => _ = fields.insert(field.name.clone(), default.clone()),
                    (None, None) => {}
                }
            }
        }
        (Schema::Array(array), Json::Array(items)) => items.iter_mut().for_each(|item| fill_in(item, &array.items)),
        (Schema::Union(union), json) => union.variants().iter().for_each(|variant| fill_in(json, variant)),
        _ => {}
    }
}
