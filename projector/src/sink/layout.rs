//! What a store makes of a document's type: the columns, or the mapping, as text for people.

use super::{clickhouse, elasticsearch, postgres, shape};
use crate::expr::Kind;
use crate::projection::Store;

/// The store's own types, line by line; none where the store has none.
#[must_use]
pub fn layout(store: &Store, document: &Kind) -> Vec<String> {
    match store {
        Store::Redis(_) => Vec::new(),
        Store::Elasticsearch(config) => {
            let mapping = elasticsearch::mapping(document, &config.fields, "");
            let fields = mapping["properties"].as_object().into_iter().flatten();
            let shown = fields.filter(|(name, _)| !name.starts_with('_'));
            shown.map(|(name, field)| format!("{name}: {field}")).collect()
        }
        Store::Clickhouse(config) => {
            let columns = clickhouse::columns(document, config);
            columns.into_iter().map(|(name, sql_type)| format!("{name} {sql_type}")).collect()
        }
        Store::Postgres(config) => postgres::columns(document, config),
    }
}

/// The document's type, line by line.
#[must_use]
pub fn types(document: &Kind) -> Vec<String> {
    let mut lines = Vec::new();
    list(document, "", &mut lines);
    lines
}

fn list(kind: &Kind, path: &str, lines: &mut Vec<String>) {
    for (name, kind) in shape::fields(kind) {
        let path = if path.is_empty() { name } else { format!("{path}.{name}") };
        let optional = if shape::is_optional(kind) { ", may be null or missing" } else { "" };
        lines.push(format!("{path}: {}{optional}", name_of(kind)));
        match shape::shape(kind) {
            shape::Shape::Object(_) => list(kind, &path, lines),
            shape::Shape::List(items) => list(&items, &format!("{path}[]"), lines),
            _ => {}
        }
    }
}

fn name_of(kind: &Kind) -> String {
    match shape::shape(kind) {
        shape::Shape::Text => "text".to_owned(),
        shape::Shape::Integer => "integer".to_owned(),
        shape::Shape::Float => "number".to_owned(),
        shape::Shape::Boolean => "boolean".to_owned(),
        shape::Shape::Time => "time".to_owned(),
        shape::Shape::Object(_) => "object".to_owned(),
        shape::Shape::List(items) => format!("list of {}", name_of(&items)),
        shape::Shape::Mixed => "anything".to_owned(),
    }
}
