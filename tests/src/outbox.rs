//! Events of a domain that the write side knows nothing of, sent as the connector sends them: Avro of a schema in the registry,
//! all else as headers, key = aggregate id.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, Result};
use apache_avro::{Schema, types, writer::datum::GenericDatumWriter};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord},
};
use serde_json::Value;
use uuid::Uuid;

use crate::var;

/// Messages on their way at a time; the client library has room for ten times as many.
const QUEUED_MAX: usize = 10_000;

/// Sends events; each is a transaction of its own.
pub struct Outbox {
    producer: FutureProducer,
    schemas: HashMap<(String, u32), Known>,
    sequences: HashMap<String, i64>,
    txid: u64,
    queued: Vec<DeliveryFuture>,
}

struct Known {
    aggregate: String,
    schema: Schema,
    id: u32,
}

impl Outbox {
    /// Brings a folder of schemas to the registry.
    ///
    /// # Errors
    /// When the registry refuses one.
    pub async fn open(folder: &Path) -> Result<Self> {
        let files = schemas::load(folder)?;
        let registered = schemas::register(&files, &var("SCHEMA_REGISTRY_URL")?).await?;
        let known = files.into_iter().map(|file| {
            let subject = file.subject();
            let id = registered.iter().find(|schema| schema.subject == subject).context("not registered")?.id;
            Ok(((file.event, file.major), Known { aggregate: file.aggregate, schema: file.schema, id }))
        });
        let producer = ClientConfig::new()
            .set("bootstrap.servers", var("KAFKA_BROKERS")?)
            .set("partitioner", "murmur2_random")
            .set("enable.idempotence", "true")
            .create()?;
        Ok(Self {
            producer,
            schemas: known.collect::<Result<_>>()?,
            sequences: HashMap::new(),
            txid: 1_000,
            queued: Vec::new(),
        })
    }

    /// Sends one event, in the Avro of a major version of its schema.
    ///
    /// # Errors
    /// When its data don't fit the schema, or Kafka refuses it.
    pub async fn send(&mut self, event: &str, version: u32, aggregate_id: &str, data: Value) -> Result<()> {
        self.queue(event, version, aggregate_id, data, "{}").await?;
        self.flush().await
    }

    /// Waits until all that was queued is in Kafka.
    ///
    /// # Errors
    /// When Kafka refuses one.
    pub async fn flush(&mut self) -> Result<()> {
        for delivered in self.queued.drain(..) {
            delivered.await?.map_err(|(error, _)| error)?;
        }
        Ok(())
    }

    /// Sends one event without waiting until it is in Kafka; with its command's metadata.
    ///
    /// # Errors
    /// As [`Outbox::send`], also of one that was queued before.
    pub async fn queue(
        &mut self,
        event: &str,
        version: u32,
        aggregate_id: &str,
        data: Value,
        metadata: &str,
    ) -> Result<()> {
        if self.queued.len() >= QUEUED_MAX {
            self.flush().await?;
        }
        let known = self.schemas.get(&(event.to_owned(), version)).with_context(|| format!("no schema of {event}"))?;
        let value = avro(data).resolve(&known.schema).with_context(|| event.to_owned())?;
        let mut payload = [&[0], &known.id.to_be_bytes()[..]].concat();
        payload.extend(GenericDatumWriter::builder(&known.schema).build()?.write_value_to_vec(value)?);
        let sequence = self.sequences.entry(format!("{} {aggregate_id}", known.aggregate)).or_default();
        *sequence += 1;
        self.txid += 1;
        let texts = [
            ("id", Uuid::new_v4().to_string()),
            ("event_type", event.to_owned()),
            ("schema_version", version.to_string()),
            ("aggregate_type", known.aggregate.clone()),
            ("sequence", sequence.to_string()),
            ("epoch", "library".to_owned()),
            ("txid", self.txid.to_string()),
            ("tx_min", self.txid.to_string()),
            ("occurred_at", "2026-03-29T12:00:00.000000Z".to_owned()),
            ("metadata", metadata.to_owned()),
        ];
        let headers = texts.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_str()) })
        });
        let topic = format!("events.{}", known.aggregate);
        let record = FutureRecord::to(&topic).key(aggregate_id).payload(&payload).headers(headers);
        let queued = self.producer.send_result(record).map_err(|(error, _)| error)?;
        self.queued.push(queued);
        Ok(())
    }
}

/// JSON as Avro would have it; the schema says the rest.
fn avro(value: Value) -> types::Value {
    match value {
        Value::Null => types::Value::Null,
        Value::Bool(truth) => types::Value::Boolean(truth),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => i32::try_from(whole).map_or(types::Value::Long(whole), types::Value::Int),
            None => types::Value::Double(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => types::Value::String(text),
        Value::Array(items) => types::Value::Array(items.into_iter().map(avro).collect()),
        Value::Object(fields) => {
            types::Value::Record(fields.into_iter().map(|(name, value)| (name, avro(value))).collect())
        }
    }
}
