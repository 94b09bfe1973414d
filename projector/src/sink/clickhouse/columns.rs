//! The columns: inferred from the row's type, refined by the projection.

use super::super::shape::{Shape, fields, is_optional, shape};
use crate::expr::Kind;
use crate::projection::ClickhouseStore;

/// What is wrong with the names that a projection gives.
pub(crate) fn check(config: &ClickhouseStore, row: &Kind) -> Vec<String> {
    let types = columns(row, config);
    let is_field = |name: &String| types.iter().any(|(column, _)| column == name);
    let unknown = |what: &str, name: &String| {
        (!is_field(name)).then(|| format!("`store.clickhouse.{what}` names the field `{name}`, which no program sets"))
    };
    let mut wrong: Vec<String> = config.columns.keys().filter_map(|name| unknown("columns", name)).collect();
    let Some(rollup) = &config.rollup else { return wrong };
    wrong.extend(rollup.by.iter().filter_map(|name| unknown("rollup.by", name)));
    wrong.extend(rollup.sum.iter().filter_map(|name| unknown("rollup.sum", name)));
    if rollup.sum.is_empty() {
        wrong.push("`store.clickhouse.rollup.sum` names no field: there is nothing to add up".to_owned());
    }
    let mut names: Vec<_> = [&config.day].into_iter().chain(&rollup.by).chain(&rollup.sum).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        wrong.push(format!(
            "`store.clickhouse.rollup` names `{}` twice; the day is among its groups by itself",
            pair[0]
        ));
    }
    for (name, kind) in types.iter().filter(|(name, _)| rollup.sum.contains(name)) {
        let plain = kind.trim_start_matches("Nullable(").trim_end_matches(')');
        if !["Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32"].contains(&plain) {
            wrong.push(format!("`store.clickhouse.rollup.sum` names `{name}`, a {kind}: only whole numbers of at most 64 bits add up exactly"));
        }
    }
    for (name, kind) in types.iter().filter(|(name, _)| rollup.by.contains(name)) {
        if is_nested(kind) {
            wrong.push(format!("`store.clickhouse.rollup.by` names `{name}`, a {kind}: name plain fields"));
        }
    }
    wrong
}

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

/// Whether a column of this type holds lists; it has no null, but an empty one.
pub(super) fn is_array(sql_type: &str) -> bool {
    sql_type.starts_with("Array(")
}

/// Whether a column of this type takes lists and objects as they are.
pub(super) fn is_nested(sql_type: &str) -> bool {
    ["Array(", "Map(", "Tuple(", "Nested(", "JSON"].iter().any(|prefix| sql_type.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::Collection;
    use crate::projection::DayRollup;
    use std::collections::BTreeMap;

    #[test]
    fn a_rollup_adds_whole_numbers_of_fields_that_are_there() {
        let row = Collection::empty()
            .with_known("day", Kind::bytes())
            .with_known("cents", Kind::integer())
            .with_known("rate", Kind::float())
            .with_known("currency", Kind::bytes());
        let wrong = |by: &[&str], sum: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let rollup = Some(DayRollup { by: names(by), sum: names(sum) });
            let config = ClickhouseStore { day: "day".into(), rollup, ..ClickhouseStore::default() };
            check(&config, &Kind::object(row.clone())).join("; ")
        };
        assert_eq!(wrong(&["currency"], &["cents"]), "");
        assert!(wrong(&["currency"], &["rate"]).contains("Float64"));
        assert!(wrong(&["curency"], &["cents"]).contains("`curency`"));
        assert!(wrong(&["day"], &["cents"]).contains("`day` twice"));
        assert!(wrong(&[], &[]).contains("nothing to add up"));
    }

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
            rollup: None,
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
