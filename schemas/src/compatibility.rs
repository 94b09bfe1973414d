//! FULL_TRANSITIVE: each schema of a major reads what every other of that major wrote.
//!
//! Records are walked here, so that an error names the field by its path. Below them apache-avro decides, but only a
//! "full" answer counts, and a type must stay what it is: Avro itself would let microseconds be read as milliseconds.

use std::mem::discriminant;
use std::path::PathBuf;

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

use crate::SchemaFile;

/// Two schemas of one major that can't read each other.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{path}: field `{field}` {reason}, against {other}: a change like this needs a new major version")]
pub struct Incompatible {
    /// The later schema's file, or its subject in the registry.
    pub path: PathBuf,
    /// What it was compared with.
    pub other: PathBuf,
    /// The field's path, such as `items[].quantity`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Compares all files of each major with each other.
///
/// # Errors
/// The first pair that isn't compatible.
pub fn check(files: &[SchemaFile]) -> Result<(), Incompatible> {
    for (index, newer) in files.iter().enumerate() {
        for older in files[..index].iter().filter(|older| older.full_name() == newer.full_name()) {
            check_pair(&older.schema, &newer.schema).map_err(|(field, reason)| Incompatible {
                path: newer.path.clone(),
                other: older.path.clone(),
                field,
                reason,
            })?;
        }
    }
    Ok(())
}

/// Compares two schemas in both directions.
///
/// # Errors
/// The field's path and what is wrong with it.
pub fn check_pair(older: &Schema, newer: &Schema) -> Result<(), (String, String)> {
    compare(older, newer, "")
}

fn compare(older: &Schema, newer: &Schema, at: &str) -> Result<(), (String, String)> {
    let fail = |reason: String| Err((if at.is_empty() { "." } else { at }.to_owned(), reason));
    match (older, newer) {
        (Schema::Record(older), Schema::Record(newer)) => {
            let path = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
            for field in &newer.fields {
                match older.fields.iter().find(|known| known.name == field.name) {
                    Some(known) => compare(&known.schema, &field.schema, &path(&field.name))?,
                    None if field.default.is_none() => {
                        return Err((path(&field.name), "is new and has no default".to_owned()));
                    }
                    None => {}
                }
            }
            let gone = older.fields.iter().find(|field| {
                field.default.is_none() && !newer.fields.iter().any(|other| other.name == field.name)
            });
            gone.map_or(Ok(()), |field| Err((path(&field.name), "is gone and had no default".to_owned())))
        }
        (Schema::Array(older), Schema::Array(newer)) => compare(&older.items, &newer.items, &format!("{at}[]")),
        (Schema::Map(older), Schema::Map(newer)) => compare(&older.types, &newer.types, &format!("{at}{{}}")),
        (Schema::Union(older), Schema::Union(newer)) if older.variants().len() == newer.variants().len() => {
            older.variants().iter().zip(newer.variants()).try_for_each(|(older, newer)| compare(older, newer, at))
        }
        _ if discriminant(older) != discriminant(newer) => {
            fail(format!("changed its type from {} to {}", name(older), name(newer)))
        }
        _ => match SchemaCompatibility::mutual_read(older, newer) {
            Ok(Compatibility::Full) => Ok(()),
            Ok(Compatibility::Partial) => fail("can't be read in all cases".to_owned()),
            Err(error) => fail(format!("can't be read: {error}")),
        },
    }
}

fn name(schema: &Schema) -> String {
    match schema {
        Schema::Union(union) => union.variants().iter().map(name).collect::<Vec<_>>().join(" or "),
        _ => format!("{:?}", apache_avro::schema::SchemaKind::from(schema)).to_lowercase(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const ORDER: &str = r#"{"type": "record", "name": "OrderPlaced", "namespace": "shop.order.v1", "fields": [
        {"name": "order_id", "type": "string"},
        {"name": "note", "type": ["null", "string"], "default": null},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "Item", "fields": [
            {"name": "quantity", "type": "int"}]}}}]}"#;

    fn change(from: &str, to: &str) -> Result<(), (String, String)> {
        assert!(ORDER.contains(from));
        let newer = ORDER.replace(from, to);
        check_pair(&Schema::parse_str(ORDER).unwrap(), &Schema::parse_str(&newer).unwrap())
    }

    #[test]
    fn fields_with_defaults_come_and_go() {
        let id = r#"{"name": "order_id", "type": "string"},"#;
        change(id, &format!(r#"{id} {{"name": "tag", "type": "string", "default": ""}},"#)).unwrap();
        change(r#"{"name": "note", "type": ["null", "string"], "default": null},"#, "").unwrap();
    }

    #[test]
    fn what_breaks_readers_is_named_by_its_path() {
        let id = r#"{"name": "order_id", "type": "string"},"#;
        for (from, to, field) in [
            (id, "", "order_id"),
            (id, r#"{"name": "order_id", "type": "long"},"#, "order_id"),
            (r#""name": "order_id""#, r#""name": "id""#, "id"),
            (r#"["null", "string"], "default": null"#, r#""string", "default": """#, "note"),
            (r#"["null", "string"]"#, r#"["null", "string", "long"]"#, "note"),
            ("timestamp-micros", "timestamp-millis", "at"),
            (r#""quantity", "type": "int""#, r#""quantity", "type": "long""#, "items[].quantity"),
            (r#""quantity", "type": "int"}"#, r#""quantity", "type": "int"}, {"name": "price", "type": "long"}"#, "items[].price"),
        ] {
            assert_eq!(change(from, to).unwrap_err().0, field, "{to}");
        }
    }
}
