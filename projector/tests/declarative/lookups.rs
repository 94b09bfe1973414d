//! What is looked up: asked once a batch, waited for, and asked for no more once a document has its event.

use super::support::library;
use projector::apply::{
    Batch, Delivery, Event, Finished, Lane, Part, Partition, Question, Stored, TRIES, TRIES_TO_FIND,
};
use projector::event::{Catalog, Envelope, EventRef, Raw};
use projector::expr::{Object, Value};
use projector::projection::{Compiled, Source};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

fn compiled(missing: &str) -> Arc<Compiled> {
    let catalog = Catalog::load(Path::new(&library("schemas"))).unwrap();
    let text = format!(
        "name: loans\nstore: {{ redis: {{ prefix: 'loan:' }} }}\nlookup:\n  member: {{ read_model: members, fields: {{ level: string }}, \
         key: member_id, missing: {missing} }}\non:\n  Borrowed: .level = %member.level ?? \"none\"\n"
    );
    let text = if missing == "null" { text } else { text.replace(" ?? \"none\"", "") };
    Arc::new(Compiled::new(&Source { name: "loans.yaml".into(), text: text.into() }, &catalog).unwrap())
}

fn borrowed(sequence: i64, member: Value) -> Delivery {
    let txid = sequence.unsigned_abs();
    let reference =
        EventRef { epoch: "e".into(), txid, tx_min: txid, snapshot: None, aggregate_id: "l-1".into(), sequence };
    let envelope = Envelope {
        id: Uuid::from_u128(txid.into()),
        event_type: "Borrowed".into(),
        schema_version: 1,
        aggregate_type: "loan".into(),
        reference,
        occurred_at: chrono::DateTime::UNIX_EPOCH,
        metadata: None,
    };
    let data = Value::Object(Object::from([("member_id".into(), member)]));
    Delivery {
        offset: sequence - 1,
        raw: Raw::default(),
        event: Ok(Box::new(Event { envelope, data: Some(Ok(data)) })),
    }
}

fn partition() -> Partition {
    Partition { topic: "events.loan".into(), number: 0 }
}

/// Folds a batch whose document is stored like this and whose lookups find that; gives what was asked, and what it came to.
fn fold(
    compiled: &Arc<Compiled>,
    lane: Lane,
    deliveries: Vec<Delivery>,
    stored: Option<Stored>,
    finds: Option<&str>,
) -> (Vec<Question>, Option<Stored>, Finished) {
    let mut batch = Batch::new(Arc::clone(compiled), vec![(partition(), Part { lane, deliveries, ..Part::default() })]);
    let questions = batch.questions();
    if !questions.is_empty() {
        let found = |level: &str| Object::from([("level".into(), Value::from(level))]);
        let answer = |q: &Question| (q.clone(), q.keys.iter().map(|_| finds.map(found)).collect());
        batch.told(questions.iter().map(answer).collect());
    }
    let mut document = stored;
    while !batch.is_done() {
        let writes = batch.fold(batch.keys().iter().map(|_| document.clone()).collect());
        if let Some(write) = writes.first() {
            document = Some(write.stored());
        }
        batch.answered(writes.iter().map(|_| projector::apply::Outcome::Written).collect());
    }
    (questions, document, batch.finish())
}

fn level(document: Option<&Stored>) -> Option<String> {
    Some(document?.fields.as_ref()?.get("level")?.to_string_lossy().into_owned())
}

#[test]
fn a_batch_asks_for_each_key_once() {
    let member = || Value::from("m-1");
    let deliveries = vec![borrowed(1, member()), borrowed(2, member()), borrowed(3, Value::from("m-2"))];
    let (questions, document, finished) = fold(&compiled("wait"), Lane::default(), deliveries, None, Some("scholar"));
    assert_eq!(questions, [Question { lookup: 0, keys: vec!["m-1".into(), "m-2".into()] }]);
    assert_eq!((level(document.as_ref()).as_deref(), finished.stops.len()), (Some("scholar"), 0));
}

#[test]
fn null_is_found_where_nothing_is_and_the_file_says_so() {
    let one = vec![borrowed(1, Value::from("m-1"))];
    let (_, document, _) = fold(&compiled("null"), Lane::default(), one, None, None);
    assert_eq!(level(document.as_ref()).as_deref(), Some("none"));
}

#[test]
fn what_is_missing_is_waited_for_longer_than_poison() {
    for (missing, tries) in [("wait", TRIES_TO_FIND), ("dlq", TRIES)] {
        let compiled = compiled(missing);
        let (mut lane, mut parked) = (Lane::default(), 0);
        let mut tried = 0;
        while parked == 0 {
            tried += 1;
            let deliveries = vec![borrowed(1, Value::from("m-1"))];
            let (_, document, finished) = fold(&compiled, lane, deliveries, None, None);
            assert_eq!(document, None);
            parked = finished.parked.len();
            lane = finished.lanes.into_iter().next().unwrap().1;
        }
        assert_eq!(tried, tries, "{missing}");
    }
    // What comes in time ends the wait.
    let compiled = compiled("wait");
    let one = || vec![borrowed(1, Value::from("m-1"))];
    let (_, _, finished) = fold(&compiled, Lane::default(), one(), None, None);
    assert!(
        finished.stops[0].1.reason.contains("lookup `member`: nothing is found under `m-1`"),
        "{:?}",
        finished.stops
    );
    let lane = finished.lanes.into_iter().next().unwrap().1;
    let (_, document, finished) = fold(&compiled, lane, one(), None, Some("reader"));
    assert_eq!((level(document.as_ref()).as_deref(), finished.stops.len()), (Some("reader"), 0));
}

#[test]
fn an_event_that_its_document_has_needs_no_answer() {
    let compiled = compiled("dlq");
    let one = || vec![borrowed(1, Value::from("m-1"))];
    let (_, document, _) = fold(&compiled, Lane::default(), one(), None, Some("reader"));
    // Read again after a crash, when the member is gone.
    let (_, again, finished) = fold(&compiled, Lane::default(), one(), document.clone(), None);
    assert_eq!((again, finished.stops.len(), finished.parked.len()), (document, 0, 0));
}

#[test]
fn a_value_of_another_type_is_the_events_fault() {
    let mut batch = Batch::new(
        compiled("null"),
        vec![(partition(), Part { deliveries: vec![borrowed(1, Value::from("m-1"))], ..Part::default() })],
    );
    let found = Object::from([("level".into(), Value::Integer(3))]);
    let questions = batch.questions();
    batch.told(vec![(questions[0].clone(), vec![Some(found)])]);
    _ = batch.fold(vec![None]);
    let finished = batch.finish();
    assert!(finished.stops[0].1.reason.contains("`level` of `m-1` is 3"), "{:?}", finished.stops);
}
