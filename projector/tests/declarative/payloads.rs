//! The forms in which a connector may send payloads: all make the same documents. `tests/recorded` holds what a real Debezium
//! sent of a table whose payload is jsonb, with and without `table.expand.json.payload`, as JSON and in Avro
//! (`tests/recorded/README.md` says how).

use super::registry::registry;
use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use projector::apply::{Batch, Delivery, Event, Part, Partition};
use projector::event::{Catalog, Decoder, Envelope, Raw};
use projector::expr::json;
use projector::projection::{Compiled, Source};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::sync::Arc;

const LIBRARY: &str = "../tests/library";

fn catalog() -> Arc<Catalog> {
    Arc::new(Catalog::load(&Path::new(LIBRARY).join("schemas")).unwrap())
}

/// A registry with the recorded schemas under their ids, and under all others this one.
fn registry_of(own: &Json) -> String {
    let text = std::fs::read_to_string("tests/recorded/schemas.json").unwrap();
    let recorded: std::collections::BTreeMap<usize, Json> = serde_json::from_str(&text).unwrap();
    let last = *recorded.keys().last().unwrap();
    let schemas: Vec<_> = (1..=last).map(|id| ("", recorded.get(&id).unwrap_or(own).clone())).collect();
    registry(&schemas)
}

fn in_registry(id: u32, schema: &Json, value: Avro) -> Vec<u8> {
    let schema = Schema::parse(schema).unwrap();
    let value = value.resolve(&schema).unwrap();
    let datum = GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap();
    [&[0], &id.to_be_bytes()[..], &datum].concat()
}

fn byte(two: &[u8]) -> u8 {
    u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()
}

/// The recorded messages of an event type, each with the form that it has.
fn recorded(event: &str) -> Vec<(String, Raw)> {
    let text = std::fs::read_to_string("tests/recorded/messages.json").unwrap();
    let all: Vec<Json> = serde_json::from_str(&text).unwrap();
    let raw = |message: &Json| {
        let bytes = |value: &Json| value.as_str().unwrap().as_bytes().to_vec();
        let headers: Vec<_> =
            message["headers"].as_object().unwrap().iter().map(|(name, value)| (name, bytes(value))).collect();
        let payload = match message["value_hex"].as_str() {
            Some(hex) => hex.as_bytes().chunks(2).map(byte).collect(),
            None => bytes(&message["value"]),
        };
        Raw::new(Some(&bytes(&message["key"])), &headers, Some(&payload))
    };
    let of = all.iter().filter(|message| message["headers"]["event_type"] == event);
    of.map(|message| (message["form"].as_str().unwrap().to_owned(), raw(message))).collect()
}

async fn document(compiled: &Arc<Compiled>, decoder: &Decoder, raw: &Raw) -> Json {
    let envelope = Envelope::read(raw).unwrap();
    let data = decoder.decode(&envelope, raw.payload().unwrap()).await.map_err(|e| e.to_string());
    let delivery = Delivery { offset: 0, raw: raw.clone(), event: Ok(Box::new(Event { envelope, data: Some(data) })) };
    let partition = Partition { topic: "events.book".into(), number: 0 };
    let part = Part { deliveries: vec![delivery], ..Part::default() };
    let mut batch = Batch::new(Arc::clone(compiled), vec![(partition, part)]);
    let writes = batch.fold(vec![None]);
    let fields = writes.first().and_then(|write| write.fields.as_ref());
    fields.map_or(Json::Null, |fields| Json::Object(json::object_to_json(fields)))
}

#[tokio::test]
async fn one_projection_takes_all_forms() {
    let catalog = catalog();
    let name = format!("{LIBRARY}/projections/shelf.yaml");
    let source = Source { text: std::fs::read_to_string(&name).unwrap().into(), name: name.into() };
    let compiled = Arc::new(Compiled::new(&source, &catalog).unwrap());
    let own: Json =
        serde_json::from_str(&std::fs::read_to_string(format!("{LIBRARY}/schemas/book/BookAcquired.v1.avsc")).unwrap())
            .unwrap();
    let url = registry_of(&own);
    let decoder = Decoder::new(Arc::clone(&catalog), &url).unwrap();

    let mut forms = recorded("BookAcquired");
    assert_eq!(
        forms.iter().map(|(form, _)| form.as_str()).collect::<Vec<_>>(),
        ["text", "expanded", "text in Avro", "expanded in Avro"]
    );
    let template = forms[0].1.clone();
    let with = |payload: Vec<u8>| {
        let headers: Vec<_> = template.headers().collect();
        Raw::new(template.key(), &headers, Some(&payload))
    };
    let text = |s: &str| Avro::String(s.into());
    let record = Avro::Record(vec![
        ("genre".into(), text("novel")),
        ("pages".into(), Avro::Int(474)),
        ("title".into(), text("Emma")),
        ("authors".into(), Avro::Array(vec![text("Jane Austen")])),
        ("book_id".into(), text("b-1")),
    ]);
    forms.push(("the command side's own Avro".into(), with(in_registry(1, &own, record.clone()))));
    for (form, raw) in forms {
        let expected = json!({"title": "Emma", "authors": ["Jane Austen"], "genre": "novel", "pages": 474});
        assert_eq!(document(&compiled, &decoder, &raw).await, expected, "{form}");
    }
    // What the schema doesn't allow is the event's fault, in each form.
    for bad in ["{\"book_id\": \"b-1\", \"title\": 3}", "\"{\"", "not JSON", "[]"] {
        let envelope = Envelope::read(&template).unwrap();
        assert!(!decoder.decode(&envelope, bad.as_bytes()).await.unwrap_err().is_transient(), "{bad}");
    }
}

#[tokio::test]
async fn times_null_and_defaults_are_what_the_schema_says() {
    let decoder = Decoder::new(catalog(), &registry_of(&Json::Null)).unwrap();
    let loans = recorded("LoanOpened");
    assert_eq!(loans.len(), 4);
    for (form, raw) in loans {
        let envelope = Envelope::read(&raw).unwrap();
        let data = decoder.decode(&envelope, raw.payload().unwrap()).await.unwrap();
        let expected = json!({
            "loan_id": "l-1", "member_id": "m-1", "book_id": "b-1", "branch_id": null,
            "opened_at": "2026-03-28T23:30:00.000000Z", "due": "2026-04-17T00:00:00.000000Z",
        });
        assert_eq!(json::to_json(&data), expected, "{form}");
    }
}
