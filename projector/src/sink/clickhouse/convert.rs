//! Rows as lines of JSON.

use super::super::Write;
use super::config::{Column, Content};
use crate::expr::{Object, Value, json};
use serde_json::{Map, Value as Json};
use uuid::Uuid;

/// The line of a row, with its id from the write's key.
///
/// # Errors
/// Why it can't be one.
pub(super) fn to_line(write: &Write, columns: &[Column]) -> Result<String, String> {
    let fields = write.fields.as_ref().ok_or("facts can't be deleted")?;
    let (event, row) = id(&write.key).ok_or_else(|| format!("key `{}` isn't <event id>/<row>", write.key))?;
    if let Some(name) = fields.keys().find(|name| columns.iter().all(|c| c.name != name.as_str())) {
        return Err(format!("field `{name}` has no column"));
    }
    let mut line: Map<String, Json> = columns.iter().map(|c| (c.name.clone(), value(fields, c))).collect();
    line.insert("_event_id".to_owned(), event.to_string().into());
    line.insert("_row".to_owned(), row.into());
    Ok(Json::Object(line).to_string() + "\n")
}

/// Every column is sent, null where the row has nothing: a column that can't be null then refuses the row instead of taking a
/// default.
fn value(fields: &Object, column: &Column) -> Json {
    match (column.content, fields.get(column.name.as_str()).unwrap_or(&Value::Null)) {
        (_, Value::Null) if column.sql_type.starts_with("Array(") => Json::Array(Vec::new()),
        (_, Value::Null) => Json::Null,
        (Content::Day, Value::Timestamp(at)) => at.format("%F").to_string().into(),
        (Content::JsonText, Value::Bytes(text)) => String::from_utf8_lossy(text).into_owned().into(),
        (Content::JsonText, value) => json::to_json(value).to_string().into(),
        (_, value) => json::to_json(value),
    }
}

fn id(key: &str) -> Option<(Uuid, u16)> {
    let (event, row) = key.split_once('/')?;
    Some((Uuid::parse_str(event).ok()?, row.parse().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn column(name: &str, sql_type: &str, content: Content) -> Column {
        Column { name: name.into(), sql_type: sql_type.into(), content }
    }

    #[test]
    fn a_row_is_whole_and_carries_its_id() {
        let columns = [
            column("amount", "Int64", Content::Plain),
            column("day", "Date", Content::Day),
            column("more", "String", Content::JsonText),
            column("tags", "Array(String)", Content::Plain),
        ];
        let at = json::from_json("2026-11-21T23:59:59Z".into(), &crate::expr::Kind::timestamp());
        let more = Value::Object(Object::from([("a".into(), Value::from(1))]));
        let fields = Object::from([("amount".into(), Value::from(-5)), ("day".into(), at), ("more".into(), more)]);
        let write = Write { key: "0190163d-8694-739b-aea5-966c26f8ad91/3".into(), version: 0, fields: Some(fields) };
        let line: Json = serde_json::from_str(&to_line(&write, &columns).unwrap()).unwrap();
        let expected = serde_json::json!({"amount": -5, "day": "2026-11-21", "more": "{\"a\":1}", "tags": [],
            "_event_id": "0190163d-8694-739b-aea5-966c26f8ad91", "_row": 3});
        assert_eq!(line, expected);
    }

    #[test]
    fn what_cannot_be_a_row_is_refused_with_the_reason() {
        let write = |key: &str, field: &str| Write {
            key: key.into(),
            version: 0,
            fields: Some(Object::from([(field.into(), Value::from(1))])),
        };
        assert!(
            to_line(&write("x", "a"), &[column("a", "Int64", Content::Plain)])
                .unwrap_err()
                .contains("<event id>/<row>")
        );
        let key = "0190163d-8694-739b-aea5-966c26f8ad91/0";
        assert!(to_line(&write(key, "b"), &[column("a", "Int64", Content::Plain)]).unwrap_err().contains("no column"));
    }
}
