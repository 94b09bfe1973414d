//! What of each document a search shows, where it declares that: always the same fields, so that callers find null rather than nothing.

use super::fields::Fields;
use crate::expr::{Collection, Kind, Object, Value};
use crate::projection::Query;
use serde_json::Value as Json;
use serde_saphyr::Location;

/// What a hit has in place of the engine's `_highlight`.
const HIGHLIGHT: &str = "highlight";

fn highlights(query: &Query) -> bool {
    query.search.as_ref().is_some_and(|body| body.get("highlight").is_some())
}

/// A hit as it is declared.
pub(super) fn shown(query: &Query, hit: Value) -> Value {
    let Value::Object(mut all) = hit else { return hit };
    let mut shown = Object::new();
    for field in &query.fields {
        shown.insert(field.value.as_str().into(), all.remove(field.value.as_str()).unwrap_or(Value::Null));
    }
    if highlights(query) {
        shown.insert(HIGHLIGHT.into(), all.remove("_highlight").unwrap_or(Value::Null));
    }
    Value::Object(shown)
}

/// The type of [`shown`].
pub(super) fn kind(query: &Query, document: &Kind) -> Kind {
    let known = document.as_object().map(Collection::known);
    let of = |name: &str| known.and_then(|known| known.get(&name.into())).cloned().unwrap_or_else(Kind::any);
    let fields = query.fields.iter().fold(Collection::empty(), |all, field| {
        let kind = of(&field.value);
        let kind = if kind.contains_undefined() { kind.without_undefined().or_null() } else { kind };
        all.with_known(field.value.as_str(), kind)
    });
    let highlight = Kind::object(Collection::any()).or_null();
    Kind::object(if highlights(query) { fields.with_known(HIGHLIGHT, highlight) } else { fields })
}

/// What the engine needs to send.
pub(super) fn source(query: &Query) -> Option<Json> {
    (!query.fields.is_empty()).then(|| query.fields.iter().map(|field| field.value.as_str()).collect())
}

/// All that is wrong, each with its place.
pub(super) fn findings(query: &Query, fields: Option<Fields<'_>>) -> Vec<(Location, String)> {
    if !query.fields.is_empty() && (query.search.is_none() || query.one) {
        return vec![(query.get.defined, "fields: they are those of the hits of a `search`".to_owned())];
    }
    let Some(all) = fields else { return Vec::new() };
    let wrong = query.fields.iter().filter_map(|field| {
        let message = if field.value.contains('.') {
            format!("`{}` is within a field; name the whole field, and take its part in `response`", field.value)
        } else if field.value == HIGHLIGHT && highlights(query) {
            "`highlight` is where the highlights come; give the field another name in `response`, without `fields`"
                .to_owned()
        } else {
            all.unknown(&field.value)?
        };
        Some((field.defined, format!("fields: {message}")))
    });
    wrong.collect()
}
