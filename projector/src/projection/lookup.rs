//! Lookups: what programs ask for by key while an event is folded. The file says which fields they read, with their types, so
//! that programs are checked, and a frozen projection compiles, without whatever holds them; what is found must be of these types.
//!
//! A lookup promises little: what was there when the event was folded, perhaps [`CACHE_MS`] ago. A replay asks again, and later
//! changes reach nobody. That is why rollups have none: an event that is read again after a crash could be added under another key.

use super::diagnostic::{Diagnosis, Finding, Source};
use super::{IdPath, Lookup, Missing, Projection, ReadModelKind, Store};
use crate::event::{EventType, SeenEvent};
use crate::expr::{Collection, Field, KeyString, Kind, Object, Value, flows};
use chrono::DateTime;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may be taken again, by default.
const CACHE_MS: u32 = 10_000;

/// A lookup ready to be asked.
#[derive(Clone, Debug)]
pub struct LookedUp {
    /// `%name` in the programs.
    pub name: Arc<str>,
    /// Where.
    pub from: LookupFrom,
    /// What holds when nothing is found.
    pub missing: Missing,
    /// How long an answer may be taken again.
    pub cache: Duration,
    keys: IdPath,
    fields: BTreeMap<KeyString, FieldType>,
}

/// Where values are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupFrom {
    /// The live documents of a read model, by their key.
    ReadModel(String),
    /// The rows of a table.
    Table {
        /// Its schema.
        schema: String,
        /// Its name.
        table: String,
        /// The column that holds the key.
        column: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FieldType {
    kind: Scalar,
    nullable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    String,
    Integer,
    Float,
    Boolean,
    Time,
}

impl FieldType {
    fn parse(text: &str) -> Option<Self> {
        let (name, nullable) = text.strip_suffix('?').map_or((text, false), |name| (name, true));
        let kind = match name {
            "string" => Scalar::String,
            "integer" => Scalar::Integer,
            "float" => Scalar::Float,
            "boolean" => Scalar::Boolean,
            "time" => Scalar::Time,
            _ => return None,
        };
        Some(Self { kind, nullable })
    }

    fn kind(self) -> Kind {
        let kind = match self.kind {
            Scalar::String => Kind::bytes(),
            Scalar::Integer => Kind::integer(),
            Scalar::Float => Kind::float(),
            Scalar::Boolean => Kind::boolean(),
            Scalar::Time => Kind::timestamp(),
        };
        if self.nullable { kind.or_null() } else { kind }
    }

    /// The value of this type; none where it isn't one.
    fn read(self, value: &Value) -> Option<Value> {
        Some(match (self.kind, value) {
            (Scalar::String, Value::Bytes(_)) => value.clone(),
            (Scalar::String, Value::String(text)) => Value::from(text.to_string()),
            (Scalar::Integer, Value::Integer(_))
            | (Scalar::Float, Value::Float(_))
            | (Scalar::Boolean, Value::Boolean(_))
            | (Scalar::Time, Value::Timestamp(_)) => value.clone(),
            #[allow(
                clippy::cast_precision_loss,
                reason = "as in every store: a whole number where a fraction may stand"
            )]
            (Scalar::Float, Value::Integer(n)) => Value::from_f64_or_zero(*n as f64),
            (Scalar::Time, Value::Bytes(text)) => {
                let at = DateTime::parse_from_rfc3339(std::str::from_utf8(text).ok()?).ok()?;
                Value::Timestamp(at.to_utc())
            }
            _ => return None,
        })
    }
}

impl LookedUp {
    /// The keys that an event's data asks for.
    ///
    /// # Errors
    /// When something that isn't text stands where a key is expected.
    pub fn keys(&self, data: &Object) -> Result<Vec<String>, String> {
        Ok(self.keys.ids(data)?.into_iter().collect())
    }

    /// What programs see of what was found under a key: none where it counts as missing.
    ///
    /// # Errors
    /// A field of another type than the file says.
    pub fn read(&self, key: &str, found: &Object) -> Result<Option<Object>, String> {
        let mut fields = Object::new();
        for (name, of) in &self.fields {
            let value = match found.get(name).filter(|value| !value.is_null()) {
                None if of.nullable => Value::Null,
                None => return Ok(None),
                Some(value) => of.read(value).ok_or_else(|| {
                    let found = crate::expr::json::to_json(value);
                    format!(
                        "lookup `{}`: `{name}` of `{key}` is {found}, which isn't of the type that the file says",
                        self.name
                    )
                })?,
            };
            fields.insert(name.clone(), value);
        }
        Ok(Some(fields))
    }

    /// What programs see, made of what each key has.
    #[must_use]
    pub fn value(&self, found: BTreeMap<String, Value>) -> Value {
        if self.keys.is_many() {
            return Value::Object(found.into_iter().map(|(key, value)| (key.into(), value)).collect());
        }
        found.into_values().next().unwrap_or(Value::Null)
    }

    /// The type of one that is found.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let fields = self.fields.iter().map(|(name, of)| (Field::from(name.as_str()), of.kind()));
        Kind::object(Collection::from(fields.collect::<BTreeMap<_, _>>()))
    }

    /// The type of what programs see of it in an event; none where its data has no such key.
    pub(super) fn seen(&self, event: &EventType) -> Option<Kind> {
        let key = self.keys.kind(&event.kind);
        if key.is_undefined() || !key.contains_bytes() {
            return None;
        }
        let one = if self.missing == Missing::Null { self.kind().or_null() } else { self.kind() };
        Some(match self.keys.is_many() {
            true => Kind::object(Collection::empty().with_unknown(one)),
            false if key.contains_null() || key.contains_undefined() => one.or_null(),
            false => one,
        })
    }

    /// What of it the read model that it names doesn't have.
    #[must_use]
    pub fn against(&self, kind: ReadModelKind, document: &Kind) -> Vec<String> {
        let LookupFrom::ReadModel(name) = &self.from else { return Vec::new() };
        if kind == ReadModelKind::Facts {
            return vec![format!("`{name}` keeps rows, which have no key to be found by")];
        }
        let Some(fields) = document.as_object() else { return Vec::new() };
        let wrong = self.fields.iter().filter_map(|(field, of)| {
            let found = fields.known().get(&field.as_str().into());
            let Some(found) = found.cloned().or_else(|| Some(fields.unknown_kind()).filter(Kind::contains_any_defined))
            else {
                let names = fields.known().keys().map(|n| n.as_str().to_owned()).collect::<Vec<_>>().join(", ");
                return Some(format!("`{name}` has no field `{field}`; there are {names}"));
            };
            let wanted = FieldType { nullable: false, ..*of }.kind();
            let fits = found.intersects(&wanted)
                || matches!((of.kind, found.contains_integer()), (Scalar::Float, true))
                || matches!((of.kind, found.contains_bytes()), (Scalar::Time, true));
            (!fits).then(|| format!("`{field}` of `{name}` is {found}, not {wanted}"))
        });
        wrong.collect()
    }
}

/// Reads the file's lookups.
pub(super) fn read(
    source: &Source,
    projection: &Projection,
    kind: ReadModelKind,
) -> Result<Vec<Arc<LookedUp>>, Vec<Finding>> {
    let (mut all, mut findings) = (Vec::new(), Vec::new());
    for (name, lookup) in &projection.lookup {
        let mut say = |message: String, help: &str| {
            let message = format!("lookup `{name}`: {message}");
            findings.push(Finding::at(source, lookup.defined, message, help).of(Diagnosis::Lookup));
        };
        if kind == ReadModelKind::Rollup {
            say(
                "a rollup can't ask".to_owned(),
                "an event that is read again could be added under another key; keep it in facts, or in a join, and sum up in a query",
            );
            continue;
        }
        match one(name, lookup) {
            Ok(lookup) => all.push(Arc::new(lookup)),
            Err((message, help)) => say(message, help),
        }
    }
    if findings.is_empty() { Ok(all) } else { Err(findings) }
}

fn one(name: &str, lookup: &Spanned<Lookup>) -> Result<LookedUp, (String, &'static str)> {
    let good = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if SeenEvent::names().any(|taken| taken == name) || !good(name) {
        return Err((
            "that can't be its name".to_owned(),
            "programs say `%name`: letters, digits and `_`, and none of the event's own",
        ));
    }
    let Lookup { read_model, table, column, key, fields, missing, cache_ms } = &lookup.value;
    let from = match (read_model, table, column) {
        (Some(read_model), None, None) => LookupFrom::ReadModel(read_model.clone()),
        (None, Some(table), Some(column)) => {
            let (schema, table) = table.split_once('.').unwrap_or(("public", table));
            LookupFrom::Table { schema: schema.to_owned(), table: table.to_owned(), column: column.clone() }
        }
        _ => {
            return Err((
                "nothing says where".to_owned(),
                "write `read_model: name`, or `table: schema.name` and `column: …`",
            ));
        }
    };
    let keys = IdPath::parse(key).ok_or_else(|| {
        (
            format!("`{key}` is no path to a key"),
            "names of the event's data with dots between; `[]` behind a list, as in `lines[].book_id`",
        )
    })?;
    if fields.is_empty() {
        return Err((
            "it has no fields".to_owned(),
            "name those that programs read, each with its type: `title: string`",
        ));
    }
    let typed = fields.iter().map(|(name, text)| {
        let of = FieldType::parse(text).ok_or_else(|| {
            (
                format!("`{name}: {text}`"),
                "a type is string, integer, float, boolean or time, with `?` behind it if it may be null",
            )
        })?;
        Ok((KeyString::from(name.as_str()), of))
    });
    Ok(LookedUp {
        name: name.into(),
        from,
        missing: *missing,
        cache: Duration::from_millis(cache_ms.unwrap_or(CACHE_MS).into()),
        keys,
        fields: typed.collect::<Result<_, _>>()?,
    })
}

/// What can only be said once the programs are compiled: that each lookup is of use, and no fact's day hangs on one.
pub(super) fn check(
    source: &Source,
    projection: &Projection,
    asks: &BTreeMap<Arc<str>, Vec<usize>>,
    all: &[Arc<LookedUp>],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, lookup) in all.iter().enumerate().filter(|(n, _)| !asks.values().any(|asked| asked.contains(n))) {
        let name = &lookup.name;
        let at = projection.lookup.values().nth(n).map_or(projection.name.defined, |l| l.defined);
        let message = format!("lookup `{name}`: no program reads `%{name}`");
        let help = "read it where the event's data has its key, or leave it out";
        findings.push(Finding::at(source, at, message, help).of(Diagnosis::Lookup));
    }
    if let Store::Clickhouse(store) = &projection.store {
        for program in projection.on.values() {
            let day = |field: &str| field.trim_start_matches("[].") == store.day;
            let hangs = |from: &String| all.iter().any(|l| from.starts_with(&format!("%{}", l.name)));
            if flows(&program.value).iter().any(|f| day(&f.field) && f.from.iter().chain(&f.when).any(hangs)) {
                let message = "the day of a row comes from a lookup";
                let help = "an event that is read again would get another row: take the day from the event";
                findings.push(Finding::at(source, program.defined, message, help).of(Diagnosis::Lookup));
            }
        }
    }
    findings
}
