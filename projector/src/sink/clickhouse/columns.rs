//! The columns: inferred from the row's type, refined by the projection.

use super::super::shape::{Shape, fields, is_optional, shape};
use crate::expr::Kind;
use crate::projection::ClickhouseStore;

/// A row's columns with their types, by name.
pub(super) fn columns(row: &Kind, config: &ClickhouseStore) -> Vec<(String, String)> {
    let column = |(name, kind): (String, &Kind)| {
        let column = match config.columns.get(&name) {
            Some(given) => given.clone(),
            None if name == config.day => "Date".to_owned(),
            None => inferred(kind),
        };
        (name, column)
    };
    fields(row).map(column).collect()
}

fn inferred(kind: &Kind) -> String {
    let plain = match shape(kind) {
        // An array can't be null in ClickHouse; where the row has none it is empty.
        Shape::List(items) if scalar(&items).is_some() => {
            return format!("Array({})", scalar(&items).unwrap_or_default());
        }
        // Nested and mixed values are kept as JSON text.
        _ => scalar(kind).unwrap_or("String"),
    };
    if is_optional(kind) { format!("Nullable({plain})") } else { plain.to_owned() }
}

fn scalar(kind: &Kind) -> Option<&'static str> {
    match shape(kind) {
        Shape::Text => Some("String"),
        Shape::Integer => Some("Int64"),
        Shape::Float => Some("Float64"),
        Shape::Boolean => Some("Bool"),
        Shape::Time => Some("DateTime64(6, 'UTC')"),
        Shape::Object(_) | Shape::List(_) | Shape::Mixed => None,
    }
}

/// Whether a column of this type has a null.
pub(super) fn takes_null(sql_type: &str) -> bool {
    ["Nullable(", "LowCardinality(Nullable(", "Variant(", "Dynamic", "JSON"].iter().any(|p| sql_type.starts_with(p))
}

/// Whether a column of this type takes lists and objects as they are.
pub(super) fn is_nested(sql_type: &str) -> bool {
    ["Array(", "Map(", "Tuple(", "Nested(", "JSON"].iter().any(|prefix| sql_type.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::Collection;
    use std::collections::BTreeMap;

    #[test]
    fn types_become_columns() {
        let row = Collection::empty()
            .with_known("day", Kind::bytes())
            .with_known("cents", Kind::integer())
            .with_known("note", Kind::bytes().or_null())
            .with_known("tags", Kind::array(Collection::from_unknown(Kind::bytes())).or_undefined())
            .with_known("extra", Kind::object(Collection::any()))
            .with_known("currency", Kind::bytes());
        let config = ClickhouseStore {
            day: "day".into(),
            columns: BTreeMap::from([("currency".to_owned(), "LowCardinality(String)".to_owned())]),
        };
        let columns = columns(&Kind::object(row), &config);
        let expected = [
            ("cents", "Int64"),
            ("currency", "LowCardinality(String)"),
            ("day", "Date"),
            ("extra", "String"),
            ("note", "Nullable(String)"),
            ("tags", "Array(String)"),
        ];
        assert_eq!(columns, expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    }
}
