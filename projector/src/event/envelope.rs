//! The envelope: what the outbox row said beside its payload, carried as Kafka headers.

use super::raw::Known;
use super::{Raw, TxSnapshot};
use chrono::{DateTime, Utc};
use std::sync::Arc;
use uuid::Uuid;

/// What identifies an event among the occurrences of all events in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRef {
    /// Source id and timeline of the database that wrote it.
    pub epoch: Arc<str>,
    /// The transaction that wrote it.
    pub txid: u64,
    /// The oldest transaction running when it was written; never above `txid`.
    pub tx_min: u64,
    /// Which transactions had ended by then, where its row says it.
    pub snapshot: Option<Arc<TxSnapshot>>,
    /// The aggregate's id; a topic holds one type of aggregate.
    pub aggregate_id: Arc<str>,
    /// The event's place in its aggregate, from 1.
    pub sequence: i64,
}

/// An event without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The event's stable id: the outbox row's.
    pub id: Uuid,
    /// What happened: the name of its schema's record.
    pub event_type: Arc<str>,
    /// The major version of its schema.
    pub schema_version: u32,
    /// The type of its aggregate.
    pub aggregate_type: Arc<str>,
    /// Its identity and order.
    pub reference: EventRef,
    /// When it happened: the command's time, microseconds.
    pub occurred_at: DateTime<Utc>,
    /// The metadata as JSON text (user, correlation, causation, trace context).
    pub metadata: Option<Arc<str>>,
}

/// What is wrong with a message's key or headers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A header that every event has isn't there.
    #[error("header `{0}` is missing; the connector's outbox router must place it (see connectors/outbox.json)")]
    Missing(&'static str),
    /// A header's or the key's text isn't of its form.
    #[error("{what} is `{found}`, expected {expected}")]
    Malformed {
        /// Which header, or the key.
        what: &'static str,
        /// Its text, shortened.
        found: String,
        /// The form it should have.
        expected: &'static str,
    },
}

impl Envelope {
    /// Reads the envelope from a message's key and headers.
    ///
    /// # Errors
    /// [`EnvelopeError`]: the message can't be an event of our outbox.
    pub fn read(raw: &Raw) -> Result<Self, EnvelopeError> {
        let headers = raw.known();
        let header = |known: Known| headers[known as usize];
        let text = |known: Known| {
            let bytes = header(known).ok_or(EnvelopeError::Missing(known.name()))?;
            std::str::from_utf8(bytes).map_err(|_| malformed(known.name(), bytes, "UTF-8 text"))
        };
        let number = |known: Known| {
            let digits = text(known)?;
            digits.parse::<u64>().map_err(|_| malformed(known.name(), digits.as_bytes(), "a whole number"))
        };
        let key = raw.key().ok_or(EnvelopeError::Malformed {
            what: "the key",
            found: String::new(),
            expected: "the aggregate's id",
        })?;
        let aggregate_id = std::str::from_utf8(key).map_err(|_| malformed("the key", key, "UTF-8 text"))?;
        let occurred_at = text(Known::OccurredAt)?;
        let sequence = number(Known::Sequence)?;
        let (txid, tx_min) = (number(Known::Txid)?, number(Known::TxMin)?);
        if tx_min > txid {
            return Err(malformed("tx_min", tx_min.to_string().as_bytes(), "at most txid"));
        }
        let snapshot = header(Known::TxSnapshot).filter(|bytes| !bytes.is_empty()).map(|bytes| {
            let read = std::str::from_utf8(bytes).ok().and_then(|text| TxSnapshot::read(text, tx_min));
            let expected = "pg_current_snapshot() of the statement that set tx_min, or null";
            read.map(Arc::new).ok_or_else(|| malformed("tx_snapshot", bytes, expected))
        });
        Ok(Self {
            id: text(Known::Id)?
                .parse()
                .map_err(|_| malformed("id", header(Known::Id).unwrap_or_default(), "a UUID"))?,
            event_type: text(Known::EventType)?.into(),
            schema_version: u32::try_from(number(Known::SchemaVersion)?).map_err(|_| {
                malformed("schema_version", header(Known::SchemaVersion).unwrap_or_default(), "a small number")
            })?,
            aggregate_type: text(Known::AggregateType)?.into(),
            reference: EventRef {
                epoch: text(Known::Epoch)?.into(),
                txid,
                tx_min,
                snapshot: snapshot.transpose()?,
                aggregate_id: aggregate_id.into(),
                sequence: i64::try_from(sequence)
                    .map_err(|_| malformed("sequence", sequence.to_string().as_bytes(), "at most 2^63 - 1"))?,
            },
            occurred_at: DateTime::parse_from_rfc3339(occurred_at)
                .map_err(|_| malformed("occurred_at", occurred_at.as_bytes(), "an RFC 3339 time"))?
                .to_utc(),
            metadata: header(Known::Metadata).and_then(|m| std::str::from_utf8(m).ok()).map(Into::into),
        })
    }
}

fn malformed(what: &'static str, found: &[u8], expected: &'static str) -> EnvelopeError {
    let found = String::from_utf8_lossy(found).chars().take(80).collect();
    EnvelopeError::Malformed { what, found, expected }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEADERS: &[(&str, &str)] = &[
        ("id", "0192f0c1-1111-7000-8000-000000000001"),
        ("event_type", "Borrowed"),
        ("schema_version", "1"),
        ("aggregate_type", "loan"),
        ("sequence", "3"),
        ("epoch", "74.00000001"),
        ("txid", "900"),
        ("tx_min", "899"),
        ("occurred_at", "2026-05-23T10:00:00.123456Z"),
    ];

    fn read(change: &[(&'static str, Option<&'static str>)]) -> Result<Envelope, EnvelopeError> {
        let is_changed = |name: &str| change.iter().any(|(changed, _)| *changed == name);
        let kept = HEADERS.iter().filter(|(name, _)| !is_changed(name)).copied();
        let headers: Vec<_> = kept.chain(change.iter().filter_map(|(name, value)| Some((*name, (*value)?)))).collect();
        Envelope::read(&Raw::new(Some(b"l-1"), &headers, None))
    }

    #[test]
    fn reads_what_debezium_sends() {
        let envelope = read(&[]).unwrap();
        assert_eq!(envelope.reference.txid, 900);
        assert_eq!(envelope.reference.snapshot, None);
        assert_eq!(read(&[("tx_snapshot", Some(""))]).unwrap(), envelope, "Connect's null");
        assert_eq!(crate::expr::json::time_text(&envelope.occurred_at), "2026-05-23T10:00:00.123456Z");
        let beside_a_long_transaction = read(&[("tx_snapshot", Some("899:1500:899,1490"))]).unwrap();
        let snapshot = TxSnapshot::new(1_500, vec![899, 1_490]);
        assert_eq!(beside_a_long_transaction.reference.snapshot, Some(Arc::new(snapshot)));
    }

    #[test]
    fn each_header_that_is_missing_or_malformed_is_named() {
        for (name, _) in HEADERS {
            let missing = read(&[(name, None)]).unwrap_err().to_string();
            assert!(missing.contains(&format!("`{name}`")), "{missing}");
        }
        for (name, bad) in [
            ("id", "7"),
            ("sequence", "-1"),
            ("txid", "x"),
            ("occurred_at", "yesterday"),
            ("tx_min", "901"),
            ("tx_snapshot", "1:2:"),
        ] {
            let error = read(&[(name, Some(bad))]).unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains(bad), "{error}");
        }
    }
}
