//! What applying the projections' files would change, read model by read model: like a plan of infrastructure.

use crate::control::Generation;
use crate::event::Catalog;
use crate::expr::{Names, Program};
use crate::projection::{Compiled, Source};
use serde::Serialize;
use std::collections::BTreeSet;

/// What a file asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A read model that isn't there yet.
    Create,
    /// Other documents, or another place for them: a new generation.
    Rebuild,
    /// Other queries or prose, the same documents.
    InPlace,
    /// A live read model whose file is gone.
    Retire,
    /// Nothing.
    Nothing,
}

/// What is to be done about one read model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The read model.
    pub read_model: String,
    /// What.
    pub what: What,
    /// The live generation's number, if there is one.
    pub generation: Option<i32>,
    /// Why, a line each.
    pub why: Vec<String>,
    /// For a rebuild, the fields that may differ then; none if all may.
    pub fields: Option<Vec<String>>,
}

/// Compares files with what is live. `whole`: the files are all that there should be.
#[must_use]
pub fn changes(live: &[Generation], files: &[(Compiled, Source)], whole: bool, catalog: &Catalog) -> Vec<Change> {
    let mut all: Vec<Change> = files
        .iter()
        .map(|(compiled, source)| {
            let name = &compiled.projection.name.value;
            match live.iter().find(|generation| generation.read_model == *name) {
                Some(generation) => against(generation, compiled, source, catalog),
                None => change(name, What::Create, None, Vec::new()),
            }
        })
        .collect();
    let named = |name: &str| files.iter().any(|(compiled, _)| compiled.projection.name.value == name);
    let gone = live.iter().filter(|g| whole && !named(&g.read_model));
    all.extend(gone.map(|g| {
        change(&g.read_model, What::Retire, Some(g.generation), vec!["no file declares it any more".to_owned()])
    }));
    all.sort_by(|a, b| a.read_model.cmp(&b.read_model));
    all
}

fn change(read_model: &str, what: What, generation: Option<i32>, why: Vec<String>) -> Change {
    Change { read_model: read_model.to_owned(), what, generation, why, fields: None }
}

fn against(live: &Generation, new: &Compiled, source: &Source, catalog: &Catalog) -> Change {
    let number = Some(live.generation);
    if live.fingerprint == new.fingerprint() {
        if live.config == *source.text {
            return change(&live.read_model, What::Nothing, number, Vec::new());
        }
        return change(&live.read_model, What::InPlace, number, vec!["queries or prose changed".to_owned()]);
    }
    let frozen = Source { name: live.id().into(), text: live.config.as_str().into() };
    let mut change = change(&live.read_model, What::Rebuild, number, Vec::new());
    let Ok(old) = Compiled::new(&frozen, catalog) else {
        change.why.push("the projection as it was applied doesn't compile against these schemas".to_owned());
        return change;
    };
    let (why, fields) = outputs(&old, new);
    (change.why, change.fields) = (why, fields.map(|fields| fields.into_iter().collect()));
    change
}

fn with(fields: Option<BTreeSet<String>>, sets: Option<&Names>) -> Option<BTreeSet<String>> {
    fields.zip(sets).map(|(fields, sets)| fields.into_iter().chain(sets.iter().map(ToString::to_string)).collect())
}

/// Why the documents are others, and which of their fields may differ.
fn outputs(old: &Compiled, new: &Compiled) -> (Vec<String>, Option<BTreeSet<String>>) {
    let (was, is) = (&old.projection, &new.projection);
    let (mut why, mut fields) = (Vec::new(), Some(BTreeSet::new()));
    if was.sum_by != is.sum_by {
        why.push("`sum_by` changed: documents have other keys".to_owned());
        fields = None;
    }
    for event in was.on.keys().chain(is.on.keys()).collect::<BTreeSet<_>>() {
        let said = match (was.on.get(event), is.on.get(event)) {
            (Some(before), Some(after)) if before.value == after.value => continue,
            (Some(_), Some(_)) => format!("the program of {event} changed"),
            (Some(_), None) => format!("{event} is no longer taken"),
            _ => format!("{event} is taken too"),
        };
        why.push(said);
        let both = was.on.contains_key(event) && is.on.contains_key(event);
        for compiled in [old, new] {
            let Some(program) = compiled.program(event) else { continue };
            // What is deleted isn't set; with another event taken or not, documents may come and go.
            let deletes = compiled.projection.on.get(event).is_some_and(|text| text.value.contains("del("));
            let sets = program.sets().filter(|_| both && !deletes);
            fields = with(fields, sets);
        }
    }
    if format!("{:?}", was.store) != format!("{:?}", is.store) {
        let (from, to) = (was.store.name(), is.store.name());
        why.push(if from == to { format!("settings in {to} changed") } else { format!("moves from {from} to {to}") });
    }
    let sections = |p: &crate::projection::Projection| {
        let lookups: Vec<_> = p.lookup.iter().map(|(name, lookup)| (name.clone(), lookup.value.clone())).collect();
        let parents: Vec<_> = p.join.iter().map(|(name, ids)| (name.clone(), ids.value.clone())).collect();
        [
            ("lookup", format!("{lookups:?}")),
            ("join", format!("{parents:?}")),
            ("derive", format!("{:?}", p.derive.as_ref().map(|derive| &derive.value))),
            ("ttl", format!("{:?}", p.ttl.as_ref().map(|ttl| &ttl.value))),
            ("facts", p.facts.to_string()),
        ]
    };
    for ((name, before), (_, after)) in sections(was).into_iter().zip(sections(is)) {
        if before != after {
            why.push(format!("`{name}` changed"));
            fields = None;
        }
    }
    // What is looked up is what is there now.
    for event in is.on.keys().filter(|event| !new.asks(event).is_empty()) {
        let sets = new.program(event).and_then(Program::sets);
        fields = with(fields, sets);
    }
    if why.is_empty() {
        why.push("the expression language's release changed".to_owned());
    }
    (why, fields)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
