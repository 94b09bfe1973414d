//! A message as an event: apache-avro's value by the writer's schema, turned into serde_json.

use anyhow::{Context as _, Result, bail};
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use chrono::DateTime;
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::path::Path;

/// An event with what a write needs of its envelope.
pub(super) struct Event {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) order_id: String,
    pub(super) event_type: String,
    pub(super) sequence: i64,
    pub(super) occurred_at: String,
    pub(super) data: Json,
}

/// The writers' schemas, ready for reading, by their ids in the registry.
pub(super) struct Decoder {
    readers: HashMap<u32, GenericDatumReader<'static>>,
}

impl Decoder {
    pub(super) async fn new(folder: &Path, registry: &str) -> Result<Self> {
        let files = schemas::load(folder)?;
        let ids = schemas::ids(&files, registry).await?;
        let mut readers = HashMap::new();
        for file in files {
            let Some(id) = ids.get(&(file.event, file.major)) else { continue };
            // For as long as the program runs.
            let schema = Box::leak(Box::new(file.schema));
            readers.insert(*id, GenericDatumReader::builder(schema).build()?);
        }
        Ok(Self { readers })
    }

    pub(super) fn decode(&self, message: &BorrowedMessage<'_>) -> Result<Event> {
        let headers = message.headers().context("no headers")?;
        let header = |name: &str| {
            let found = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
            anyhow::Ok(std::str::from_utf8(found.with_context(|| format!("no header {name}"))?)?.to_owned())
        };
        let payload = message.payload().context("no payload")?;
        let [0, a, b, c, d, datum @ ..] = payload else { bail!("not the Confluent wire format") };
        let id = u32::from_be_bytes([*a, *b, *c, *d]);
        let reader = self.readers.get(&id).with_context(|| format!("schema {id} is unknown"))?;
        let mut rest = datum;
        let value = reader.read_value(&mut rest)?;
        Ok(Event {
            partition: message.partition(),
            offset: message.offset(),
            order_id: String::from_utf8(message.key().context("no key")?.to_vec())?,
            event_type: header("event_type")?,
            sequence: header("sequence")?.parse()?,
            occurred_at: header("occurred_at")?,
            data: Json::try_from(value_with_times(value))?,
        })
    }
}

/// Times as RFC 3339 texts, at the top of a record, where these events have them.
fn value_with_times(value: Avro) -> Avro {
    let Avro::Record(fields) = value else { return value };
    let fields = fields.into_iter().map(|(name, value)| match value {
        Avro::TimestampMicros(micros) => match DateTime::from_timestamp_micros(micros) {
            Some(at) => (name, Avro::String(at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))),
            None => (name, value),
        },
        value => (name, value),
    });
    Avro::Record(fields.collect())
}
