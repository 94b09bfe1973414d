//! The forms in which an answer can be had: JSON, CSV, a stream of events.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use serde_json::{Map, Value as Json};

/// What the caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Csv,
    Events,
}

/// What `Accept` likes best of what there is; JSON if it names none.
pub(crate) fn wanted(headers: &HeaderMap) -> Form {
    let texts = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let mut best = (Form::Json, 0.0);
    for range in texts.flat_map(|text| text.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "text/csv" => Form::Csv,
            "text/event-stream" => Form::Events,
            "application/json" | "application/*" | "*/*" => Form::Json,
            _ => continue,
        };
        let quality = parts.find_map(|p| p.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
        if quality > best.1 {
            best = (form, quality);
        }
    }
    best.0
}

/// An answer's list as a table: the answer itself if it is a list, else its first member that is one, else the answer as one row.
/// Objects within a row become columns `a.b`; lists stand as JSON. A text that a spreadsheet would take for a formula gets a `'` before it.
pub(crate) fn csv(body: &Json) -> Vec<u8> {
    let rows: Vec<&Json> = match body {
        Json::Array(rows) => rows.iter().collect(),
        Json::Object(fields) => match fields.values().find_map(Json::as_array) {
            Some(rows) => rows.iter().collect(),
            None => vec![body],
        },
        Json::Null => Vec::new(),
        _ => vec![body],
    };
    let rows: Vec<Map<String, Json>> = rows.into_iter().map(flat).collect();
    let mut columns: Vec<&String> = Vec::new();
    for name in rows.iter().flat_map(Map::keys) {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).flexible(true).from_writer(Vec::new());
    let record = |row: &Map<String, Json>| columns.iter().map(|name| cell(row.get(*name))).collect::<Vec<_>>();
    // Writing into memory can't fail.
    if !columns.is_empty() {
        _ = writer.write_record(&columns);
    }
    rows.iter().for_each(|row| _ = writer.write_record(record(row)));
    writer.into_inner().unwrap_or_default()
}

fn flat(row: &Json) -> Map<String, Json> {
    fn add(into: &mut Map<String, Json>, name: String, value: &Json) {
        match value {
            Json::Object(fields) if !fields.is_empty() => {
                fields.iter().for_each(|(inner, value)| add(into, format!("{name}.{inner}"), value));
            }
            value => _ = into.insert(name, value.clone()),
        }
    }
    let mut into = Map::new();
    match row {
        Json::Object(fields) => fields.iter().for_each(|(name, value)| add(&mut into, name.clone(), value)),
        value => _ = into.insert("value".into(), value.clone()),
    }
    into
}

fn cell(value: Option<&Json>) -> String {
    match value {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_liked_best_is_given() {
        let wants = |text: &str| wanted(&HeaderMap::from_iter([(ACCEPT, text.parse().unwrap())]));
        assert_eq!(wanted(&HeaderMap::new()), Form::Json);
        assert_eq!(wants("text/csv"), Form::Csv);
        assert_eq!(wants("text/event-stream"), Form::Events);
        assert_eq!(wants("text/html, */*;q=0.8"), Form::Json);
        assert_eq!(wants("application/json;q=0.5, text/csv;q=0.9"), Form::Csv);
        assert_eq!(wants("text/csv;q=0"), Form::Json);
    }

    #[test]
    fn a_list_is_a_table() {
        let body = json!({"page": 1, "orders": [
            {"id": "a", "who": {"name": "Ann \"x\", Jr"}, "tags": ["p", "q"], "n": -3},
            {"id": "=cmd()", "who": null, "more": true},
        ]});
        let expected = "id,who.name,tags,n,who,more\r\na,\"Ann \"\"x\"\", Jr\",\"[\"\"p\"\",\"\"q\"\"]\",-3,,\r\n'=cmd(),,,,,true\r\n";
        assert_eq!(String::from_utf8(csv(&body)).unwrap(), expected);
        assert_eq!(csv(&json!({"a": 1})), b"a\r\n1\r\n");
        assert_eq!(csv(&json!([])), b"");
    }
}
