//! The columns: inferred from the document's type, refined by the projection.

use super::super::shape::{Shape, fields, shape};
use super::config::quoted;
use super::convert::{array, plain};
use crate::expr::{Kind, Value, json};
use crate::projection::PostgresStore;

/// The hidden columns with their types, beside the primary key.
pub(super) const HIDDEN: [(&str, &str); 6] = [
    // Keys are ordered byte by byte, as in the other stores and in this program.
    ("_key", "text COLLATE \"C\""),
    ("_version", "bigint"),
    ("_deleted", "boolean"),
    ("_state", "text"),
    ("_expires", "timestamptz"),
    ("_parents", "text[]"),
];

/// A field's column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) name: String,
    /// The column's type.
    pub(super) sql_type: String,
    /// The type of which a value was inferred to be.
    inferred: &'static str,
    form: Form,
}

/// How a value of a type is written as text.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Json,
    Scalar,
    JsonArray,
    ScalarArray,
}

impl Form {
    fn of(sql_type: &str) -> Self {
        let sql_type = sql_type.to_ascii_lowercase();
        let (element, is_array) = sql_type.split_once('[').map_or((sql_type.as_str(), false), |(of, _)| (of, true));
        match (matches!(element.trim(), "jsonb" | "json"), is_array) {
            (true, false) => Self::Json,
            (true, true) => Self::JsonArray,
            (false, false) => Self::Scalar,
            (false, true) => Self::ScalarArray,
        }
    }
}

impl Column {
    /// The value as programs know it, whatever type the projection gave the column.
    pub(super) fn read(&self) -> String {
        let name = quoted(&self.name);
        match self.inferred {
            _ if self.sql_type == self.inferred => name,
            // An array has no cast to JSON.
            "jsonb" => format!("to_jsonb({name}) AS {name}"),
            inferred => format!("{name}::{inferred} AS {name}"),
        }
    }

    /// A value as the text of the column's type, or why it can't be one.
    pub(super) fn cell(&self, value: &Value) -> Result<Option<String>, String> {
        Ok(Some(match (value, self.form) {
            (value, _) if json::is_null(value) => return Ok(None),
            (value, Form::Json) => json::to_text(value),
            (value, Form::Scalar) => plain(value),
            (Value::Array(elements), Form::JsonArray) => array(elements, json::to_text),
            (Value::Array(elements), Form::ScalarArray) => array(elements, plain),
            (_, Form::JsonArray | Form::ScalarArray) => return Err(format!("field `{}` is no list", self.name)),
        }))
    }

    /// Name and type, as in a table's definition.
    pub(super) fn definition(&self) -> String {
        format!("{} {}", quoted(&self.name), self.sql_type)
    }
}

/// The type to which a text is cast on its way into a column of `sql_type`: without its length, to which a cast would cut it, where the
/// column refuses what is longer.
pub(super) fn cast(sql_type: &str) -> String {
    let (name, rest) = sql_type.split_once('(').unwrap_or((sql_type, ""));
    let rest = rest.split_once(')').map_or(rest, |(_, rest)| rest);
    // A collation is the column's alone.
    let (name, _) = name.split_once(" COLLATE ").unwrap_or((name, ""));
    let name = name.trim();
    let of_any_length = match name.to_ascii_lowercase().as_str() {
        "char" | "character" => "bpchar",
        "bit" => "varbit",
        _ => name,
    };
    format!("{of_any_length}{rest}")
}

/// The server cuts longer names, and would then not find their values.
const NAME_BYTES_MAX: usize = 63;

/// What is wrong with the names that a projection gives.
pub(crate) fn check(config: &PostgresStore, document: &Kind) -> Vec<String> {
    let names: Vec<String> = fields(document).map(|(name, _)| name).collect();
    let given = |what: &'static str| {
        let names = &names;
        move |name: &&String| -> Option<String> {
            let known = names.contains(*name);
            (!known).then(|| format!("`store.postgres.{what}` names the field `{name}`, which no program sets"))
        }
    };
    let columns = config.columns.keys().filter_map(|name| given("columns")(&name));
    let indexes = config.indexes.iter().flatten().filter_map(|name| given("indexes")(&name));
    let long = names.iter().filter(|name| name.len() > NAME_BYTES_MAX);
    let long = long.map(|name| format!("the field `{name}` has a name of more than {NAME_BYTES_MAX} bytes"));
    columns.chain(indexes).chain(long).collect()
}

/// A document's columns, by name.
pub(super) fn columns(document: &Kind, config: &PostgresStore) -> Vec<Column> {
    let column = |(name, kind): (String, &Kind)| {
        let inferred = inferred(kind);
        let sql_type = config.columns.get(&name).cloned().unwrap_or_else(|| inferred.to_owned());
        let form = Form::of(&sql_type);
        Column { name, sql_type, inferred, form }
    };
    fields(document).map(column).collect()
}

fn inferred(kind: &Kind) -> &'static str {
    match shape(kind) {
        // Keeps whether it was written as 5 or as 5.0, by which programs tell the two types.
        Shape::Float if kind.contains_integer() => "numeric",
        Shape::Text => "text",
        Shape::Integer => "bigint",
        Shape::Float => "double precision",
        Shape::Boolean => "boolean",
        Shape::Time => "timestamptz",
        Shape::Object(_) | Shape::List(_) | Shape::Mixed => "jsonb",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::expr::Collection;

    #[test]
    fn names_that_no_program_sets_are_found() {
        let document = Kind::object(
            Collection::empty().with_known("n", Kind::integer()).with_known("l".repeat(64), Kind::bytes()),
        );
        let config = PostgresStore {
            columns: [("m".to_owned(), "int".to_owned()), ("n".to_owned(), "int".to_owned())].into(),
            indexes: vec![vec!["n".to_owned()], vec!["n".to_owned(), "at".to_owned()]],
            ..PostgresStore::default()
        };
        let found = check(&config, &document);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found[0].contains("columns` names the field `m`") && found[1].contains("indexes` names the field `at`")
        );
        assert!(found[2].contains("63 bytes"));
    }

    #[test]
    fn a_cast_leaves_a_texts_length_to_the_column() {
        for (column, expected) in [
            ("text COLLATE \"C\"", "text"),
            ("varchar(10)", "varchar"),
            ("character varying(10)[]", "character varying[]"),
            ("numeric(10,2)", "numeric"),
            ("timestamp(3) with time zone", "timestamp with time zone"),
            ("char(3)", "bpchar"),
            ("bit(3)", "varbit"),
            ("text[]", "text[]"),
            ("jsonb", "jsonb"),
        ] {
            assert_eq!(cast(column), expected);
        }
    }

    #[test]
    fn values_become_the_text_of_their_columns_types() {
        let document = Kind::object(Collection::empty().with_known("f", Kind::any()));
        let cell = |sql_type: &str, value: serde_json::Value| {
            let config =
                PostgresStore { columns: [("f".to_owned(), sql_type.to_owned())].into(), ..PostgresStore::default() };
            columns(&document, &config)[0].cell(&json::from_json(value, &Kind::any()))
        };
        let text = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(cell("text", "a\"b".into()), text("a\"b"));
        assert_eq!(cell("jsonb", "a\"b".into()), text(r#""a\"b""#));
        assert_eq!(cell("bigint", 5.into()), text("5"));
        assert_eq!(cell("numeric", 5.0.into()), text("5.0"));
        assert_eq!(cell("boolean", true.into()), text("true"));
        assert_eq!(cell("text[]", serde_json::Value::Null), Ok(None));
        let hostile = serde_json::json!(["a,b", "{}", "\\\"", null, "NULL", "", 7, {"n": [1]}]);
        assert_eq!(cell("text[]", hostile), text(r#"{"a,b","{}","\\\"",NULL,"NULL","","7","{\"n\":[1]}"}"#));
        assert_eq!(cell("jsonb[]", serde_json::json!(["a", null, {"n": 1}])), text(r#"{"\"a\"",NULL,"{\"n\":1}"}"#));
        assert_eq!(cell("int[][]", serde_json::json!([[1, 2], [3, null]])), text(r#"{{"1","2"},{"3",NULL}}"#));
        assert!(cell("text[]", "{a}".into()).unwrap_err().contains("`f` is no list"));
    }

    #[test]
    fn types_become_columns_and_are_read_as_they_were_inferred() {
        let document = Collection::empty()
            .with_known("at", Kind::timestamp().or_null())
            .with_known("code", Kind::bytes())
            .with_known("extra", Kind::object(Collection::any()))
            .with_known("n", Kind::integer())
            .with_known("ratio", Kind::float().or_integer())
            .with_known("tags", Kind::array(Collection::from_unknown(Kind::bytes())));
        let refined = [("code", "uuid"), ("tags", "text[]")].map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        let config = PostgresStore { columns: refined.into(), ..PostgresStore::default() };
        let found: Vec<_> =
            columns(&Kind::object(document), &config).iter().map(|c| (c.definition(), c.read())).collect();
        let expected = [
            ("\"at\" timestamptz", "\"at\""),
            ("\"code\" uuid", "\"code\"::text AS \"code\""),
            ("\"extra\" jsonb", "\"extra\""),
            ("\"n\" bigint", "\"n\""),
            ("\"ratio\" numeric", "\"ratio\""),
            ("\"tags\" text[]", "to_jsonb(\"tags\") AS \"tags\""),
        ];
        assert_eq!(found, expected.map(|(definition, read)| (definition.to_owned(), read.to_owned())));
    }
}
