//! A message as it came, in one piece of memory: queues hold thousands of them, and nearly all are dropped once their events are folded.

/// The headers that an event has, in the order of `connectors/outbox.json`. In memory a byte stands for such a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Id,
    EventType,
    SchemaVersion,
    AggregateType,
    Sequence,
    Epoch,
    Txid,
    TxMin,
    TxSnapshot,
    OccurredAt,
    Metadata,
}

impl Known {
    pub(super) const ALL: [Self; 11] = [
        Self::Id,
        Self::EventType,
        Self::SchemaVersion,
        Self::AggregateType,
        Self::Sequence,
        Self::Epoch,
        Self::Txid,
        Self::TxMin,
        Self::TxSnapshot,
        Self::OccurredAt,
        Self::Metadata,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::EventType => "event_type",
            Self::SchemaVersion => "schema_version",
            Self::AggregateType => "aggregate_type",
            Self::Sequence => "sequence",
            Self::Epoch => "epoch",
            Self::Txid => "txid",
            Self::TxMin => "tx_min",
            Self::TxSnapshot => "tx_snapshot",
            Self::OccurredAt => "occurred_at",
            Self::Metadata => "metadata",
        }
    }
}

/// Stands for a name that isn't known and follows.
const OTHER: u8 = u8::MAX;

/// A message as raw as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// The headers (name, length, value), the key, the payload, one behind the other.
    memory: Box<[u8]>,
    /// Where the headers end.
    headers: usize,
    /// Where the key ends, if there is one.
    key: Option<usize>,
    has_payload: bool,
}

impl Raw {
    /// Copies a message; headers in order.
    #[must_use]
    pub fn new<N: AsRef<str>, V: AsRef<[u8]>>(key: Option<&[u8]>, headers: &[(N, V)], payload: Option<&[u8]>) -> Self {
        let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        let header = |(name, value): &(N, V)| match known(name.as_ref()) {
            Some(_) => 1 + size_of::<usize>() + value.as_ref().len(),
            None => 1 + 2 * size_of::<usize>() + name.as_ref().len() + value.as_ref().len(),
        };
        let size = headers.iter().map(header).sum::<usize>() + length(key) + length(payload);
        let mut memory = Vec::with_capacity(size);
        for (name, value) in headers {
            match known(name.as_ref()) {
                Some(at) => memory.push(at),
                None => {
                    memory.push(OTHER);
                    put(&mut memory, name.as_ref().as_bytes());
                }
            }
            put(&mut memory, value.as_ref());
        }
        let headers = memory.len();
        memory.extend_from_slice(key.unwrap_or_default());
        let key = key.map(|_| memory.len());
        memory.extend_from_slice(payload.unwrap_or_default());
        Self { memory: memory.into(), headers, key, has_payload: payload.is_some() }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.memory.get(self.headers..self.key?)
    }

    /// The value.
    #[must_use]
    pub fn payload(&self) -> Option<&[u8]> {
        self.memory.get(self.key.unwrap_or(self.headers)..).filter(|_| self.has_payload)
    }

    /// The headers that have a value, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.coded().map(|(name, value)| (name.text(), value))
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// Bytes that it takes in memory, beside itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// The known headers, each at its place; of several with one name the first.
    pub(super) fn known(&self) -> [Option<&[u8]>; Known::ALL.len()] {
        let mut all = [None; Known::ALL.len()];
        for (name, value) in self.coded() {
            if let Name::Known(known) = name {
                all[known as usize].get_or_insert(value);
            }
        }
        all
    }

    fn coded(&self) -> impl Iterator<Item = (Name<'_>, &[u8])> {
        let mut rest = self.memory.get(..self.headers).unwrap_or_default();
        std::iter::from_fn(move || {
            let (first, behind) = rest.split_first()?;
            rest = behind;
            let name = match Known::ALL.get(usize::from(*first)) {
                Some(known) => Name::Known(*known),
                None => Name::Other(std::str::from_utf8(take(&mut rest)?).ok()?),
            };
            Some((name, take(&mut rest)?))
        })
    }
}

enum Name<'a> {
    Known(Known),
    Other(&'a str),
}

impl<'a> Name<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Known(known) => known.name(),
            Self::Other(name) => name,
        }
    }
}

/// The byte that stands for a name, if one does.
fn known(name: &str) -> Option<u8> {
    let of = |known: Known| (known.name() == name).then_some(known as u8);
    Known::ALL.into_iter().find_map(of)
}

fn put(memory: &mut Vec<u8>, part: &[u8]) {
    memory.extend_from_slice(&part.len().to_ne_bytes());
    memory.extend_from_slice(part);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk()?;
    let (part, behind) = behind.split_at_checked(usize::from_ne_bytes(*length))?;
    *rest = behind;
    Some(part)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_known_name_is_where_it_says() {
        for (place, name) in Known::ALL.into_iter().enumerate() {
            assert_eq!(name as usize, place);
            assert_eq!(known(name.name()).map(usize::from), Some(place));
        }
    }

    #[test]
    fn of_headers_with_one_name_the_first_counts() {
        let raw = Raw::new(None, &[("txid", "7"), ("tx", "8"), ("txid", "9")], None);
        assert_eq!(raw.header("txid").unwrap(), b"7");
        assert_eq!(raw.known()[Known::Txid as usize].unwrap(), b"7");
        assert_eq!(raw.known().iter().flatten().count(), 1);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            key in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
            headers in prop::collection::vec(
                (prop_oneof![".{0,12}", "id|tx_min|metadata"], prop::collection::vec(any::<u8>(), 0..300)),
                0..20,
            ),
            payload in prop::option::of(prop::collection::vec(any::<u8>(), 0..400)),
        ) {
            let raw = Raw::new(key.as_deref(), &headers, payload.as_deref());
            prop_assert_eq!(raw.key(), key.as_deref());
            prop_assert_eq!(raw.payload(), payload.as_deref());
            let all: Vec<_> = raw.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            prop_assert_eq!(&all, &headers);
            for (name, _) in &headers {
                let first = headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice());
                prop_assert_eq!(raw.header(name), first);
            }
            prop_assert_eq!(raw.header("nobody's name"), None);
        }
    }
}
