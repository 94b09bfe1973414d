//! A document as a row and back, both ways as JSON: so the server converts between text and its own types.

use super::super::{SinkError, Stored, Write, reserved_name};
use super::columns::Column;
use super::config::broken;
use crate::expr::{Kind, json};
use chrono::Utc;
use serde_json::{Map, Value as Json};
use sqlx::Row;
use sqlx::postgres::PgRow;

/// A write's row as JSON, or why it can't be one.
pub(super) fn to_row(write: &Write, columns: &[Column]) -> Result<String, String> {
    let mut row = Map::new();
    if let Some(fields) = &write.fields {
        if let Some(reason) = reserved_name(fields) {
            return Err(reason);
        }
        let known = |name: &str| columns.iter().any(|column| column.name == name);
        if let Some(name) = fields.keys().find(|name| !known(name)) {
            return Err(format!("field `{name}` has no column"));
        }
        row = json::object_to_json(fields);
    }
    let expires = write.expires.or_else(|| write.is_bare().then(Utc::now));
    let parents = (!write.parents.is_empty()).then(|| write.parents.clone());
    let hidden: [(&str, Json); 6] = [
        ("_key", write.key.clone().into()),
        ("_version", write.version.into()),
        ("_deleted", write.fields.is_none().into()),
        ("_state", write.state.as_deref().into()),
        ("_expires", expires.as_ref().map(json::time_text).into()),
        ("_parents", parents.into()),
    ];
    row.extend(hidden.map(|(name, value)| (name.to_owned(), value)));
    Ok(Json::Object(row).to_string())
}

/// Key and document of a row `_key, _version, _deleted, _state, fields as JSON`.
pub(super) fn from_row(row: &PgRow, document: &Kind) -> Result<(String, Stored), SinkError> {
    let (key, version, deleted): (String, i64, bool) = (cell(row, 0)?, cell(row, 1)?, cell(row, 2)?);
    let state: Option<String> = cell(row, 3)?;
    let fields = (!deleted).then(|| cell::<String>(row, 4).and_then(|text| from_text(&text, document))).transpose()?;
    Ok((key, Stored { version, fields, state: state.map(Into::into) }))
}

fn from_text(text: &str, document: &Kind) -> Result<crate::expr::Object, SinkError> {
    let mut fields: Map<String, Json> =
        serde_json::from_str(text).map_err(|e| broken(format!("a row isn't JSON: {e}")))?;
    fields.retain(|_, value| !value.is_null());
    Ok(json::object_from_json(fields, document))
}

/// A value of an answer's row.
pub(super) fn cell<'r, T>(row: &'r PgRow, index: usize) -> Result<T, SinkError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(index).map_err(|e| broken(e.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::columns::columns;
    use super::*;
    use crate::expr::{Collection, Object, Value};
    use crate::projection::PostgresStore;

    fn document() -> Kind {
        Kind::object(Collection::empty().with_known("n", Kind::integer()).with_known("note", Kind::bytes().or_null()))
    }

    #[test]
    fn fields_and_hidden_columns_stand_side_by_side() {
        let columns = columns(&document(), &PostgresStore::default());
        let write = Write {
            key: "k".into(),
            version: 7,
            fields: Some(Object::from([("n".into(), Value::from(1))])),
            ..Write::default()
        };
        let row: Json = serde_json::from_str(&to_row(&write, &columns).unwrap()).unwrap();
        let expected = serde_json::json!({"n": 1, "_key": "k", "_version": 7, "_deleted": false, "_state": null, "_expires": null, "_parents": null});
        assert_eq!(row, expected);
        for name in ["_x", "surprise"] {
            let fields = Some(Object::from([(name.into(), Value::from(1))]));
            assert!(to_row(&Write { fields, ..Write::default() }, &columns).unwrap_err().contains(name));
        }
    }

    #[test]
    fn a_null_column_is_no_field() {
        let fields = from_text(r#"{"n":9007199254740993,"note":null}"#, &document()).unwrap();
        assert_eq!(fields, Object::from([("n".into(), Value::from(9_007_199_254_740_993_i64))]));
    }
}
