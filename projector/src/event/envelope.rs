//! The envelope: what the outbox row said beside its payload, carried as Kafka headers.

use super::TxSnapshot;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use std::borrow::Cow;
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

/// A header's name. Those of an event are known, so that a message needn't bring them along.
pub type HeaderName = Cow<'static, str>;

/// The headers that an event has; see `connectors/outbox.json`.
const KNOWN: [&str; 11] = [
    "id",
    "event_type",
    "schema_version",
    "aggregate_type",
    "sequence",
    "epoch",
    "txid",
    "tx_min",
    "tx_snapshot",
    "occurred_at",
    "metadata",
];

/// A message as raw as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// The key.
    pub key: Option<Bytes>,
    /// The headers that have a value, in order.
    pub headers: Vec<(HeaderName, Bytes)>,
    /// The value.
    pub payload: Option<Bytes>,
}

impl Raw {
    /// A header's name, without a copy if it is a known one.
    #[must_use]
    pub fn header_name(name: &str) -> HeaderName {
        KNOWN.iter().find(|known| **known == name).map_or_else(|| name.to_owned().into(), |known| (*known).into())
    }

    /// A header's bytes.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_ref())
    }
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
    pub fn read<'a>(key: Option<&'a [u8]>, header: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, EnvelopeError> {
        let text = |name: &'static str| {
            let bytes = header(name).ok_or(EnvelopeError::Missing(name))?;
            std::str::from_utf8(bytes).map_err(|_| malformed(name, bytes, "UTF-8 text"))
        };
        let number = |name| {
            text(name)?.parse::<u64>().map_err(|_| malformed(name, header(name).unwrap_or_default(), "a whole number"))
        };
        let key = key.ok_or(EnvelopeError::Malformed {
            what: "the key",
            found: String::new(),
            expected: "the aggregate's id",
        })?;
        let aggregate_id = std::str::from_utf8(key).map_err(|_| malformed("the key", key, "UTF-8 text"))?;
        let occurred_at = text("occurred_at")?;
        let sequence = number("sequence")?;
        let (txid, tx_min) = (number("txid")?, number("tx_min")?);
        if tx_min > txid {
            return Err(malformed("tx_min", tx_min.to_string().as_bytes(), "at most txid"));
        }
        let snapshot = header("tx_snapshot").filter(|bytes| !bytes.is_empty()).map(|bytes| {
            let read = std::str::from_utf8(bytes).ok().and_then(|text| TxSnapshot::read(text, tx_min));
            let expected = "pg_current_snapshot() of the statement that set tx_min, or null";
            read.map(Arc::new).ok_or_else(|| malformed("tx_snapshot", bytes, expected))
        });
        Ok(Self {
            id: text("id")?.parse().map_err(|_| malformed("id", header("id").unwrap_or_default(), "a UUID"))?,
            event_type: text("event_type")?.into(),
            schema_version: u32::try_from(number("schema_version")?).map_err(|_| {
                malformed("schema_version", header("schema_version").unwrap_or_default(), "a small number")
            })?,
            aggregate_type: text("aggregate_type")?.into(),
            reference: EventRef {
                epoch: text("epoch")?.into(),
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
            metadata: header("metadata").and_then(|m| std::str::from_utf8(m).ok()).map(Into::into),
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

    fn read(change: &[(&str, Option<&'static str>)]) -> Result<Envelope, EnvelopeError> {
        Envelope::read(Some(b"l-1"), |name| {
            let changed = change.iter().find(|(n, _)| *n == name);
            let value = changed.map_or_else(|| HEADERS.iter().find(|(n, _)| *n == name).map(|(_, v)| *v), |(_, v)| *v);
            value.map(str::as_bytes)
        })
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
