//! What traces show of events that pass through an owner: of those alone whose command's trace is kept, and only where one is
//! followed at all (`telemetry`). Each leg is made into a span once it is over, with the times that it had.
//!
//! ```text
//! POST /loans                          (the command, in another process)
//! ├─ outbox → kafka                    from the event's time to Kafka's: the outbox, the WAL, Debezium
//! ├─ kafka → shelf                     until this owner took it in hand: once a read model
//! ├─ apply shelf                       decoding, loading, folding, until the store has answered for all of its batch
//! │  └─ write redis                    the batch's writes; links to the other events in it
//! └─ refresh shelf                     where readers see it only after a refresh
//! ```
//!
//! A batch is written for all of its events at once, so one span can't be the child of each: the first event's has the links to all, the
//! others' lead to that one.

use crate::apply::{Delivery, Finished, Partition};
use crate::event::Envelope;
use memchr::memmem::Finder;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use telemetry::{KeyValue, Leg, SpanContext};
use uuid::Uuid;

/// Events of one batch that are followed; so many links has a span at most.
const FOLLOWED_MAX: usize = 64;
/// Events whose way to Kafka was shown already, by another read model's owner in this process.
const SHOWN_MAX: usize = 1_024;

/// An event that is followed.
#[derive(Debug)]
pub(super) struct Traced {
    command: SpanContext,
    id: Uuid,
    about: Vec<KeyValue>,
    partition: Partition,
    offset: i64,
    happened: SystemTime,
    sent: Option<SystemTime>,
}

/// An event that is written, and waits for a refresh.
#[derive(Debug)]
pub(super) struct Unseen {
    command: SpanContext,
    about: Vec<KeyValue>,
    since: SystemTime,
}

/// What to follow of a batch; nothing as long as it is off.
#[derive(Debug, Default)]
pub(super) struct Following {
    on: bool,
    since: Option<SystemTime>,
    events: Vec<Traced>,
}

/// The command's span, if its trace is kept.
fn command(envelope: &Envelope) -> Option<SpanContext> {
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow)]
        traceparent: Cow<'a, str>,
    }
    let metadata = envelope.metadata.as_deref().filter(|text| may_be_kept(text))?;
    let Metadata { traceparent } = serde_json::from_str(metadata).ok()?;
    telemetry::sampled(&traceparent)
}

/// Whether metadata may name a trace that is kept. Nearly none does, and each event is asked: so this looks at the text where it is as
/// W3C's standard writes it (`00-<trace>-<span>-<flags>`), and leaves the rest to whoever reads the JSON.
fn may_be_kept(metadata: &str) -> bool {
    /// Made once: making ready to search takes longer than searching.
    static NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"traceparent\""));
    let metadata = metadata.as_bytes();
    let Some(rest) = NAME.find(metadata).and_then(|at| metadata.get(at + NAME.needle().len()..)) else { return false };
    let value = rest.iter().position(|byte| !b": \"".contains(byte)).and_then(|at| rest.get(at..)).unwrap_or_default();
    let flags = value.get(52..56).filter(|end| value.starts_with(b"00-") && end[0] == b'-' && end[3] == b'"');
    let kept = |digit: u8| char::from(digit).to_digit(16).is_none_or(|flags| flags & 1 == 1);
    flags.is_none_or(|end| kept(end[2]))
}

impl Following {
    /// `live`: readers see what this owner writes, and what it reads has just happened. Nobody waits for anything else.
    pub(super) fn begin(live: bool) -> Self {
        let on = live && telemetry::is_on();
        Self { on, since: on.then(SystemTime::now), events: Vec::new() }
    }

    /// Follows an event, if its command is followed. `sent_ms`: Kafka's time.
    pub(super) fn note(&mut self, partition: &Partition, delivery: &Delivery, sent_ms: Option<i64>) {
        if !self.on || self.events.len() == FOLLOWED_MAX {
            return;
        }
        // What the read model doesn't take passes without a trace.
        let Some(event) = delivery.event.as_ref().ok().filter(|event| event.data.is_some()) else { return };
        let Some(command) = command(&event.envelope) else { return };
        let reference = &event.envelope.reference;
        let about = vec![
            KeyValue::new("event.type", event.envelope.event_type.to_string()),
            KeyValue::new("event.id", event.envelope.id.to_string()),
            KeyValue::new("event.sequence", reference.sequence),
            KeyValue::new("messaging.destination.name", partition.topic.to_string()),
            KeyValue::new("messaging.destination.partition.id", partition.number.to_string()),
            KeyValue::new("messaging.kafka.offset", delivery.offset),
        ];
        let sent =
            sent_ms.and_then(|ms| u64::try_from(ms).ok()).map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
        self.events.push(Traced {
            command,
            id: event.envelope.id,
            about,
            partition: partition.clone(),
            offset: delivery.offset,
            happened: event.envelope.occurred_at.into(),
            sent,
        });
    }

    /// Shows what the batch came to. `wrote`: from when to when the store was written to. Gives what isn't visible yet.
    pub(super) fn show(
        self,
        (read_model, generation, store): (&str, &str, &'static str),
        wrote: Option<(SystemTime, SystemTime)>,
        finished: &Finished,
    ) -> Vec<Unseen> {
        let Some(since) = self.since.filter(|_| !self.events.is_empty()) else { return Vec::new() };
        let until = wrote.map_or_else(SystemTime::now, |(_, until)| until);
        let (mut applied, mut unseen) = (Vec::new(), Vec::new());
        for event in self.events {
            let sent = event.sent.unwrap_or(event.happened);
            if event.sent.is_some() && is_first(event.id) {
                let leg = Leg::new("outbox → kafka", event.happened, sent).about(event.about.clone());
                telemetry::record(&event.command, leg);
            }
            let mut about = event.about;
            about.push(KeyValue::new("read_model.generation", generation.to_owned()));
            let leg = Leg::new(format!("kafka → {read_model}"), sent, since).about(about.clone());
            telemetry::record(&event.command, leg);
            let mut stops = finished.stops.iter();
            let stop = stops.find(|(partition, stop)| *partition == event.partition && event.offset >= stop.offset);
            let mut leg = Leg::new(format!("apply {read_model}"), since, until).about(about.clone());
            leg.failed = stop.map(|(_, stop)| format!("the partition stopped before offset {}", stop.offset));
            let failed = leg.failed.is_some();
            let span = telemetry::record(&event.command, leg);
            if !failed {
                applied.push(span);
                unseen.push(Unseen { command: event.command, about, since: until });
            }
        }
        if let Some((from, until)) = wrote {
            show_write(store, &applied, from, until);
        }
        unseen
    }
}

fn show_write(store: &'static str, applied: &[SpanContext], from: SystemTime, until: SystemTime) {
    let write = |links: Vec<SpanContext>| {
        let about = vec![KeyValue::new("db.system.name", store), KeyValue::new("batch.followed", links.len() as i64)];
        Leg { links, ..Leg::new(format!("write {store}"), from, until).about(about) }
    };
    let Some((first, others)) = applied.split_first() else { return };
    let batch = telemetry::record(first, write(others.to_vec()));
    for other in others {
        telemetry::record(other, write(vec![batch.clone()]));
    }
}

/// Shows that events are visible now.
pub(super) fn seen(read_model: &str, unseen: Vec<Unseen>) {
    let now = SystemTime::now();
    for Unseen { command, about, since } in unseen {
        telemetry::record(&command, Leg::new(format!("refresh {read_model}"), since, now).about(about));
    }
}

/// More of what waits for a refresh, as far as it is followed.
pub(super) fn keep(all: &mut Vec<Unseen>, more: Vec<Unseen>) {
    let room = FOLLOWED_MAX.saturating_sub(all.len());
    all.extend(more.into_iter().take(room));
}

/// Whether an event is met for the first time in this process: each read model has its own owner.
fn is_first(id: Uuid) -> bool {
    static SHOWN: Mutex<VecDeque<Uuid>> = Mutex::new(VecDeque::new());
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if shown.contains(&id) {
        return false;
    }
    if shown.len() == SHOWN_MAX {
        shown.pop_front();
    }
    shown.push_back(id);
    true
}

#[cfg(test)]
mod tests {
    use super::may_be_kept;

    #[test]
    fn only_what_is_surely_not_kept_is_passed_over() {
        const SPAN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-";
        for (flags, kept) in [("01", true), ("00", false), ("03", true), ("02", false), ("ff", true), ("0z", true)] {
            for (before, colon) in [("", ":"), (r#""actor":"a","#, ": ")] {
                let metadata = format!(r#"{{{before}"traceparent"{colon}"{SPAN}{flags}","more":1}}"#);
                assert_eq!(may_be_kept(&metadata), kept, "{metadata}");
            }
        }
        assert!(!may_be_kept(r#"{"actor":"a"}"#));
        // Written otherwise: the JSON tells.
        for metadata in
            [r#"{"traceparent":"\u00300-4b"}"#, r#"{"traceparent":7}"#, r#"{"traceparent":"01-4b-00-00-x"}"#]
        {
            assert!(may_be_kept(metadata), "{metadata}");
        }
    }
}
