//! The topic: made anew, filled as Debezium would fill it, and read as fast as the client library can.

use crate::data::{Change, Data, Line, Order};
use crate::oracle::{email, tracking_number};
use anyhow::{Context as _, Result, ensure};
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use chrono::{DateTime, SecondsFormat, Utc};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The one that the reference projections of orders read.
pub(crate) const TOPIC: &str = "events.order";

/// Encodes events by the schemas of the folder, with the registry's ids.
pub(crate) struct Encoder {
    writers: HashMap<String, (u32, GenericDatumWriter<'static>)>,
}

impl Encoder {
    /// Registers the schemas.
    pub(crate) async fn new(folder: &Path, registry: &str) -> Result<Self> {
        let files = schemas::load(folder)?;
        schemas::register(&files, registry).await?;
        let ids = schemas::ids(&files, registry).await?;
        let mut writers = HashMap::new();
        for file in files.into_iter().filter(|file| file.aggregate == "order") {
            let id = *ids.get(&(file.event.clone(), file.major)).context("a schema that isn't registered")?;
            // For as long as the program runs.
            let schema = Box::leak(Box::new(file.schema));
            writers.insert(file.event, (id, GenericDatumWriter::builder(schema).build()?));
        }
        Ok(Self { writers })
    }

    fn encode(&self, order: &Order, place: usize) -> Result<Vec<u8>> {
        let event_type = order.changes[place].event_type();
        let (id, writer) = self.writers.get(event_type).with_context(|| format!("{event_type} has no schema"))?;
        let mut payload = vec![0];
        payload.extend(id.to_be_bytes());
        writer.write_value_ref(&mut payload, &datum(order, place))?;
        Ok(payload)
    }
}

/// An event's data, in the order of its schema's fields.
fn datum(order: &Order, place: usize) -> Avro {
    let time = |at: DateTime<Utc>| Avro::TimestampMicros(at.timestamp_micros());
    let text = |text: &str| Avro::String(text.to_owned());
    let optional = |text: Option<&str>| match text {
        None => Avro::Union(0, Box::new(Avro::Null)),
        Some(text) => Avro::Union(1, Box::new(Avro::String(text.to_owned()))),
    };
    let (change, at, placed_at) = (order.changes[place], time(order.at(place)), time(order.at(0)));
    let (placed, moved) = (order.placed_cents(), order.moved.total_cents());
    let (lines, cents) = match order.changes[1] {
        Change::Removed => (order.placed.len() - 1, placed - moved),
        _ => (order.placed.len() + 1, placed + moved),
    };
    let count = |lines: usize| Avro::Int(i32::try_from(lines).unwrap_or(i32::MAX));
    let mut fields = vec![("order_id", Avro::Uuid(order.id))];
    let payment = ("payment_id", Avro::Uuid(Uuid::from_u64_pair(order.id.as_u64_pair().0, place as u64)));
    let currency = ("currency", text(order.currency));
    fields.extend(match change {
        Change::Placed => vec![
            ("customer_id", Avro::Uuid(order.customer_id)),
            ("customer_name", text(&order.customer_name)),
            ("customer_email", text(&email(order))),
            ("items", Avro::Array(order.placed.iter().map(line).collect())),
            ("item_count", count(order.placed.len())),
            ("total_amount_cents", Avro::Long(placed)),
            currency,
            (
                "shipping_address",
                record(vec![
                    ("street", optional(None)),
                    ("city", text(order.city)),
                    ("zip", text("8001")),
                    ("country", optional(Some("CH"))),
                ]),
            ),
            ("estimated_delivery", time(order.at(0) + chrono::TimeDelta::days(5))),
            ("placed_at", placed_at),
        ],
        Change::Added => vec![
            ("item", line(&order.moved)),
            ("item_count", count(lines)),
            ("total_amount_cents", Avro::Long(cents)),
            currency,
            ("placed_at", placed_at),
        ],
        Change::Removed => vec![
            ("item_id", Avro::Uuid(order.moved.item_id)),
            ("product_id", Avro::Uuid(order.moved.product_id)),
            ("line_total_cents", Avro::Long(moved)),
            ("item_count", count(lines)),
            ("total_amount_cents", Avro::Long(cents)),
            currency,
            ("placed_at", placed_at),
        ],
        Change::Paid => vec![
            payment,
            ("amount_cents", Avro::Long(cents)),
            currency,
            ("paid_cents", Avro::Long(cents)),
            ("order_status", text("confirmed")),
            ("processed_at", at),
        ],
        Change::Shipped => vec![("tracking_number", text(&tracking_number(order))), ("shipped_at", at)],
        Change::Delivered => vec![("delivered_at", at)],
        Change::Cancelled => vec![
            ("reason", text("changed my mind")),
            ("placed_at", placed_at),
            ("total_amount_cents", Avro::Long(cents)),
            ("revenue_reversed_cents", Avro::Long(cents)),
            currency,
            ("cancelled_at", at),
        ],
        Change::Refunded => vec![
            payment,
            ("amount_cents", Avro::Long(cents)),
            currency,
            ("revenue_reversed_cents", Avro::Long(0)),
            ("order_status", text("cancelled")),
            ("placed_at", placed_at),
            ("processed_at", at),
        ],
    });
    record(fields)
}

fn line(line: &Line) -> Avro {
    record(vec![
        ("item_id", Avro::Uuid(line.item_id)),
        ("product_id", Avro::Uuid(line.product_id)),
        ("product_name", Avro::String(line.product_name.clone())),
        ("image_url", Avro::Union(0, Box::new(Avro::Null))),
        ("quantity", Avro::Int(line.quantity)),
        ("unit_price_cents", Avro::Long(line.unit_price_cents)),
        ("line_total_cents", Avro::Long(line.total_cents())),
    ])
}

fn record(fields: Vec<(&str, Avro)>) -> Avro {
    Avro::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Makes the topic anew, with the settings that a host asks for.
pub(crate) async fn make(brokers: &str, partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    _ = admin.delete_topics(&[TOPIC], &options).await?;
    let until = Instant::now() + Duration::from_secs(30);
    let new = NewTopic::new(TOPIC, partitions, TopicReplication::Fixed(1))
        .set("cleanup.policy", "delete")
        .set("message.timestamp.type", "CreateTime")
        .set("unclean.leader.election.enable", "false");
    while let Err((name, code)) = admin.create_topics([&new], &options).await?.remove(0) {
        ensure!(Instant::now() < until, "{name}: {code}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // Until the broker leads all of it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

/// Sends these events: an order's number, and which of its events. Blocks.
pub(crate) fn fill(
    brokers: &str,
    data: Data,
    events: impl Iterator<Item = (usize, usize)>,
    encoder: &Encoder,
) -> Result<()> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("batch.size", "131072")
        .set("queue.buffering.max.messages", "200000")
        .create()?;
    for (index, (number, place)) in events.enumerate() {
        let order = data.order(number);
        let payload = encoder.encode(&order, place)?;
        let (key, txid) = (order.id.to_string(), 1_000 + index);
        let event_id = Uuid::from_u64_pair(order.id.as_u64_pair().0 ^ place as u64, txid as u64).to_string();
        let (txid_text, sequence) = (txid.to_string(), (place + 1).to_string());
        // Some commands are always under way beside it.
        let tx_min = (txid - index % 4).max(1_000).to_string();
        let occurred_at = order.at(place).to_rfc3339_opts(SecondsFormat::Micros, true);
        let metadata = format!(
            r#"{{"user_id": "{}", "causation_id": "{event_id}", "correlation_id": "{event_id}"}}"#,
            order.customer_id
        );
        let headers = [
            ("id", event_id.as_str()),
            ("event_type", order.changes[place].event_type()),
            ("schema_version", "1"),
            ("aggregate_type", "order"),
            ("sequence", &sequence),
            ("epoch", "7300000000000000001/1"),
            ("txid", &txid_text),
            ("tx_min", &tx_min),
            ("occurred_at", &occurred_at),
            ("metadata", &metadata),
        ];
        let headers = headers.into_iter().fold(OwnedHeaders::new_with_capacity(10), |all, (key, value)| {
            all.insert(Header { key, value: Some(value) })
        });
        let mut record = BaseRecord::to(TOPIC).key(&key).payload(&payload).headers(headers);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(())
}

/// Limit (a): reads all messages of the topic and drops them; gives the time from the first one to the last. Blocks.
pub(crate) fn read_and_drop(brokers: &str, partitions: i32, events: usize) -> Result<(Duration, u64)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "limit")
        .set("enable.auto.commit", "false")
        .set("queued.min.messages", "1000000")
        .set("queued.max.messages.kbytes", "262144")
        .set("fetch.max.bytes", "67108864")
        .set("max.partition.fetch.bytes", "16777216")
        .set("fetch.queue.backoff.ms", "10")
        .create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(TOPIC, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let (mut began, mut read, mut bytes) = (None, 0, 0);
    while read < events {
        let message = consumer.poll(Duration::from_secs(20)).context("the topic is shorter than it should be")??;
        began.get_or_insert_with(Instant::now);
        bytes += message.payload_len() as u64;
        read += 1;
    }
    Ok((began.context("nothing was read")?.elapsed(), bytes))
}
