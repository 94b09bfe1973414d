//! Avro's binary form straight into the expression language's value, with every byte accounted for.
//!
//! [`Shape`] is a schema made ready for reading: references resolved, fields that a newer reader's schema adds filled from
//! their defaults. The reader is strict where apache-avro is not: a datum that ends early or has bytes left over is an error.

use crate::expr::{Collection, KeyString, Kind, Object, Value, Wanted, json};
use apache_avro::Schema;
use apache_avro::schema::{Name, NamesRef, ResolvedSchema};
use chrono::{DateTime, Duration, TimeZone, Utc};
use std::collections::BTreeMap;

/// Nesting deeper than this is refused, in schemas and so in data.
const DEPTH_MAX: usize = 32;

/// Why a schema can't be used or a datum can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AvroError {
    /// The datum ends before its schema does.
    #[error("the datum ends early, in {0}")]
    Truncated(&'static str),
    /// The schema ends before the datum does.
    #[error("{0} bytes are left over after the datum")]
    Trailing(usize),
    /// A value that its type doesn't allow.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// A schema that this reader doesn't take.
    #[error("schema: {0}")]
    Schema(String),
}

/// A schema made ready for reading.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// null
    Null,
    /// boolean
    Boolean,
    /// int and long
    Integer,
    /// float
    Float,
    /// double
    Double,
    /// string, and uuid over string
    Text,
    /// bytes
    Bytes,
    /// fixed of this many bytes
    Fixed(usize),
    /// timestamp-… over long, with its units in a second
    Timestamp(i64),
    /// date: days since 1970-01-01, read as midnight UTC
    Date,
    /// enum, read as its symbol's text
    Enum(Vec<String>),
    /// array
    Array(Box<Shape>),
    /// map
    Map(Box<Shape>),
    /// union
    Union(Vec<Shape>),
    /// record: the fields in the datum, then those that only the reader knows, with their defaults
    Record(Vec<(KeyString, Shape)>, Vec<(KeyString, Value)>),
    /// A record's field that nobody wants: every byte of it must be as it should, but it isn't kept.
    Unwanted(Box<Shape>),
}

impl Shape {
    /// Prepares `schema`.
    ///
    /// # Errors
    /// Recursive or too deep schemas, and logical types that have no place in events (decimal, duration).
    pub fn new(schema: &Schema) -> Result<Self, AvroError> {
        let resolved = ResolvedSchema::try_from(schema).map_err(|e| AvroError::Schema(e.to_string()))?;
        shape(schema, resolved.get_names(), 0)
    }

    /// Prepares `writer` for a reader that knows `reader`: what the reader adds gets its default.
    ///
    /// # Errors
    /// As [`Shape::new`]; also an added field without a default.
    pub fn resolve(writer: &Schema, reader: &Schema) -> Result<Self, AvroError> {
        let names = ResolvedSchema::try_from(reader).map_err(|e| AvroError::Schema(e.to_string()))?;
        let mut shape = Self::new(writer)?;
        fill(&mut shape, reader, names.get_names())?;
        Ok(shape)
    }

    /// The same for a reader who wants only some of it. What is wrong with a datum is found all the same.
    #[must_use]
    pub fn only(self, wanted: &Wanted) -> Self {
        match (self, wanted) {
            (Self::Record(fields, defaults), Wanted::Fields(_)) => {
                let fields = fields.into_iter().map(|(name, shape)| match wanted.of(name.as_str()) {
                    Some(wanted) => (name, shape.only(wanted)),
                    None => (name, Self::Unwanted(Box::new(shape))),
                });
                let defaults = defaults.into_iter().filter(|(name, _)| wanted.of(name.as_str()).is_some());
                Self::Record(fields.collect(), defaults.collect())
            }
            (Self::Union(branches), _) => Self::Union(branches.into_iter().map(|shape| shape.only(wanted)).collect()),
            (shape, _) => shape,
        }
    }

    /// The type of what [`Shape::read`] gives.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Null => Kind::null(),
            Self::Boolean => Kind::boolean(),
            Self::Integer => Kind::integer(),
            Self::Float | Self::Double => Kind::float(),
            Self::Text | Self::Bytes | Self::Fixed(_) | Self::Enum(_) => Kind::bytes(),
            Self::Timestamp(_) | Self::Date => Kind::timestamp(),
            Self::Array(items) => Kind::array(Collection::from_unknown(items.kind())),
            Self::Map(values) => Kind::object(Collection::from_unknown(values.kind())),
            Self::Union(branches) => {
                branches.iter().map(Self::kind).reduce(|a, b| a.union(b)).unwrap_or_else(Kind::never)
            }
            Self::Record(fields, defaults) => {
                let known = fields.iter().filter(|(_, shape)| !matches!(shape, Self::Unwanted(_)));
                let known = known.map(|(name, shape)| (name.as_str().into(), shape.kind()));
                let added = defaults.iter().map(|(name, value)| (name.as_str().into(), Kind::from(value)));
                Kind::object(Collection::from(known.chain(added).collect::<BTreeMap<_, _>>()))
            }
            Self::Unwanted(_) => Kind::never(),
        }
    }

    /// Reads a datum that is exactly `bytes`.
    ///
    /// # Errors
    /// [`AvroError`]; never panics, never reads or reserves more than the bytes justify.
    pub fn read(&self, bytes: &[u8]) -> Result<Value, AvroError> {
        let mut rest = bytes;
        let value = self.take(&mut rest)?;
        if rest.is_empty() { Ok(value) } else { Err(AvroError::Trailing(rest.len())) }
    }

    fn take(&self, rest: &mut &[u8]) -> Result<Value, AvroError> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Boolean => match take(rest, 1, "a boolean")? {
                [0] => Value::Boolean(false),
                [1] => Value::Boolean(true),
                _ => return Err(AvroError::Invalid("boolean")),
            },
            Self::Integer => Value::Integer(long(rest)?),
            Self::Float => {
                let bytes = take(rest, 4, "a float")?.try_into().map_err(|_| AvroError::Truncated("a float"))?;
                Value::from_f64_or_zero(f64::from(f32::from_le_bytes(bytes)))
            }
            Self::Double => {
                let bytes = take(rest, 8, "a double")?.try_into().map_err(|_| AvroError::Truncated("a double"))?;
                Value::from_f64_or_zero(f64::from_le_bytes(bytes))
            }
            Self::Text => Value::from(text(rest)?),
            Self::Bytes => Value::Bytes(bytes::Bytes::copy_from_slice(length_prefixed(rest, "bytes")?)),
            Self::Fixed(size) => Value::Bytes(bytes::Bytes::copy_from_slice(take(rest, *size, "a fixed")?)),
            Self::Timestamp(units) => Value::Timestamp(timestamp(long(rest)?, *units)?),
            Self::Date => {
                let day = DateTime::UNIX_EPOCH
                    .checked_add_signed(Duration::try_days(long(rest)?).ok_or(AvroError::Invalid("date"))?);
                Value::Timestamp(day.ok_or(AvroError::Invalid("date"))?)
            }
            Self::Enum(symbols) => Value::from(chosen(symbols, rest, "enum symbol")?.as_str()),
            Self::Union(branches) => chosen(branches, rest, "union branch")?.take(rest)?,
            Self::Array(items) => {
                let mut values = Vec::new();
                blocks(rest, |rest| {
                    values.push(items.take(rest)?);
                    Ok(())
                })?;
                Value::Array(values)
            }
            Self::Map(items) => {
                let mut map = Object::new();
                blocks(rest, |rest| {
                    let key = key(rest)?;
                    map.insert(key.into(), items.take(rest)?);
                    Ok(())
                })?;
                Value::Object(map)
            }
            Self::Record(fields, defaults) => {
                let mut map = Object::new();
                for (name, shape) in fields {
                    match shape {
                        Self::Unwanted(shape) => shape.pass(rest)?,
                        shape => _ = map.insert(name.clone(), shape.take(rest)?),
                    }
                }
                map.extend(defaults.iter().cloned());
                Value::Object(map)
            }
            Self::Unwanted(shape) => {
                shape.pass(rest)?;
                Value::Null
            }
        })
    }

    /// As [`Shape::take`], without making anything.
    fn pass(&self, rest: &mut &[u8]) -> Result<(), AvroError> {
        match self {
            Self::Text => text(rest).map(drop),
            Self::Bytes => length_prefixed(rest, "bytes").map(drop),
            Self::Fixed(size) => take(rest, *size, "a fixed").map(drop),
            Self::Enum(symbols) => chosen(symbols, rest, "enum symbol").map(drop),
            Self::Union(branches) => chosen(branches, rest, "union branch")?.pass(rest),
            Self::Array(items) => blocks(rest, |rest| items.pass(rest)),
            Self::Map(items) => blocks(rest, |rest| {
                key(rest)?;
                items.pass(rest)
            }),
            Self::Record(fields, _) => fields.iter().try_for_each(|(_, shape)| shape.pass(rest)),
            Self::Unwanted(shape) => shape.pass(rest),
            // These take no memory.
            Self::Null
            | Self::Boolean
            | Self::Integer
            | Self::Float
            | Self::Double
            | Self::Timestamp(_)
            | Self::Date => self.take(rest).map(drop),
        }
    }
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, AvroError> {
    std::str::from_utf8(length_prefixed(rest, "a string")?).map_err(|_| AvroError::Invalid("UTF-8 in a string"))
}

fn key<'a>(rest: &mut &'a [u8]) -> Result<&'a str, AvroError> {
    let key = length_prefixed(rest, "a map's key")?;
    std::str::from_utf8(key).map_err(|_| AvroError::Invalid("UTF-8 in a map's key"))
}

fn chosen<'a, T>(of: &'a [T], rest: &mut &[u8], what: &'static str) -> Result<&'a T, AvroError> {
    usize::try_from(long(rest)?).ok().and_then(|i| of.get(i)).ok_or(AvroError::Invalid(what))
}

fn take<'a>(rest: &mut &'a [u8], count: usize, what: &'static str) -> Result<&'a [u8], AvroError> {
    let (head, tail) = rest.split_at_checked(count).ok_or(AvroError::Truncated(what))?;
    *rest = tail;
    Ok(head)
}

fn length_prefixed<'a>(rest: &mut &'a [u8], what: &'static str) -> Result<&'a [u8], AvroError> {
    let length = usize::try_from(long(rest)?).map_err(|_| AvroError::Invalid("length"))?;
    take(rest, length, what)
}

/// A zig-zag varint of at most ten bytes.
fn long(rest: &mut &[u8]) -> Result<i64, AvroError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1, "a number")?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            if shift == 63 && byte > 1 {
                break;
            }
            #[allow(clippy::cast_possible_wrap, reason = "zig-zag maps the unsigned range onto the signed one")]
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(AvroError::Invalid("number"))
}

/// An array's or map's blocks: counted items, a negative count being followed by the block's size in bytes.
fn blocks(rest: &mut &[u8], mut item: impl FnMut(&mut &[u8]) -> Result<(), AvroError>) -> Result<(), AvroError> {
    loop {
        let count = long(rest)?;
        if count == 0 {
            return Ok(());
        }
        if count < 0 {
            long(rest)?;
        }
        for _ in 0..count.unsigned_abs() {
            let before = rest.len();
            item(rest)?;
            // Items of no bytes (null) would let a few bytes claim 2^63 of them.
            if rest.len() == before {
                return Err(AvroError::Invalid("array of empty items"));
            }
        }
    }
}

pub(super) fn timestamp(value: i64, units: i64) -> Result<DateTime<Utc>, AvroError> {
    let (seconds, fraction) = (value.div_euclid(units), value.rem_euclid(units));
    let nanos = u32::try_from(fraction * (1_000_000_000 / units)).map_err(|_| AvroError::Invalid("timestamp"))?;
    Utc.timestamp_opt(seconds, nanos).single().ok_or(AvroError::Invalid("timestamp"))
}

fn shape(schema: &Schema, names: &NamesRef<'_>, depth: usize) -> Result<Shape, AvroError> {
    if depth > DEPTH_MAX {
        return Err(AvroError::Schema(format!("nested more than {DEPTH_MAX} deep, or recursive")));
    }
    let inner = |s: &Schema| shape(s, names, depth + 1);
    Ok(match schema {
        Schema::Null => Shape::Null,
        Schema::Boolean => Shape::Boolean,
        Schema::Int | Schema::Long | Schema::TimeMillis | Schema::TimeMicros => Shape::Integer,
        Schema::Float => Shape::Float,
        Schema::Double => Shape::Double,
        Schema::String | Schema::Uuid(apache_avro::schema::UuidSchema::String) => Shape::Text,
        Schema::Bytes => Shape::Bytes,
        Schema::Fixed(fixed) => Shape::Fixed(fixed.size),
        Schema::TimestampMillis | Schema::LocalTimestampMillis => Shape::Timestamp(1_000),
        Schema::TimestampMicros | Schema::LocalTimestampMicros => Shape::Timestamp(1_000_000),
        Schema::TimestampNanos | Schema::LocalTimestampNanos => Shape::Timestamp(1_000_000_000),
        Schema::Date => Shape::Date,
        Schema::Enum(symbols) => Shape::Enum(symbols.symbols.clone()),
        Schema::Array(array) => Shape::Array(Box::new(inner(&array.items)?)),
        Schema::Map(map) => Shape::Map(Box::new(inner(&map.types)?)),
        Schema::Union(union) => Shape::Union(union.variants().iter().map(inner).collect::<Result<_, _>>()?),
        Schema::Record(record) => {
            let fields = record.fields.iter().map(|f| Ok((f.name.as_str().into(), inner(&f.schema)?)));
            Shape::Record(fields.collect::<Result<_, _>>()?, Vec::new())
        }
        Schema::Ref { name } => inner(lookup(name, names)?)?,
        other => return Err(AvroError::Schema(format!("{other:?} is not taken; use long, string or a timestamp"))),
    })
}

fn lookup<'a>(name: &Name, names: &NamesRef<'a>) -> Result<&'a Schema, AvroError> {
    names.get(name).copied().ok_or_else(|| AvroError::Schema(format!("`{name}` is not defined")))
}

/// Adds to `shape` what the reader's schema has beyond it.
fn fill(shape: &mut Shape, reader: &Schema, names: &NamesRef<'_>) -> Result<(), AvroError> {
    match (shape, reader) {
        (shape, Schema::Ref { name }) => fill(shape, lookup(name, names)?, names),
        (Shape::Record(fields, defaults), Schema::Record(record)) => {
            for field in &record.fields {
                if let Some((_, shape)) = fields.iter_mut().find(|(name, _)| name.as_str() == field.name) {
                    fill(shape, &field.schema, names)?;
                    continue;
                }
                let default = field.default.clone();
                let default = default
                    .ok_or_else(|| AvroError::Schema(format!("field `{}` was added without a default", field.name)))?;
                let kind = self::shape(&field.schema, names, 0)?.kind();
                defaults.push((field.name.as_str().into(), json::from_json(default, &kind)));
            }
            Ok(())
        }
        (Shape::Array(items), Schema::Array(array)) => fill(items, &array.items, names),
        (Shape::Map(values), Schema::Map(map)) => fill(values, &map.types, names),
        (Shape::Union(branches), Schema::Union(union)) => {
            for (branch, reader) in branches.iter_mut().zip(union.variants()) {
                fill(branch, reader, names)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use apache_avro::types::Value as Avro;
    use apache_avro::writer::datum::GenericDatumWriter;
    use proptest::prelude::*;

    const SCHEMA: &str = r#"{"type": "record", "name": "E", "namespace": "t", "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "n", "type": "long"},
        {"name": "note", "type": ["null", "string"], "default": null},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
            {"name": "sku", "type": "string"}, {"name": "quantity", "type": "int"}]}}}]}"#;

    fn encoded(n: i64, note: Option<String>, skus: &[String]) -> (Shape, Vec<u8>) {
        let schema = Schema::parse_str(SCHEMA).unwrap();
        let note = note.map_or(Avro::Union(0, Box::new(Avro::Null)), |t| Avro::Union(1, Box::new(Avro::String(t))));
        let line = |sku: &String| {
            Avro::Record(vec![("sku".into(), Avro::String(sku.clone())), ("quantity".into(), Avro::Int(2))])
        };
        let datum = Avro::Record(vec![
            ("id".into(), Avro::Uuid(uuid::Uuid::nil())),
            ("n".into(), Avro::Long(n)),
            ("note".into(), note),
            ("at".into(), Avro::TimestampMicros(1_779_530_400_123_456)),
            ("lines".into(), Avro::Array(skus.iter().map(line).collect())),
        ]);
        let writer = GenericDatumWriter::builder(&schema).build().unwrap();
        (Shape::new(&schema).unwrap(), writer.write_value_to_vec(datum).unwrap())
    }

    /// The fields of [`SCHEMA`] whose bit is set.
    fn some_of(bits: u8) -> Wanted {
        let names = ["id", "n", "note", "at", "lines"].into_iter().enumerate();
        Wanted::Fields(names.filter(|(i, _)| bits >> i & 1 == 1).map(|(_, name)| (name.into(), Wanted::All)).collect())
    }

    #[test]
    fn reads_what_apache_avro_writes() {
        let (shape, bytes) = encoded(i64::MIN, None, &["ä".into()]);
        let value = shape.read(&bytes).unwrap();
        assert_eq!(value.get(vrl::path!("n")), Some(&Value::Integer(i64::MIN)));
        assert_eq!(value.get(vrl::path!("lines", 0, "sku")), Some(&Value::from("ä")));
        assert_eq!(json::to_json(value.get(vrl::path!("at")).unwrap()), "2026-05-23T10:00:00.123456Z");
    }

    #[test]
    fn fields_that_a_newer_schema_adds_have_their_default() {
        let (_, bytes) = encoded(1, None, &["a".into()]);
        let newer = SCHEMA
            .replace(r#"{"name": "n","#, r#"{"name": "colour", "type": "string", "default": "red"}, {"name": "n","#);
        let newer = newer.replace(
            r#"{"name": "sku","#,
            r#"{"name": "weight", "type": ["null", "long"], "default": null}, {"name": "sku","#,
        );
        let (writer, reader) = (Schema::parse_str(SCHEMA).unwrap(), Schema::parse_str(&newer).unwrap());
        let value = Shape::resolve(&writer, &reader).unwrap().read(&bytes).unwrap();
        assert_eq!(value.get(vrl::path!("colour")), Some(&Value::from("red")));
        assert_eq!(value.get(vrl::path!("lines", 0, "weight")), Some(&Value::Null));
    }

    proptest! {
        #[test]
        fn every_cut_and_every_extra_byte_is_an_error(n: i64, note: Option<String>, skus in prop::collection::vec(".{0,5}", 0..4), extra: u8) {
            let (shape, mut bytes) = encoded(n, note, &skus);
            prop_assert!(shape.read(&bytes).is_ok());
            for cut in 0..bytes.len() {
                prop_assert!(shape.read(&bytes[..cut]).is_err(), "cut at {}", cut);
            }
            bytes.push(extra);
            prop_assert!(shape.read(&bytes).is_err());
        }

        #[test]
        fn what_nobody_wants_is_read_as_strictly(bits in 0_u8..32, n: i64, skus in prop::collection::vec(".{0,5}", 0..4), at: usize, with: u8) {
            let (shape, mut bytes) = encoded(n, Some("x".into()), &skus);
            let (wanted, end) = (some_of(bits), bytes.len());
            let some = shape.clone().only(&wanted);
            let Ok(Value::Object(mut all)) = shape.read(&bytes) else { panic!("a datum that isn't read") };
            all.retain(|name, _| wanted.of(name.as_str()).is_some());
            prop_assert_eq!(some.read(&bytes), Ok(Value::Object(all)));
            bytes[at % end] = with;
            prop_assert_eq!(shape.read(&bytes).err(), some.read(&bytes).err());
            bytes.truncate(at % end);
            prop_assert_eq!(shape.read(&bytes).err(), some.read(&bytes).err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = encoded(0, None, &[]).0.read(&bytes);
        }
    }
}
