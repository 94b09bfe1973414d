//! A test's given events, typed against their schemas: every mistake with its place in the file.

use crate::apply::Event;
use crate::event::{Catalog, Envelope, EventRef, Mismatch, Node, Sample, Shape};
use crate::expr::{Object, Value, json};
use crate::projection::{Compiled, Diagnosis, Finding, Source, TestCase};
use chrono::{DateTime, TimeDelta};
use serde_json::Value as Json;
use serde_saphyr::{Location, Spanned};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use uuid::Uuid;

/// When the first given event happened, but for a second: 2026-01-01, from 1970 on.
const BEGIN: TimeDelta = TimeDelta::days(20_454);
/// What stands beside an event's type.
const BESIDES: [&str; 6] = ["of", "at", "version", "sequence", "aggregate", "unreadable"];

/// What a test begins with.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// The events that are delivered, in order, one that comes again as often as it does.
    pub(crate) events: Vec<Event>,
    /// What each lookup finds, by key.
    pub(crate) looked_up: Vec<BTreeMap<String, Object>>,
}

/// What `check` says of a file's tests: what their given events have that no schema has.
pub(crate) fn findings(source: &Source, compiled: &Compiled, catalog: &Catalog) -> Vec<Finding> {
    let wrong = |case| read(source, compiled, catalog, case).err().unwrap_or_default();
    compiled.projection.tests.iter().flat_map(wrong).map(|finding| finding.of(Diagnosis::Given)).collect()
}

/// Reads what a test begins with.
pub(crate) fn read(
    source: &Source,
    compiled: &Compiled,
    catalog: &Catalog,
    case: &TestCase,
) -> Result<Given, Vec<Finding>> {
    let mut reader = Reader { source, compiled, catalog, events: Vec::new(), sequences: HashMap::new() };
    let (mut delivered, mut findings) = (Vec::new(), Vec::new());
    for given in &case.given {
        match reader.event(given) {
            Ok(event) => delivered.push(event),
            Err(found) => {
                findings.extend(found);
                reader.events.push(None);
            }
        }
    }
    let looked_up = looked_up(source, compiled, case).unwrap_or_else(|found| {
        findings.extend(found);
        Vec::new()
    });
    if findings.is_empty() { Ok(Given { events: delivered, looked_up }) } else { Err(findings) }
}

/// What a test's lookups find.
fn looked_up(
    source: &Source,
    compiled: &Compiled,
    case: &TestCase,
) -> Result<Vec<BTreeMap<String, Object>>, Vec<Finding>> {
    let mut findings = Vec::new();
    for (name, given) in case.lookup.iter().filter(|(name, _)| !compiled.lookups.iter().any(|l| *l.name == **name)) {
        let message = format!("no lookup is named `{name}`");
        let names = compiled.lookups.iter().map(|l| l.name.to_string()).collect::<Vec<_>>().join(", ");
        findings.push(Finding::at(source, given.defined, message, format!("there are {names}")));
    }
    let mut all = Vec::new();
    for lookup in &compiled.lookups {
        let mut found = BTreeMap::new();
        let Some(given) = case.lookup.get(&*lookup.name) else {
            all.push(found);
            continue;
        };
        for (key, fields) in &given.value {
            let Json::Object(fields) = fields else {
                let message = format!("what lookup `{}` finds under `{key}` is no object", lookup.name);
                findings.push(Finding::at(
                    source,
                    given.defined,
                    message,
                    "write `{ field: value }`; leave out what isn't found",
                ));
                continue;
            };
            let fields = json::object_from_json(fields.clone(), &lookup.kind());
            match lookup.read(key, &fields) {
                Ok(_) => _ = found.insert(key.clone(), fields),
                Err(reason) => {
                    findings.push(Finding::at(source, given.defined, reason, "give it the type under `fields`"))
                }
            }
        }
        all.push(found);
    }
    if findings.is_empty() { Ok(all) } else { Err(findings) }
}

struct Reader<'a> {
    source: &'a Source,
    compiled: &'a Compiled,
    catalog: &'a Catalog,
    /// By their number in `given`; none for one that is wrong.
    events: Vec<Option<Event>>,
    /// The last sequence of each aggregate.
    sequences: HashMap<(String, String), i64>,
}

impl Reader<'_> {
    fn event(&mut self, given: &Spanned<Node>) -> Result<Event, Vec<Finding>> {
        let one = |at, message: String, help: &str| Err(vec![Finding::at(self.source, at, message, help)]);
        let Node::Map(entries) = &given.value else {
            return one(given.defined, "a given event is a map".to_owned(), "write `EventType: { field: value }`");
        };
        if let Some((name, value)) = entries.iter().find(|(name, _)| name.value == "again") {
            let number = value.value.to_json().as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            let event = number.checked_sub(1).and_then(|n| self.events.get(n)).cloned();
            return match event {
                Some(event) if entries.len() == 1 => {
                    self.events.push(event.clone());
                    // One that is wrong was found before.
                    event.ok_or_else(Vec::new)
                }
                Some(_) => one(
                    name.defined,
                    "`again` stands alone".to_owned(),
                    "nothing about an event changes when it comes again",
                ),
                None => {
                    let message = format!("`again` is {}", value.value.to_json());
                    one(value.defined, message, "name an event that was given before this one, by its number from 1")
                }
            };
        }
        let mut types = entries.iter().filter(|(name, _)| !BESIDES.contains(&name.value.as_str()));
        let (Some((name, data)), None) = (types.next(), types.next()) else {
            let message = "a given event has one type".to_owned();
            let help = format!(
                "write `EventType: {{ field: value }}`, and beside it only {}, or `again` alone",
                BESIDES.join(", ")
            );
            return Err(vec![Finding::at(self.source, given.defined, message, help)]);
        };
        let event = self.typed(&given.value, name, data)?;
        self.events.push(Some(event.clone()));
        Ok(event)
    }

    fn typed(&mut self, given: &Node, name: &Spanned<String>, data: &Spanned<Node>) -> Result<Event, Vec<Finding>> {
        let one = |at: Location, message: String, help: String| vec![Finding::at(self.source, at, message, help)];
        let Some(known) = self.catalog.event(&name.value) else {
            let names = self.catalog.names().collect::<Vec<_>>().join(", ");
            return Err(one(
                name.defined,
                format!("no schema has the event `{}`", name.value),
                format!("there are {names}"),
            ));
        };
        let beside = |field: &str| given.to_json().get(field).cloned();
        let place = |field: &str| given.place(&[field.to_owned()], name.defined);
        let wrong =
            |field: &str, found: &Json, help: &str| one(place(field), format!("`{field}` is {found}"), help.to_owned());
        let version = match beside("version") {
            None => known.version,
            Some(found) => {
                let version = found.as_u64().and_then(|n| u32::try_from(n).ok());
                let version = version.filter(|v| self.catalog.reader(&name.value, *v).is_some());
                version.ok_or_else(|| {
                    wrong("version", &found, "the folder of schemas doesn't have that version of the event")
                })?
            }
        };
        let number = i64::try_from(self.events.len()).unwrap_or(i64::MAX) + 1;
        let occurred_at = match beside("at") {
            None => DateTime::UNIX_EPOCH + BEGIN + TimeDelta::seconds(number),
            Some(found) => found
                .as_str()
                .and_then(|text| DateTime::parse_from_rfc3339(text).ok())
                .ok_or_else(|| wrong("at", &found, "write a time, such as 2026-05-23T10:00:00Z"))?
                .to_utc(),
        };
        let aggregate_type = match beside("aggregate") {
            None => known.aggregate_type.clone(),
            Some(Json::String(text)) => text,
            Some(found) => return Err(wrong("aggregate", &found, "write the aggregate's type")),
        };
        let id_field = format!("{aggregate_type}_id");
        let given_data =
            if beside("unreadable").is_some() { Json::Object(serde_json::Map::new()) } else { data.value.to_json() };
        let given_data = if given_data.is_null() { Json::Object(serde_json::Map::new()) } else { given_data };
        let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let aggregate_id = beside("of").or_else(|| given_data.get(&id_field).cloned());
        let aggregate_id = aggregate_id.map_or_else(|| format!("{aggregate_type}-1"), |value| text(&value));
        let last = self.sequences.entry((aggregate_type.clone(), aggregate_id.clone())).or_default();
        let sequence = match beside("sequence") {
            None => *last + 1,
            Some(found) => found
                .as_i64()
                .filter(|n| *n > 0)
                .ok_or_else(|| wrong("sequence", &found, "write a whole number from 1"))?,
        };
        *last = sequence.max(*last);
        let sample = Sample { at: occurred_at, texts: vec![(id_field, aggregate_id.clone())] };
        let value = self.data(&name.value, version, data, &given_data, &sample)?;
        let value = match beside("unreadable") {
            Some(reason) => Err(text(&reason)),
            None => value,
        };
        let reference = EventRef {
            epoch: "test".into(),
            // Its place in the log, which delivery gives it.
            txid: 0,
            tx_min: 0,
            snapshot: None,
            aggregate_id: aggregate_id.as_str().into(),
            sequence,
        };
        let envelope = Envelope {
            id: Uuid::from_u128(number.unsigned_abs().into()),
            event_type: name.value.as_str().into(),
            schema_version: version,
            aggregate_type: aggregate_type.as_str().into(),
            reference,
            occurred_at,
            metadata: Some(Arc::from("{}")),
        };
        let taken = self.compiled.program(&name.value).is_some();
        Ok(Event { envelope, data: taken.then_some(value) })
    }

    /// The payload in the newest version: what the decoder gives.
    fn data(
        &self,
        event: &str,
        version: u32,
        data: &Spanned<Node>,
        given: &Json,
        sample: &Sample,
    ) -> Result<Result<Value, String>, Vec<Finding>> {
        let at = |reason: String| vec![Finding::at(self.source, data.defined, reason, "correct the event's schema")];
        let schema =
            self.catalog.reader(event, version).ok_or_else(|| at(format!("no schema of version {version}")))?;
        let shape = Shape::new(schema).map_err(|error| at(error.to_string()))?;
        let value = shape.typed(given, sample).map_err(|found| {
            let finding =
                |m: Mismatch| Finding::at(self.source, data.value.place(&m.path, data.defined), m.reason, m.help);
            found.into_iter().map(finding).collect::<Vec<_>>()
        })?;
        let lifted = self.catalog.lift(event, version, value);
        Ok(lifted.map_err(|(version, error)| format!("upcasting from version {version}: {error}")))
    }
}
