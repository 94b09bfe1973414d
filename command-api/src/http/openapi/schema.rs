//! JSON Schemas in few words.

use serde_json::{Map, Value as Json, json};

/// A text.
pub(in crate::http) fn text() -> Json {
    json!({"type": "string"})
}

/// A text that says something.
pub(in crate::http) fn filled(chars_max: usize) -> Json {
    json!({"type": "string", "minLength": 1, "maxLength": chars_max})
}

/// One of these.
pub(in crate::http) fn one_of(values: &[&str]) -> Json {
    json!({"type": "string", "enum": values})
}

/// An id that we minted.
pub(in crate::http) fn uuid() -> Json {
    json!({"type": "string", "format": "uuid"})
}

/// RFC 3339.
pub(in crate::http) fn time() -> Json {
    json!({"type": "string", "format": "date-time"})
}

/// An ISO 4217 code.
pub(in crate::http) fn currency() -> Json {
    json!({"type": "string", "pattern": "^[A-Z]{3}$"})
}

/// A whole number, both ends included.
pub(in crate::http) fn integer(min: i64, max: i64) -> Json {
    json!({"type": "integer", "format": "int64", "minimum": min, "maximum": max})
}

/// A list.
pub(in crate::http) fn array(items: &Json, max: usize) -> Json {
    json!({"type": "array", "items": items, "maxItems": max})
}

/// What may be null, too.
pub(in crate::http) fn or_null(mut schema: Json) -> Json {
    schema["type"] = json!([schema["type"], "null"]);
    schema
}

/// A body: unknown fields are refused.
pub(in crate::http) fn object(required: &[(&str, Json)], optional: &[(&str, Json)]) -> Json {
    let optional = optional.iter().map(|(name, schema)| (*name, or_null(schema.clone())));
    let properties: Map<String, Json> =
        required.iter().cloned().chain(optional).map(|(name, schema)| (name.to_owned(), schema)).collect();
    let required: Vec<&str> = required.iter().map(|(name, _)| *name).collect();
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
}

/// An example of a schema, for people and for tests.
pub(in crate::http) fn example(mut schema: Json, example: Json) -> Json {
    schema["examples"] = json!([example]);
    schema
}

/// An answer: fields may be added to it later.
pub(in crate::http) fn answer(fields: &[(&str, Json)]) -> Json {
    let properties: Map<String, Json> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    json!({"type": "object", "required": names, "properties": properties})
}

/// RFC 9457.
pub(in crate::http) fn problem() -> Json {
    let mut problem = answer(&[("type", text()), ("title", text()), ("status", integer(400, 599)), ("detail", text())]);
    problem["properties"]["field"] = json!({"type": "string", "description": "where a malformed request is wrong"});
    problem
}
