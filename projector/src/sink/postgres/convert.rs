//! A document as a row and back: as text, so the server converts between that and its own types.

use super::super::{SinkError, Stored, Write, reserved_name};
use super::columns::{Column, HIDDEN};
use super::config::broken;
use crate::expr::{Kind, Value, json};
use chrono::Utc;
use serde_json::{Map, Value as Json};
use sqlx::Row;
use sqlx::postgres::PgRow;
use std::sync::Arc;

/// A row's cells, each as its type's text: those of the hidden columns, then of `columns`.
pub(super) type Cells = Vec<Option<String>>;

/// A write's row, or why it can't be one.
pub(super) fn to_row(write: &Write, columns: &[Column]) -> Result<Cells, String> {
    let fields = write.fields.as_deref();
    if let Some(fields) = fields {
        if let Some(reason) = reserved_name(fields) {
            return Err(reason);
        }
        let known = |name: &str| columns.iter().any(|column| column.name == name);
        if let Some(name) = fields.keys().find(|name| !known(name)) {
            return Err(format!("field `{name}` has no column"));
        }
    }
    let expires = write.expires.or_else(|| write.is_bare().then(Utc::now));
    let parents: Vec<Value> = write.parents.iter().map(|parent| parent.to_string().into()).collect();
    let mut cells = Cells::with_capacity(HIDDEN.len() + columns.len());
    // In the order of `HIDDEN`.
    cells.extend([
        Some(write.key.clone()),
        Some(write.version.to_string()),
        Some(fields.is_none().to_string()),
        write.state.as_deref().map(str::to_owned),
        expires.as_ref().map(json::time_text),
        (!parents.is_empty()).then(|| array(&parents, plain)),
    ]);
    for column in columns {
        let value = fields.and_then(|fields| fields.get(column.name.as_str()));
        cells.push(value.map_or(Ok(None), |value| column.cell(value))?);
    }
    Ok(cells)
}

/// A value as the text of a scalar type; objects and lists as JSON.
pub(super) fn plain(value: &Value) -> String {
    json::to_plain(value).unwrap_or_default().into_owned()
}

/// The text of an array of these elements, each by `text`; lists among them are its further dimensions.
pub(super) fn array(elements: &[Value], text: fn(&Value) -> String) -> String {
    let quote = |element: String| format!("\"{}\"", element.replace('\\', "\\\\").replace('"', "\\\""));
    let element = |element: &Value| match element {
        Value::Array(elements) => array(elements, text),
        element if json::is_null(element) => "NULL".to_owned(),
        element => quote(text(element)),
    };
    format!("{{{}}}", elements.iter().map(element).collect::<Vec<_>>().join(","))
}

/// Key and document of a row `_key, _version, _deleted, _state, fields as JSON`.
pub(super) fn from_row(row: &PgRow, document: &Kind) -> Result<(String, Stored), SinkError> {
    let (key, version, deleted): (String, i64, bool) = (cell(row, 0)?, cell(row, 1)?, cell(row, 2)?);
    let state: Option<String> = cell(row, 3)?;
    let fields = (!deleted).then(|| cell::<String>(row, 4).and_then(|text| from_text(&text, document))).transpose()?;
    Ok((key, Stored { version, fields: fields.map(Arc::new), state: state.map(Into::into) }))
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
    use crate::expr::{Collection, Object};
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
            fields: Some(Object::from([("n".into(), Value::from(1))]).into()),
            ..Write::default()
        };
        let expected =
            ["k", "7", "false", "", "", "", "1", ""].map(|cell| Some(cell.to_owned()).filter(|c| !c.is_empty()));
        assert_eq!(to_row(&write, &columns).unwrap(), expected);
        for name in ["_x", "surprise"] {
            let fields = Some(Object::from([(name.into(), Value::from(1))]));
            assert!(
                to_row(&Write { fields: fields.map(Arc::new), ..Write::default() }, &columns)
                    .unwrap_err()
                    .contains(name)
            );
        }
    }

    #[test]
    fn a_null_column_is_no_field() {
        let fields = from_text(r#"{"n":9007199254740993,"note":null}"#, &document()).unwrap();
        assert_eq!(fields, Object::from([("n".into(), Value::from(9_007_199_254_740_993_i64))]));
    }
}
