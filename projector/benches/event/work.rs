//! The work on one event, step by step, without a server: what `benches/event.rs` times and `tests/instructions.rs` counts.
//!
//! Visits of a library have five events each: one opens it with three lines, one adds a fourth, three move it on.

use projector::apply::{Batch, Delivery, Event, Finished, Lane, Outcome, Part, Partition, Stored, Write};
use projector::event::{Catalog, Envelope, Raw, Shape};
use projector::expr::Value;
use projector::projection::{Compiled, Source};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Events of one visit.
pub(crate) const EVENTS_EACH: usize = 5;
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/event");

/// What is known before the first event comes.
pub(crate) struct Known {
    pub(crate) compiled: Arc<Compiled>,
    shapes: HashMap<&'static str, Shape>,
}

impl Known {
    pub(crate) fn load() -> Self {
        let folder = Path::new(FOLDER);
        let catalog = Catalog::load(&folder.join("schemas")).unwrap();
        let text = std::fs::read_to_string(folder.join("visits.yaml")).unwrap();
        let source = Source { name: "visits.yaml".into(), text: text.into() };
        let compiled = Compiled::new(&source, &catalog).unwrap();
        let wants = compiled.wants();
        let shape = |name: &'static str| {
            let text = std::fs::read_to_string(folder.join(format!("schemas/visit/{name}.v1.avsc"))).unwrap();
            let shape = Shape::new(&apache_avro::Schema::parse_str(&text).unwrap()).unwrap();
            (name, shape.only(&wants[name]))
        };
        let shapes = ["Opened", "LineAdded", "Moved"].map(shape).into();
        Self { compiled: Arc::new(compiled), shapes }
    }

    /// Reads a payload.
    pub(crate) fn payload(&self, envelope: &Envelope, payload: &[u8]) -> Value {
        self.shapes[&*envelope.event_type].read(&payload[5..]).unwrap()
    }

    /// Reads a message.
    pub(crate) fn delivery(&self, offset: i64, raw: Raw) -> Delivery {
        let envelope = envelope(&raw);
        let data = self.payload(&envelope, raw.payload().unwrap());
        Delivery { offset, raw, event: Ok(Box::new(Event { envelope, data: Some(Ok(data)) })) }
    }

    /// Judges and sorts a batch.
    pub(crate) fn batch(&self, lane: Lane, deliveries: Vec<Delivery>) -> Batch {
        let partition = Partition { topic: "events.visit".into(), number: 0 };
        let part = Part { lane, deliveries, ..Part::default() };
        Batch::new(Arc::clone(&self.compiled), vec![(partition, part)])
    }
}

pub(crate) fn envelope(raw: &Raw) -> Envelope {
    Envelope::read(raw).unwrap()
}

/// Documents where a store's would be, moved to and fro, so that only our own work is looked at.
#[derive(Default)]
pub(crate) struct Shelf(HashMap<String, Stored>);

impl Shelf {
    pub(crate) fn load(&mut self, keys: &[String]) -> Vec<Option<Stored>> {
        keys.iter().map(|key| self.0.remove(key)).collect()
    }

    pub(crate) fn write(&mut self, writes: Vec<Write>) -> Vec<Outcome> {
        let outcomes = vec![Outcome::Written; writes.len()];
        for Write { key, version, fields, state, .. } in writes {
            self.0.insert(key, Stored { version, fields, state });
        }
        outcomes
    }

    /// Folds a batch to its end.
    pub(crate) fn fold(&mut self, mut batch: Batch) -> Finished {
        while !batch.is_done() {
            let loaded = self.load(&batch.keys());
            let writes = batch.fold(loaded);
            let outcomes = self.write(writes);
            batch.answered(outcomes);
        }
        batch.finish()
    }

    /// How many documents there are, and the sum of their versions.
    pub(crate) fn sum(&self) -> (usize, i64) {
        (self.0.len(), self.0.values().map(|stored| stored.version).sum())
    }
}

/// The messages of `visits` visits, all that are opened first, then all their second events, and so on.
pub(crate) fn messages(visits: usize) -> Vec<Raw> {
    (0..EVENTS_EACH).flat_map(|step| (0..visits).map(move |visit| message(step, visit, visits))).collect()
}

fn message(step: usize, visit: usize, visits: usize) -> Raw {
    let key = format!("0192f0c1-1111-7000-8000-{visit:012x}");
    let (event_type, datum) = match step {
        0 => ("Opened", opened(&key, visit)),
        1 => ("LineAdded", line_added(&key, visit)),
        _ => ("Moved", moved(&key, step)),
    };
    let txid = 1_000 + step * visits + visit;
    let headers = [
        ("id", format!("0192f0c1-2222-7000-8000-{txid:012x}")),
        ("event_type", event_type.to_owned()),
        ("schema_version", "1".to_owned()),
        ("aggregate_type", "visit".to_owned()),
        ("sequence", (step + 1).to_string()),
        ("epoch", "7428613423425323/1".to_owned()),
        ("txid", txid.to_string()),
        ("tx_min", txid.to_string()),
        ("occurred_at", "2026-05-23T10:00:00.123456Z".to_owned()),
        (
            "metadata",
            r#"{"user_id":"desk-7","correlation_id":"0192f0c1-3333-7000-8000-000000000001","causation_id":"0192f0c1-3333-7000-8000-000000000002"}"#
                .to_owned(),
        ),
    ];
    let payload = [&[0, 0, 0, 0, 1][..], &datum].concat();
    Raw::new(Some(key.as_bytes()), &headers, Some(&payload))
}

fn opened(key: &str, visit: usize) -> Vec<u8> {
    let mut datum = Vec::new();
    text(&mut datum, key);
    text(&mut datum, &format!("reader-{}", visit % 997));
    text(&mut datum, "Ada Lamport");
    long(&mut datum, 3);
    for number in 0..3 {
        line(&mut datum, visit, number);
    }
    long(&mut datum, 0);
    long(&mut datum, 3);
    long(&mut datum, 4_250);
    text(&mut datum, "EUR");
    long(&mut datum, 1_779_530_400_000_000);
    datum
}

fn line_added(key: &str, visit: usize) -> Vec<u8> {
    let mut datum = Vec::new();
    text(&mut datum, key);
    line(&mut datum, visit, 3);
    long(&mut datum, 4);
    long(&mut datum, 5_500);
    datum
}

fn moved(key: &str, step: usize) -> Vec<u8> {
    let mut datum = Vec::new();
    text(&mut datum, key);
    text(&mut datum, ["paid", "shelved", "closed"][step % 3]);
    long(&mut datum, 0);
    datum
}

fn line(datum: &mut Vec<u8>, visit: usize, number: usize) {
    text(datum, &format!("0192f0c1-4444-7000-8000-{:012x}", visit * 4 + number));
    text(datum, "The copper kettle, a history");
    long(datum, 1);
    text(datum, "https://covers.example.com/kettle.webp");
    long(datum, 2);
    long(datum, 1_250);
}

fn text(datum: &mut Vec<u8>, text: &str) {
    long(datum, i64::try_from(text.len()).unwrap());
    datum.extend(text.as_bytes());
}

/// Zigzag, seven bits a byte.
fn long(datum: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        datum.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    datum.push(rest.to_le_bytes()[0]);
}
