//! Events to bytes: Avro by the schemas of the folder, in the Confluent wire format. Driven by the schema, so that an
//! event with a field too much, too few or of another type never enters the log.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use chrono::DateTime;
use schemas::SchemaFile;
use serde_json::Value as Json;

/// An event that doesn't fit its schema, or has none.
#[derive(Debug, thiserror::Error)]
#[error("event {event}: {reason}")]
pub struct EncodeError {
    event: String,
    reason: String,
}

/// An event, ready to be written.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) event_type: String,
    pub(super) schema_version: i32,
    pub(super) data: Json,
    pub(super) payload: Vec<u8>,
}

/// The schemas that events are written with: the newest minor of each major, with its id in the registry.
#[derive(Debug, Default)]
pub struct Codec {
    writers: HashMap<(String, u32), (u32, Schema)>,
}

impl Codec {
    /// From the folder's files and the registry's ids, as [`schemas::ids`] gives them.
    #[must_use]
    pub fn new(files: Vec<SchemaFile>, ids: &HashMap<(String, u32), u32>) -> Self {
        // Files come by rising version, so the newest minor of a major stays.
        let writers = files.into_iter().filter_map(|file| {
            let key = (file.event, file.major);
            let id = *ids.get(&key)?;
            Some((key, (id, file.schema)))
        });
        Self { writers: writers.collect() }
    }

    /// An event that can't stand where a command put it.
    pub(super) fn misplaced(aggregate: &str) -> EncodeError {
        EncodeError {
            event: aggregate.to_owned(),
            reason: "an event doesn't begin a stream, or begins it twice".to_owned(),
        }
    }

    /// Encodes an event. It serializes to `{"event": "<type>[.v<major>]", "data": {…}}`.
    pub(super) fn encode(&self, event: &impl serde::Serialize) -> Result<Encoded, EncodeError> {
        let fail = |event: &str, reason: String| EncodeError { event: event.to_owned(), reason };
        let mut tagged = serde_json::to_value(event).map_err(|e| fail("?", e.to_string()))?;
        let name = tagged["event"].as_str().unwrap_or_default().to_owned();
        let data = tagged["data"].take();
        let (event_type, version) = name.split_once(".v").unwrap_or((&name, "1"));
        let major: u32 = version.parse().map_err(|_| fail(&name, "no version".to_owned()))?;
        let writer = self.writers.get(&(event_type.to_owned(), major));
        let (id, schema) = writer.ok_or_else(|| fail(&name, "has no schema".to_owned()))?;
        let datum = to_avro(&data, schema).map_err(|reason| fail(&name, reason))?;
        let mut payload = vec![0];
        payload.extend(id.to_be_bytes());
        GenericDatumWriter::builder(schema)
            .build()
            .and_then(|writer| writer.write_value_ref(&mut payload, &datum))
            .map_err(|e| fail(&name, e.to_string()))?;
        let schema_version = i32::try_from(major).map_err(|e| fail(&name, e.to_string()))?;
        Ok(Encoded { event_type: event_type.to_owned(), schema_version, data, payload })
    }
}

fn to_avro(json: &Json, schema: &Schema) -> Result<Avro, String> {
    let wrong = || format!("{json} is no {:?}", apache_avro::schema::SchemaKind::from(schema));
    Ok(match schema {
        Schema::Record(record) => {
            let object = json.as_object().ok_or_else(wrong)?;
            if let Some(unknown) = object.keys().find(|key| !record.fields.iter().any(|field| field.name == **key)) {
                return Err(format!("`{unknown}` is not in the schema"));
            }
            let fields = record.fields.iter().map(|field| {
                let value = match object.get(&field.name).or(field.default.as_ref()) {
                    Some(value) => to_avro(value, &field.schema),
                    None => Err("is missing".to_owned()),
                };
                value.map(|value| (field.name.clone(), value)).map_err(|e| format!("`{}`: {e}", field.name))
            });
            Avro::Record(fields.collect::<Result<_, _>>()?)
        }
        Schema::Union(union) => {
            let mut branches = (0_u32..).zip(union.variants());
            let fitting = branches.find(|(_, branch)| matches!(branch, Schema::Null) == json.is_null());
            let (index, branch) = fitting.ok_or_else(wrong)?;
            Avro::Union(index, Box::new(to_avro(json, branch)?))
        }
        Schema::Array(array) => {
            let items = json.as_array().ok_or_else(wrong)?;
            Avro::Array(items.iter().map(|item| to_avro(item, &array.items)).collect::<Result<_, _>>()?)
        }
        Schema::Null if json.is_null() => Avro::Null,
        Schema::Boolean => Avro::Boolean(json.as_bool().ok_or_else(wrong)?),
        Schema::Int => Avro::Int(json.as_i64().and_then(|n| i32::try_from(n).ok()).ok_or_else(wrong)?),
        Schema::Long => Avro::Long(json.as_i64().ok_or_else(wrong)?),
        Schema::String => Avro::String(json.as_str().ok_or_else(wrong)?.to_owned()),
        Schema::Uuid(_) => Avro::Uuid(json.as_str().and_then(|text| text.parse().ok()).ok_or_else(wrong)?),
        Schema::TimestampMicros => {
            let time = json.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok()).ok_or_else(wrong)?;
            Avro::TimestampMicros(time.timestamp_micros())
        }
        _ => return Err(wrong()),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::path::Path;

    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::domain::customer::{self, CustomerEvent, Name};

    fn codec() -> Codec {
        let files = schemas::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")).unwrap();
        let ids = files.iter().map(|file| ((file.event.clone(), file.major), 258)).collect();
        Codec::new(files, &ids)
    }

    #[test]
    fn an_event_is_a_zero_the_id_and_the_datum() {
        let name = Name::Parts("Ada".to_owned(), "Lamport".to_owned());
        let event = customer::register(Uuid::nil(), name, "a@b".to_owned(), Some(1));
        let encoded = codec().encode(&event).unwrap();
        assert_eq!((encoded.event_type.as_str(), encoded.schema_version), ("CustomerRegistered", 2));
        assert_eq!(encoded.payload[..5], [0, 0, 0, 1, 2]);
        // a string is its length, zigzag, and its bytes; a union its branch first
        let datum = [&[72][..], Uuid::nil().to_string().as_bytes(), b"\x06Ada\x0eLamport\x06a@b\x02\x02"].concat();
        assert_eq!(encoded.payload[5..], datum);
    }

    /// With the outbox's rows (`tests/measure.rs`), what the way into Kafka costs a command.
    #[test]
    fn what_avro_costs_an_order_of_ten_lines() {
        let line = json!({"item_id": Uuid::nil(), "product_id": Uuid::nil(), "product_name": "Copper kettle", "image_url": null,
            "quantity": 2, "unit_price_cents": 1_250, "line_total_cents": 2_500});
        let address = json!({"street": "1 Main Street", "city": "Zurich", "zip": "8001", "country": "CH"});
        let at = "2026-05-23T10:00:00.123456Z";
        let data = json!({"order_id": Uuid::nil(), "customer_id": Uuid::nil(), "customer_name": "Ada Lamport",
            "customer_email": "ada@example.org", "items": vec![line; 10], "item_count": 10, "total_amount_cents": 25_000,
            "currency": "USD", "shipping_address": address, "estimated_delivery": at, "placed_at": at});
        let (codec, event) = (codec(), json!({"event": "OrderPlaced", "data": data}));
        let began = std::time::Instant::now();
        for _ in 0..200 {
            codec.encode(&event).unwrap();
        }
        let each = began.elapsed() / 200;
        println!("encoding an order of ten lines: {} µs", each.as_micros());
        assert!(each.as_millis() < 5, "{each:?}");
    }

    #[test]
    fn a_whole_name_is_written_as_version_1() {
        let event = customer::register(Uuid::nil(), Name::Whole("Ada".to_owned()), "a@b".to_owned(), None);
        let encoded = codec().encode(&event).unwrap();
        assert_eq!((encoded.event_type.as_str(), encoded.schema_version), ("CustomerRegistered", 1));
        assert_eq!(encoded.data["name"], "Ada");
    }

    #[test]
    fn what_the_schema_does_not_allow_is_named() {
        let codec = codec();
        let data = json!({"customer_id": Uuid::nil(), "email": "a@b", "previous_email": "c@d"});
        codec.encode(&json!({"event": "CustomerEmailChanged", "data": data})).unwrap();
        for (field, value) in
            [("email", json!(1)), ("email", Json::Null), ("customer_id", json!("x")), ("extra", json!(1))]
        {
            let mut data = data.clone();
            data[field] = value;
            let error = codec.encode(&json!({"event": "CustomerEmailChanged", "data": data})).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
        let error = codec.encode(&json!({"event": "CustomerEmailChanged.v9", "data": data})).unwrap_err();
        assert!(error.to_string().contains("no schema"), "{error}");
    }

    #[test]
    fn timestamps_keep_their_microseconds_and_integers_all_their_bits() {
        let at: crate::domain::Time = "2026-05-23T10:00:00.123456Z".parse().unwrap();
        let json = serde_json::to_value(at).unwrap();
        let micros = Avro::TimestampMicros(1_779_530_400_123_456);
        assert_eq!(to_avro(&json, &Schema::TimestampMicros).unwrap(), micros);
        assert_eq!(to_avro(&json!(i64::MAX), &Schema::Long).unwrap(), Avro::Long(i64::MAX));
        let event = CustomerEvent::Deactivated { customer_id: Uuid::nil(), reason: None, deactivated_at: at };
        codec().encode(&event).unwrap();
    }
}
