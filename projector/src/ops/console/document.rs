//! How one document came to be: each event that changed it, with what it changed.

use super::super::admin::{Admin, history};
use super::masks::masked;
use super::overview::unknown;
use crate::verbs::trace::Trace;
use maud::{Markup, html};
use serde_json::{Map, Value as Json};
use std::time::Duration;

/// Where a document has many aggregates all of history is read: that is for the command line.
const WITHIN: Duration = Duration::from_secs(15);

pub(super) async fn history_of(admin: &Admin, name: &str, key: &str) -> Markup {
    match tokio::time::timeout(WITHIN, Box::pin(history(admin, name, key))).await {
        Ok(Ok(trace)) => shown(&trace),
        Ok(Err(error)) => unknown(&error.to_string()),
        Err(_) => unknown(&format!(
            "its history isn't read within {} s: `projector trace {name} {key}` takes its time",
            WITHIN.as_secs()
        )),
    }
}

pub(super) fn shown(trace: &Trace) -> Markup {
    let masks = &trace.compiled.projection.masks;
    let shown = |document: &Json| masked(document.clone(), masks);
    html! {
        @if trace.steps.is_empty() { p { "No event has made such a document." } }
        @else if trace.same { p .said { "What is stored is what these events come to." } }
        @else { p .said .wrong { "What is stored is not what these events come to." } }
        ol .steps {
            @for step in &trace.steps {
                li {
                    strong { (step.event) } " " span .quiet { (step.aggregate) ", " (step.at) }
                    (changes(&shown(&step.before), &shown(&step.after)))
                }
            }
        }
        @if !trace.steps.is_empty() {
            details { summary { "As it is stored" } pre tabindex="0" { (format!("{:#}", shown(&trace.stored))) } }
        }
    }
}

/// What is another after than before, by field.
fn changes(before: &Json, after: &Json) -> Markup {
    let nothing = Map::new();
    let (old, new) = (before.as_object().unwrap_or(&nothing), after.as_object().unwrap_or(&nothing));
    let changed = new.iter().filter(|(name, value)| old.get(*name) != Some(value));
    html! {
        ul {
            @if after.is_null() { li { "the document is deleted" } }
            @for (name, value) in changed {
                li {
                    code { (name) } ": "
                    @if let Some(was) = old.get(name) { del { (was) } " → " }
                    ins { (value) }
                }
            }
            @for name in old.keys().filter(|name| !new.contains_key(*name) && !after.is_null()) {
                li { code { (name) } " is gone" }
            }
        }
    }
}
