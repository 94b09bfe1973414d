//! Personal data: what comes from an event's field that its schema marks `personal` is followed into the document, and must be
//! named under `masks` there, so that whoever writes a projection decides how it is shown to those who may not read it.

use super::diagnostic::{Diagnosis, Finding, Source};
use super::{Compiled, Projection, verify};
use crate::event::{Catalog, EventType};
use crate::expr::{Flow, flows};
use serde_saphyr::Spanned;
use std::collections::{BTreeMap, BTreeSet};

/// What is passed from one field of a document to another, in steps.
const STEPS_MAX: usize = 8;

/// A field that holds personal data, and the event's field that it comes from.
type Personal = BTreeMap<String, String>;

/// The document's fields that personal data flows into, each with the event's field that it comes from.
#[must_use]
pub fn personal_fields(projection: &Projection, catalog: &Catalog) -> BTreeMap<String, String> {
    // By the aggregate whose part it is; all in one where there are no parts.
    let mut parts: BTreeMap<&str, Personal> = BTreeMap::new();
    let is_join = !projection.join.is_empty();
    for _ in 0..STEPS_MAX {
        let before = parts.clone();
        for (name, program) in &projection.on {
            let Some(known) = catalog.event(name) else { continue };
            let part = parts.entry(if is_join { &known.aggregate_type } else { "" }).or_default();
            for flow in flows(&program.value) {
                let origin = flow.from.iter().find_map(|from| origin(from, name, known, part));
                if let Some(origin) = origin.filter(|_| !flow.deleted) {
                    part.entry(field(&flow)).or_insert(origin);
                }
            }
        }
        if parts == before {
            break;
        }
    }
    let Some(derive) = &projection.derive else { return parts.into_values().flatten().collect() };
    derived(projection, &derive.value, &parts)
}

/// What of the parts' personal data a join's document shows.
fn derived(projection: &Projection, derive: &str, parts: &BTreeMap<&str, Personal>) -> Personal {
    let parents: BTreeMap<&str, &str> = projection
        .join
        .iter()
        .map(|(name, ids)| match &ids.value {
            super::ParentIds::Path(_) => (name.as_str(), name.as_str()),
            super::ParentIds::Named(named) => (name.as_str(), named.aggregate.as_str()),
        })
        .collect();
    let own = parts.iter().filter(|(aggregate, _)| !parents.values().any(|parent| parent == *aggregate));
    let mut document: Personal = own.flat_map(|(_, part)| part.clone()).collect();
    for flow in flows(derive) {
        if flow.deleted {
            document.retain(|name, _| *name != flow.field);
            continue;
        }
        let origin = flow.from.iter().find_map(|from| {
            if let Some(path) = from.strip_prefix('.') {
                return touching(&document, path);
            }
            let (parent, path) = from.strip_prefix('%')?.split_once('.')?;
            // Of many parents, the ids stand between.
            let parent = parent.trim_end_matches("[]");
            touching(parts.get(*parents.get(parent)?)?, path)
        });
        if let Some(origin) = origin {
            document.entry(field(&flow)).or_insert(origin);
        }
    }
    document
}

fn field(flow: &Flow) -> String {
    flow.field.trim_start_matches("[].").to_owned()
}

/// Where a source of a flow comes from, if that is personal.
fn origin(from: &str, name: &str, event: &EventType, part: &Personal) -> Option<String> {
    if let Some(path) = from.strip_prefix("%data.") {
        return event.personal.iter().find(|personal| touch(personal, path)).map(|p| format!("{name}.{p}"));
    }
    touching(part, from.strip_prefix('.')?)
}

fn touching(part: &Personal, path: &str) -> Option<String> {
    part.iter().find(|(name, _)| touch(name, path)).map(|(_, origin)| origin.clone())
}

/// Whether one is the other, or within it.
fn touch(a: &str, b: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    within(a, b) || within(b, a)
}

/// Personal data without a word on how it is shown, and words on fields that there aren't.
///
/// Not part of compiling: what is frozen goes on as it was applied.
#[must_use]
pub fn check_masks(source: &Source, compiled: &Compiled, catalog: &Catalog) -> Vec<Finding> {
    let projection = &compiled.projection;
    let names: BTreeSet<String> = verify::names(&compiled.document).into_iter().collect();
    let mut findings = Vec::new();
    for name in projection.masks.keys() {
        if !names.contains(name.split(['.', '[']).next().unwrap_or_default()) {
            let all = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!("`masks` names `{name}`, which no program sets");
            findings.push(Finding::at_entry(source, name, message, format!("there are {all}")).of(Diagnosis::Masks));
        }
    }
    for (field, origin) in personal_fields(projection, catalog) {
        if names.contains(field.split(['.', '[']).next().unwrap_or_default())
            && !projection.masks.keys().any(|name| touch(name, &field))
        {
            let message =
                format!("`{field}` holds personal data: the schema marks `{origin}` so, and `masks` doesn't name it");
            let help = format!(
                "say how those see it who may not read it: under `masks:`, `{field}: hide`, `initial` or `show`; or leave it out"
            );
            let at = at(projection, &field);
            findings.push(Finding::at(source, at, message, help).of(Diagnosis::Masks));
        }
    }
    findings
}

/// The program that sets a field.
fn at(projection: &Projection, wanted: &str) -> serde_saphyr::Location {
    let sets = |program: &&Spanned<String>| flows(&program.value).iter().any(|flow| field(flow) == wanted);
    let program = projection.derive.iter().chain(projection.on.values()).find(sets);
    program.map_or(projection.name.defined, |program| program.defined)
}
