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
        Shape::Integer => "Int64",
        Shape::Float => "Float64",
        Shape::Boolean => "Bool",
        Shape::Time => "DateTime64(6, 'UTC')",
        // Nested and mixed values are kept as JSON text.
        Shape::Text | Shape::Object(_) | Shape::List(_) | Shape::Mixed => "String",
    };
    if is_optional(kind) { format!("Nullable({plain})") } else { plain.to_owned() }
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
            .with_known("currency", Kind::bytes());
        let config = ClickhouseStore {
            day: "day".into(),
            columns: BTreeMap::from([("currency".to_owned(), "LowCardinality(String)".to_owned())]),
        };
        let columns = columns(&Kind::object(row), &config);
        let expected =
            [("cents", "Int64"), ("currency", "LowCardinality(String)"), ("day", "Date"), ("note", "Nullable(String)")];
        assert_eq!(columns, expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    }
}
