//! Texts that fit one that is still being typed.
//!
//! Documents are found by the beginnings of words that a mapping of type `search_as_you_type` keeps, slips of the pen forgiven; which of a
//! document's texts it was found by, the highlighter knows. All of it is alike in Elasticsearch 7.17 and OpenSearch.

use super::fields::Fields;
use super::parameters::Parameters;
use super::verify::undeclared;
use crate::expr::{Kind, Object, Value};
use crate::projection::{Query, Suggest};
use serde_json::{Map, Value as Json, json};
use serde_saphyr::Location;
use std::collections::BTreeSet;

/// Texts that are given at most.
const TEXTS_MAX: usize = 10;
/// Documents that are read for them, where `paging` doesn't say how many.
const DOCUMENTS: i64 = 20;
/// Beyond this a text is cut.
const TEXT_CHARS_MAX: u32 = 1_000;

/// The body of the search.
pub(super) fn body(suggest: &Suggest, fields: Fields<'_>) -> Map<String, Json> {
    let field = suggest.field.value.as_str();
    let text = json!({"param": suggest.text.value});
    let (beginnings, analyzer) = beginnings(fields, field).unwrap_or_else(|| (field.to_owned(), "standard".to_owned()));
    let body = json!({
        "query": {"bool": {"minimum_should_match": 1, "should": [
            {"match_bool_prefix": {field: {"query": text, "operator": "and", "boost": 4}}},
            {"match": {field: {"query": text, "operator": "and", "fuzziness": "AUTO", "max_expansions": 10}}},
            // Its own analyzer would cut what was typed into beginnings, of which each fits far too much.
            {"match": {format!("{beginnings}._index_prefix"): {
                "query": text, "analyzer": analyzer, "operator": "and", "fuzziness": "AUTO", "max_expansions": 10,
            }}},
        ]}},
        "sort": [{"_score": "desc"}],
        "size": DOCUMENTS,
        "track_total_hits": false,
        "_source": [field],
        "highlight": {"pre_tags": [""], "post_tags": [""], "fields": {
            field: {"number_of_fragments": 5, "fragment_size": TEXT_CHARS_MAX},
        }},
    });
    body.as_object().cloned().unwrap_or_default()
}

/// The form of a field that keeps the beginnings of words, and how those words were made.
fn beginnings(fields: Fields<'_>, field: &str) -> Option<(String, String)> {
    let mapping = fields.mapping(field)?;
    let forms = mapping.get("fields").and_then(Json::as_object).into_iter().flatten();
    let forms = forms.map(|(name, form)| (format!("{field}.{name}"), form));
    let is_typed = |form: &Json| form.get("type").and_then(Json::as_str) == Some("search_as_you_type");
    let (path, form) = [(field.to_owned(), mapping)].into_iter().chain(forms).find(|(_, form)| is_typed(form))?;
    let analyzer = form.get("search_analyzer").or(form.get("analyzer")).and_then(Json::as_str).unwrap_or("standard");
    Some((path, analyzer.to_owned()))
}

/// All that is wrong, each with its place.
pub(super) fn findings(query: &Query, parameters: &Parameters, fields: Fields<'_>) -> Vec<(Location, String)> {
    let Some(Suggest { field, text }) = &query.suggest else { return Vec::new() };
    let mut wrong = Vec::new();
    if query.sort.is_some() || query.one || query.paging.as_ref().is_some_and(|paging| paging.cursor.is_some()) {
        let message = "suggest: texts come best first, and few; leave out `sort`, `one` and `cursor`".to_owned();
        wrong.push((query.get.defined, message));
    }
    if let Some(unknown) = fields.unknown(&field.value) {
        wrong.push((field.defined, format!("suggest: {unknown}")));
    } else if beginnings(fields, &field.value).is_none() {
        let message = format!(
            "suggest: `{0}` doesn't keep the beginnings of its words; map it under `store.elasticsearch.fields` as \
             `{0}: {{ type: text, fields: {{ typed: {{ type: search_as_you_type }} }} }}`",
            field.value
        );
        wrong.push((field.defined, message));
    }
    if parameters.get(&text.value).is_none() {
        wrong.push((text.defined, format!("suggest: {}", undeclared(&text.value))));
    } else if parameters.may_be_absent(&text.value, false) {
        wrong.push((text.defined, format!("suggest: `{}` may be absent; let it be required", text.value)));
    }
    wrong
}

/// The texts that fit, of the best document first; of a document that was found by letters alone, all its texts.
pub(super) fn texts(suggest: &Suggest, hits: &[Value]) -> Vec<Value> {
    let path = suggest.field.value.as_str();
    let (mut texts, mut seen) = (Vec::new(), BTreeSet::new());
    for hit in hits.iter().filter_map(Value::as_object) {
        let mut fit = Vec::new();
        let highlight = hit.get("_highlight").and_then(Value::as_object);
        collect(highlight.and_then(|by_field| by_field.get(path)), &[], &mut fit);
        if fit.is_empty() {
            let steps: Vec<&str> = path.split('.').collect();
            collect_in(hit, &steps, &mut fit);
        }
        texts.extend(fit.into_iter().filter(|text| seen.insert(text.to_string_lossy().into_owned())).cloned());
    }
    texts.truncate(TEXTS_MAX);
    texts
}

fn collect_in<'a>(fields: &'a Object, steps: &[&str], texts: &mut Vec<&'a Value>) {
    if let [first, rest @ ..] = steps {
        collect(fields.get(*first), rest, texts);
    }
}

fn collect<'a>(value: Option<&'a Value>, steps: &[&str], texts: &mut Vec<&'a Value>) {
    match value {
        Some(text @ (Value::Bytes(_) | Value::String(_))) if steps.is_empty() => texts.push(text),
        Some(Value::Array(items)) => items.iter().for_each(|item| collect(Some(item), steps, texts)),
        Some(Value::Object(fields)) => collect_in(fields, steps, texts),
        _ => {}
    }
}

/// The type of [`texts`].
pub(super) fn kind() -> Kind {
    Kind::array(crate::expr::Collection::empty().with_unknown(Kind::bytes()))
}

#[cfg(test)]
#[path = "suggest_tests.rs"]
mod tests;
