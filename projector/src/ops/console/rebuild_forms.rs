//! What the files would change, and all that can be done about a rebuild.

use super::super::admin::{Admin, Caller, Problem, Said, Start, actor, begin};
use super::form::{Button, Filled, Nothing, with_reason};
use super::overview;
use super::page::Wrong;
use crate::control::Verify;
use crate::generation::{Change, What};
use crate::verbs::rebuild;
use axum::extract::{Path, State};
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;
use std::sync::Arc;

const PAGE: &str = "/rebuilds";

/// What `apply` would do, with a form to build a read model anew.
pub(super) async fn plan(admin: &Admin, caller: &Caller) -> Markup {
    let content = match rebuild::plan(&admin.site, &admin.projections).await {
        Ok(plan) => changes(&plan.changes, caller),
        Err(error) => html! { (overview::unknown(&error.to_string())) },
    };
    html! {
        section aria-labelledby="plan" {
            h2 id="plan" { "Plan" }
            p { "The projections in this host's folder, compared with what is live." }
            (content)
        }
    }
}

fn changes(changes: &[Change], caller: &Caller) -> Markup {
    html! {
        table .cards {
            thead { tr { th scope="col" { "Read model" } th scope="col" { "What apply would do" } th scope="col" { "Why" } th scope="col" { "May differ" } } }
            tbody {
                @for change in changes {
                    tr {
                        th scope="row" data-label="Read model" { (change.read_model) @if let Some(live) = change.generation { " g" (live) } }
                        td data-label="What apply would do" { (said(change.what)) }
                        td data-label="Why" { (change.why.join("; ")) }
                        td data-label="May differ" {
                            @if change.what == What::Rebuild {
                                @match &change.fields {
                                    Some(fields) if fields.is_empty() => "nothing",
                                    Some(fields) => (fields.join(", ")),
                                    None => "anything",
                                }
                            }
                        }
                    }
                }
            }
        }
        h3 { "Build one anew" }
        p { "A generation is built from the file beside the live one, and takes its place once both have the same events and were compared." }
        (with_reason(caller, "start", &fields(changes), &[Button { to: format!("{PAGE}/start"), text: "Rebuild", grave: false }]))
    }
}

fn fields(changes: &[Change]) -> Markup {
    let can = |change: &&Change| !matches!(change.what, What::Create | What::Retire);
    html! {
        label for="start-name" { "Read model" }
        select id="start-name" name="read_model" required {
            @for change in changes.iter().filter(can) {
                option value=(change.read_model) selected[change.what == What::Rebuild] { (change.read_model) }
            }
        }
        label for="start-verify" { "Compare" }
        select id="start-verify" name="verify" {
            option value="sample" { "1,000 documents" }
            option value="all" { "all documents" }
        }
        label for="start-promote" { "Then" }
        select id="start-promote" name="promote" {
            option value="auto" { "make it live" }
            option value="manual" { "wait for Promote" }
        }
    }
}

fn said(what: What) -> &'static str {
    match what {
        What::Create => "create it",
        What::Rebuild => "rebuild it",
        What::InPlace => "change it in place",
        What::Retire => "give it up, with --prune",
        What::Nothing => "nothing",
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    read_model: String,
    verify: String,
    promote: String,
}

pub(super) async fn start(State(admin): State<Arc<Admin>>, filled: Filled<Wanted>) -> Redirect {
    let wanted = &filled.sent.more;
    let asked = Start {
        read_models: vec![wanted.read_model.clone()],
        verify: (wanted.verify == "all").then_some(Verify::All),
        promote: wanted.promote != "manual",
        by: filled.session.name.clone(),
        reason: filled.sent.reason.clone(),
        ..Start::default()
    };
    let said = begin(&admin, &asked).await.map(|_| format!("The rebuild of {} is under way.", wanted.read_model));
    filled.then(PAGE, said.map_err(|problem| problem.detail))
}

pub(super) async fn act(
    State(admin): State<Arc<Admin>>,
    Path((name, verb)): Path<(String, String)>,
    filled: Filled<Nothing>,
) -> Result<Redirect, Wrong> {
    let said = done(&admin, &name, &verb, &filled.session.name, &filled.sent.reason).await;
    let said: Said = said.map_err(|problem| problem.detail);
    Ok(filled.then(PAGE, said))
}

async fn done(admin: &Admin, name: &str, verb: &str, by: &str, reason: &str) -> Result<String, Problem> {
    let (site, actor) = (&admin.site, actor(by, reason)?);
    Ok(match verb {
        "pause" => format!("{name}: {}.", rebuild::pause(site, name, true, actor).await?),
        "resume" => format!("{name}: {}.", rebuild::pause(site, name, false, actor).await?),
        "abort" => {
            rebuild::abort(site, name, actor).await?;
            format!("The rebuild of {name} is aborted; the hosts remove what was built.")
        }
        "promote" | "promote-despite" => {
            rebuild::promote(site, name, verb == "promote-despite", actor).await?;
            format!("{name} goes live as soon as both generations stand at the same place.")
        }
        "rollback" => {
            rebuild::roll_back(site, &[name.to_owned()], actor).await?;
            format!("{name} is on its way back to its former generation.")
        }
        "retire" => {
            let former = rebuild::retire(site, name, actor).await?;
            format!("Generation {} of {name} is given up; the hosts remove its place.", former.generation)
        }
        other => return Err(Problem::no_such_path(other)),
    })
}
