//! Filters and facets as they are declared, put into the search engines' terms.
//!
//! A facet shows how much each choice of its own would find, so it counts what the query finds under all filters but those on its own field.
//! Hence such filters can't stand in the query, whose hits are what facets count: they go into `post_filter`, which hits pass after they were
//! counted, and again into the `filter` of each other facet. A filter on a field without a facet is the same for all, and stands in the query.
//!
//! What is made are templates with `{param: name}` nodes, as a body written by hand has them: values are bound where those are, and an absent
//! one takes its clause away.

use super::fields::Fields;
use super::parameters::Parameters;
use super::verify::undeclared;
use crate::expr::{Collection, Kind};
use crate::projection::{Facet, Filter, Parameter, ParameterType, Query};
use serde_json::{Map, Number, Value as Json, json};
use serde_saphyr::{Location, Spanned};
use std::collections::BTreeMap;

/// The parts of a calendar that all search engines cut alike, none shorter than a day.
const INTERVALS: [&str; 5] = ["day", "week", "month", "quarter", "year"];
/// Values that a facet counts when it doesn't say how many.
const SIZE_DEFAULT: u32 = 10;
const SIZE_MAX: u32 = 1_000;
const BOUNDS_MAX: usize = 100;
/// The aggregation within a facet's filter.
const COUNTS: &str = "counts";

/// What declared filters and facets add to a search.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Made {
    /// Clauses of the query, beside what was written.
    pub(super) filters: Vec<Json>,
    /// Entries of the body.
    pub(super) body: Map<String, Json>,
}

impl Made {
    pub(super) fn of(query: &Query, fields: Fields<'_>) -> Self {
        let has_facet = |field: &str| query.facets.values().any(|facet| facet.field.value == field);
        let clauses = |with: &dyn Fn(&str) -> bool| -> Vec<Json> {
            let all = filters(query).flat_map(|(name, parameter, filter)| {
                conditions(filter).map(move |(compare, field)| (name, parameter, compare, field.value.as_str()))
            });
            let wanted = all.filter(|(.., field)| with(field));
            wanted
                .map(|(name, parameter, compare, field)| {
                    let zone = query.time_zone.as_deref().filter(|_| parameter.kind == ParameterType::Date);
                    let is_time = fields.kind(field).is_some_and(|kind| kind.contains_timestamp());
                    clause(name, compare, field, zone.filter(|_| is_time))
                })
                .collect()
        };
        let mut body = Map::new();
        if !query.facets.is_empty() {
            let counts = |(name, facet): (&String, &Facet)| {
                let own = facet.field.value.as_str();
                let others = clauses(&|field| field != own && has_facet(field));
                let counts =
                    json!({"filter": {"bool": {"filter": others}}, "aggs": {COUNTS: aggregation(query, facet)}});
                (name.clone(), counts)
            };
            body.insert("aggs".into(), Json::Object(query.facets.iter().map(counts).collect()));
            body.insert("post_filter".into(), json!({"bool": {"filter": clauses(&has_facet)}}));
        }
        Self { filters: clauses(&|field| !has_facet(field)), body }
    }
}

/// The parameters that filter.
fn filters(query: &Query) -> impl Iterator<Item = (&str, &Parameter, &Filter)> {
    query.parameters.iter().filter_map(|(name, parameter)| Some((name.as_str(), parameter, parameter.filter.as_ref()?)))
}

/// How a filter compares, and which field with its parameter.
fn conditions(filter: &Filter) -> impl Iterator<Item = (&'static str, &Spanned<String>)> {
    let Filter { is, gt, gte, lt, lte } = filter;
    let all = [("is", is), ("gt", gt), ("gte", gte), ("lt", lt), ("lte", lte)];
    all.into_iter().filter_map(|(compare, field)| Some((compare, field.as_ref()?)))
}

/// `zone` is where the parameter's day begins, if not in UTC.
fn clause(parameter: &str, compare: &str, field: &str, zone: Option<&str>) -> Json {
    let value = json!({"param": parameter});
    match (compare, zone) {
        ("is", _) => json!({"term": {field: value}}),
        (_, None) => json!({"range": {field: {compare: value}}}),
        (_, Some(zone)) => json!({"range": {field: {compare: value, "time_zone": zone}}}),
    }
}

fn aggregation(query: &Query, facet: &Facet) -> Json {
    let field = &facet.field.value;
    if let Some(interval) = &facet.interval {
        let zone = query.time_zone.as_deref().unwrap_or("UTC");
        return json!({"date_histogram": {
            "field": field, "calendar_interval": interval, "time_zone": zone, "format": "yyyy-MM-dd", "min_doc_count": 1,
        }});
    }
    if facet.bounds.is_empty() {
        return json!({"terms": {"field": field, "size": facet.size.unwrap_or(SIZE_DEFAULT)}});
    }
    let named = |(n, (from, to)): (usize, (Option<&Number>, Option<&Number>))| {
        let mut range = Map::from_iter([("key".to_owned(), n.to_string().into())]);
        range.extend(from.map(|from| ("from".to_owned(), from.clone().into())));
        range.extend(to.map(|to| ("to".to_owned(), to.clone().into())));
        Json::Object(range)
    };
    let ranges: Json = ranges(&facet.bounds).enumerate().map(named).collect();
    json!({"range": {"field": field, "ranges": ranges}})
}

/// From bound to bound, the first and the last open.
fn ranges(bounds: &[Number]) -> impl Iterator<Item = (Option<&Number>, Option<&Number>)> {
    let from = std::iter::once(None).chain(bounds.iter().map(Some));
    from.zip(bounds.iter().map(Some).chain(std::iter::once(None)))
}

/// The counts of an answer in plain lists, by facet.
pub(super) fn counted(facets: &BTreeMap<String, Facet>, answer: &Json) -> Json {
    let of = |(name, facet): (&String, &Facet)| {
        let buckets = answer[name][COUNTS]["buckets"].as_array().into_iter().flatten();
        (name.clone(), buckets.map(|bucket| plain(facet, bucket)).collect())
    };
    Json::Object(facets.iter().map(of).collect())
}

fn plain(facet: &Facet, bucket: &Json) -> Json {
    let (key, count) = (&bucket["key"], &bucket["doc_count"]);
    if facet.interval.is_some() {
        return json!({"from": bucket["key_as_string"], "count": count});
    }
    if !facet.bounds.is_empty() {
        let at = key.as_str().and_then(|n| n.parse().ok());
        let (from, to) = at.and_then(|at| ranges(&facet.bounds).nth(at)).unwrap_or_default();
        return json!({"from": from, "to": to, "count": count});
    }
    // The text of what isn't text: truth is counted as 1, time as milliseconds.
    let value = match bucket["key_as_string"].as_str() {
        None => key.clone(),
        Some("true") => true.into(),
        Some("false") => false.into(),
        Some(text) => text.into(),
    };
    json!({"value": value, "count": count})
}

/// The type of [`counted`].
pub(super) fn kind(facets: &BTreeMap<String, Facet>, fields: Fields<'_>) -> Kind {
    let list = |facet: &Facet| {
        let bucket = Collection::empty().with_known("count", Kind::integer());
        let bucket = if facet.interval.is_some() {
            bucket.with_known("from", Kind::bytes())
        } else if facet.bounds.is_empty() {
            bucket.with_known("value", value_kind(fields.kind(&facet.field.value)))
        } else {
            let is_whole = facet.bounds.iter().all(|bound| bound.is_i64());
            let bound = if is_whole { Kind::integer() } else { Kind::integer().or_float() };
            bucket.with_known("from", bound.clone().or_null()).with_known("to", bound.or_null())
        };
        Kind::array(Collection::empty().with_unknown(Kind::object(bucket)))
    };
    let known = |all: Collection<_>, (name, facet): (&String, &Facet)| all.with_known(name.as_str(), list(facet));
    Kind::object(facets.iter().fold(Collection::empty(), known))
}

fn value_kind(field: Option<Kind>) -> Kind {
    let Some(mut kind) = field.map(|kind| kind.without_undefined()) else { return Kind::any().without_undefined() };
    kind.remove_null();
    if kind.contains_timestamp() { Kind::bytes() } else { kind }
}

/// All that is wrong, each with its place.
pub(super) fn findings(query: &Query, parameters: &Parameters, fields: Option<Fields<'_>>) -> Vec<(Location, String)> {
    let mut wrong = Vec::new();
    let searches = query.search.is_some() || query.suggest.is_some();
    let place = query.get.defined;
    if !searches && let Some((name, ..)) = filters(query).next() {
        wrong.push((place, format!("parameter `{name}`: a `filter` goes with `search` or `suggest`")));
    }
    if !query.facets.is_empty() && (query.search.is_none() || query.one) {
        wrong.push((place, "facets: they go with the hits of a `search`".to_owned()));
    }
    let Some(fields) = fields.filter(|_| searches) else { return wrong };
    for (name, _, filter) in filters(query) {
        let named = |(at, message)| (at, format!("parameter `{name}`: {message}"));
        if conditions(filter).next().is_none() {
            wrong.push(named((
                place,
                "its `filter` is empty; write `is`, `gt`, `gte`, `lt` or `lte`, and a field".to_owned(),
            )));
        }
        wrong.extend(conditions(filter).filter_map(|(compare, field)| of_condition(compare, field, fields)).map(named));
    }
    for (name, facet) in &query.facets {
        let named = |(at, message)| (at, format!("facet `{name}`: {message}"));
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let message = "its name is letters, digits and `_`, as programs and search engines take it".to_owned();
            wrong.push(named((facet.field.defined, message)));
        }
        wrong.extend(of_facet(facet, parameters, fields).map(named));
    }
    let written = query.search.as_ref().filter(|_| !query.facets.is_empty());
    for name in ["aggs", "post_filter"].into_iter().filter(|name| written.is_some_and(|body| body.get(name).is_some()))
    {
        wrong.push((
            place,
            format!("search: `{name}` is what the `facets` make; leave it out, or write the facets by hand, too"),
        ));
    }
    wrong
}

fn of_condition(compare: &str, field: &Spanned<String>, fields: Fields<'_>) -> Option<(Location, String)> {
    let unknown = fields.unknown(&field.value);
    let message = unknown.or_else(|| (compare == "is" && is_words(fields, &field.value)).then(|| {
        format!("`{0}` is kept as words, of which none is the whole value; match them under `search`, or give its mapping {KEYWORD} and filter by `{0}.keyword`", field.value)
    }))?;
    Some((field.defined, message))
}

/// A form of a text that is one value.
const KEYWORD: &str = "`fields: { keyword: { type: keyword } }`";

fn is_words(fields: Fields<'_>, field: &str) -> bool {
    fields.mapped(field).is_some_and(|kind| ["text", "match_only_text", "search_as_you_type"].contains(&kind))
}

fn of_facet(facet: &Facet, parameters: &Parameters, fields: Fields<'_>) -> impl Iterator<Item = (Location, String)> {
    let Facet { field, size, interval, bounds } = facet;
    let name = &field.value;
    let mut wrong = Vec::new();
    let ways = [size.is_some(), interval.is_some(), !bounds.is_empty()];
    if ways.into_iter().filter(|is| *is).count() > 1 {
        wrong.push("`size`, `interval` and `bounds` count in different ways; write one of them".to_owned());
    }
    if let Some(unknown) = fields.unknown(name) {
        wrong.push(unknown);
    } else if interval.is_some() && !holds(fields, name, &["date", "date_nanos"], Kind::contains_timestamp) {
        wrong.push(format!("`{name}` is no time, and only times have an `interval`"));
    } else if !bounds.is_empty()
        && !holds(fields, name, &NUMBERS, |kind| kind.contains_integer() || kind.contains_float())
    {
        wrong.push(format!("`{name}` is no number, and only numbers have `bounds`"));
    } else if is_words(fields, name) {
        wrong.push(format!(
            "`{name}` is kept as words, which can't be counted as values; give its mapping {KEYWORD} and count `{name}.keyword`"
        ));
    }
    if size.is_some_and(|size| !(1..=SIZE_MAX).contains(&size)) {
        wrong.push(format!("`size` lies from 1 to {SIZE_MAX}"));
    }
    let rises = |pair: &[Number]| pair[0].as_f64() < pair[1].as_f64();
    if bounds.len() > BOUNDS_MAX || !bounds.windows(2).all(rises) {
        wrong.push(format!("`bounds` are at most {BOUNDS_MAX} numbers, each above the one before"));
    }
    wrong.extend(interval.as_ref().and_then(|interval| of_interval(interval, parameters)));
    wrong.into_iter().map(|message| (field.defined, message))
}

const NUMBERS: [&str; 9] =
    ["long", "integer", "short", "byte", "unsigned_long", "double", "float", "half_float", "scaled_float"];

/// Whether a field is mapped as one of these types, or, where the file doesn't say how, holds such values.
fn holds(fields: Fields<'_>, field: &str, mapped: &[&str], inferred: impl Fn(&Kind) -> bool) -> bool {
    match fields.mapped(field) {
        Some(kind) => mapped.contains(&kind),
        None => fields.kind(field).is_some_and(|kind| inferred(&kind)),
    }
}

fn of_interval(interval: &Json, parameters: &Parameters) -> Option<String> {
    let expected = format!("one of {}, or `{{ param: name }}`", INTERVALS.join(", "));
    let Some(name) = super::template::parameter_of(interval) else {
        let is_one = interval.as_str().is_some_and(|text| INTERVALS.contains(&text));
        return (!is_one).then(|| format!("`interval` is {interval}, expected {expected}"));
    };
    let Some(parameter) = parameters.get(name) else { return Some(undeclared(name)) };
    if parameter.values.is_empty() || !parameter.values.iter().all(|value| INTERVALS.contains(&value.as_str())) {
        return Some(format!("`{name}` says the interval, so its `values` must be among {}", INTERVALS.join(", ")));
    }
    // An aggregation without an interval would be refused by the server.
    parameters
        .may_be_absent(name, false)
        .then(|| format!("`{name}` may be absent; give it a default, or let it be required"))
}

#[cfg(test)]
#[path = "facets_tests.rs"]
mod tests;
