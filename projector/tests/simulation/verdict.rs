//! Whether what a world came to is right: by the oracle, but for what a broken source spoilt, which must have been named aloud.

use super::is_member;
use super::owner::Sim;
use super::world::{Fact, Oracle, REFUSED, World};
use projector::expr::Value;
use projector::projection::ReadModelKind;
use std::collections::{BTreeMap, BTreeSet};

pub fn only_poison_is_parked(sim: &Sim<'_>, world: &World) -> Result<(), String> {
    // A source that breaks the order may bring an event late, and again.
    let orderly = |id: &uuid::Uuid| !world.facts.iter().any(|f| f.id == *id && world.disturbed.contains(&f.loan));
    if let Some(again) = sim.store.parked_again.iter().find(|id| orderly(id)) {
        return Err(format!("{again} was parked again after it was settled"));
    }
    for id in &sim.store.loud {
        let Some(fact) = world.facts.iter().find(|fact| fact.id == *id) else { continue };
        // A document is refused for its parent's part too, whichever event it is that brings them together.
        let by_parent = sim.compiled.kind == ReadModelKind::Join
            && world.facts.iter().any(|fact| is_member(&fact.loan) && fact.days == Some(REFUSED));
        if !fact.garbled && fact.days != Some(REFUSED) && !world.disturbed.contains(&fact.loan) && !by_parent {
            let reason = sim.store.letters.get(id).and_then(|letter| letter.parked.reason.clone());
            return Err(format!("{} {} was parked, and is no poison: {reason:?}", fact.loan, fact.sequence));
        }
    }
    Ok(())
}

pub fn compare(sim: &Sim<'_>, world: &World) -> Result<(), String> {
    let oracle = Oracle::new(world, &sim.skipped);
    let documents: BTreeMap<_, _> =
        sim.store.documents.iter().filter_map(|(key, d)| d.fields.as_ref().map(|f| (key.as_str(), f))).collect();
    let number =
        |fields: &projector::expr::Object, name: &str| fields.get(name).and_then(Value::as_integer).unwrap_or(0);
    match sim.compiled.kind {
        ReadModelKind::Join => return compare_join(sim, world),
        ReadModelKind::Entity => {
            let loans: BTreeSet<&str> =
                oracle.loans.keys().map(String::as_str).chain(documents.keys().copied()).collect();
            for loan in loans {
                let expected = oracle.loans.get(loan).cloned();
                let history = |f: &projector::expr::Object| -> Vec<i64> {
                    f.get("history")
                        .and_then(Value::as_array)
                        .unwrap()
                        .iter()
                        .map(|v| v.as_integer().unwrap())
                        .collect()
                };
                let found = documents.get(loan).map(|f| (history(f), number(f, "days")));
                // A source that breaks the order is named aloud, unless the owner has lost its memory of it; what it spoilt can't
                // be known here.
                let loud = world.facts.iter().any(|fact| fact.loan == loan && sim.store.loud.contains(&fact.id));
                let named = world.disturbed.contains(loan) && (loud || sim.cold);
                if found != expected && !named {
                    return Err(format!("{loan}: expected {expected:?}, found {found:?}"));
                }
            }
        }
        kind => {
            let wrong = if kind == ReadModelKind::Facts {
                let id = |key: &str| key.split('/').next().unwrap().parse().unwrap();
                let rows: BTreeMap<uuid::Uuid, i64> =
                    documents.iter().map(|(key, f)| (id(key), number(f, "days"))).collect();
                let missing: Vec<_> = world
                    .facts
                    .iter()
                    .filter(|f| oracle.rows.contains_key(&f.id) && !rows.contains_key(&f.id))
                    .collect();
                // Of an event given up, rows may have been written before the one ahead of it was refused.
                let given_up = |id: &uuid::Uuid| sim.skipped.contains_key(id);
                let extra: Vec<_> = rows.keys().filter(|id| !oracle.rows.contains_key(*id) && !given_up(id)).collect();
                let wrong = || format!("missing {missing:?}, too many {extra:?}");
                (!missing.is_empty() || !extra.is_empty() || documents.len() != rows.len()).then(wrong)
            } else {
                let found =
                    documents.iter().map(|(key, f)| ((*key).to_owned(), (number(f, "n"), number(f, "days")))).collect();
                (oracle.shelves != found).then(|| format!("expected {:?}, found {found:?}", oracle.shelves))
            };
            // With a broken order, an owner who lost its memory of it can't tell a late event from an old one; nor can one that has
            // parked the aggregate, which is loud enough.
            let loud = |fact: &Fact| world.disturbed.contains(&fact.loan) && sim.store.loud.contains(&fact.id);
            let excused = !world.disturbed.is_empty() && (sim.cold || world.facts.iter().any(loud));
            if let Some(wrong) = wrong.filter(|_| !excused) {
                return Err(wrong);
            }
        }
    }
    Ok(())
}

/// Each loan has its own events, and each of its members as that member's own events have made it. An event that was given
/// up may be there all the same: it had been folded when its document was refused for something else.
fn compare_join(sim: &Sim<'_>, world: &World) -> Result<(), String> {
    let text = |object: &projector::expr::Object| projector::expr::json::object_to_json(object);
    let loud = |name: &str| world.facts.iter().any(|fact| fact.loan == name && sim.store.loud.contains(&fact.id));
    let named = |name: &str| world.disturbed.contains(name) && (loud(name) || sim.cold);
    let mut members: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    for (key, entry) in sim.store.documents.iter().filter(|(key, _)| key.starts_with('_')) {
        let name = key.trim_start_matches("_member:").to_owned();
        let state: serde_json::Value = serde_json::from_str(entry.state.as_ref().unwrap()).unwrap();
        let part = state["part"].clone();
        let history: Vec<i64> = part["history"].as_array().into_iter().flatten().map(|n| n.as_i64().unwrap()).collect();
        // Of those given up, the part may have some: the document was refused after it had been folded.
        let changes = |fact: &&Fact| fact.loan == name && fact.days.is_some_and(|days| days % 5 != 1);
        let facts: Vec<_> = world.facts.iter().filter(changes).collect();
        let is_in = |fact: &&&Fact| history.contains(&fact.sequence) || !sim.skipped.contains_key(&fact.id);
        let expected: Vec<i64> = facts.iter().filter(is_in).map(|fact| fact.sequence).collect();
        let days: i64 = facts.iter().filter(is_in).filter_map(|fact| fact.days).sum();
        if !named(&name) && (history != expected || part["days"].as_i64().unwrap_or(0) != days) {
            return Err(format!("member {name}: expected {expected:?} with {days} days, found {part}"));
        }
        members.insert(name, part);
    }
    let found: BTreeMap<&String, _> =
        sim.store.documents.iter().filter_map(|(key, d)| Some((key, d.fields.as_ref()?))).collect();
    let loans: BTreeSet<&String> = world.facts.iter().map(|fact| &fact.loan).chain(found.keys().copied()).collect();
    for loan in loans.into_iter().filter(|loan| !is_member(loan) && !named(loan)) {
        let found = found.get(loan).map(|fields| {
            let json = text(fields);
            (json["history"].clone(), json["days"].clone(), json["members"].clone())
        });
        let given_up: Vec<_> =
            world.facts.iter().filter(|f| f.loan == *loan && sim.skipped.contains_key(&f.id)).map(|f| f.id).collect();
        let possible = |some: u32| {
            let gone = |id: &uuid::Uuid| {
                given_up.iter().position(|given_up| given_up == id).is_some_and(|at| some & 1 << at == 0)
            };
            let mut state: Option<(Vec<i64>, i64, i64)> = None;
            for fact in world.facts.iter().filter(|fact| fact.loan == *loan && !gone(&fact.id)) {
                match fact.days {
                    None => {}
                    Some(0) => state = None,
                    Some(days) => {
                        let (history, sum, last) = state.get_or_insert_default();
                        history.push(fact.sequence);
                        (*sum, *last) = (*sum + days, days);
                    }
                }
            }
            state.map(|(history, days, last)| {
                let named = ["loan-0".to_owned(), format!("loan-{}", 4 * (last % 3))];
                let members: BTreeMap<_, _> =
                    named.into_iter().map(|id| (id.clone(), members.get(&id).cloned())).collect();
                (serde_json::json!(history), serde_json::json!(days), serde_json::json!(members))
            })
        };
        if !(0..1 << given_up.len().min(10)).any(|some| possible(some) == found) {
            return Err(format!("{loan}: expected {:?}, found {found:?}", possible(0)));
        }
    }
    Ok(())
}
