//! One dead letter: inspected, retried, passed over.

use super::super::admin::{Admin, Caller, Problem, actor, decoder};
use super::form::{Button, Filled, with_reason};
use super::masks::without_personal;
use super::page::{Here, Page, Wrong};
use super::words;
use crate::control::{DeadLetterState, Selection};
use crate::event::Catalog;
use crate::verbs::VerbError;
use crate::verbs::letters::{self, ANSWER_WITHIN, Answer, Whole};
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use std::sync::Arc;
use tokio::time::Instant;
use uuid::Uuid;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    read_model: Option<String>,
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    Query(asked): Query<Asked>,
) -> Result<Response, Wrong> {
    let all = letters::show(&admin.site.control, id, asked.read_model.as_deref(), decoder(&admin)).await?;
    let above = html! {
        p { a href="/dead-letters" { "All dead letters" } }
        @for whole in &all { (one(whole, &admin.site.catalog, &caller)) }
    };
    let page = Page { title: "Dead letter", here: Here::Letters, caller: &caller, above, live: None, below: html! {} };
    Ok(page.into_response())
}

/// A letter with what may be done with it. Its payload's bytes aren't shown, since what is personal in them can't be told.
pub(super) fn one(whole: &Whole, catalog: &Catalog, caller: &Caller) -> Markup {
    let Whole { line, letter, behind, data } = whole;
    let event = line.event_type.as_deref().unwrap_or("an unreadable event");
    let known = line.event_type.as_deref().and_then(|name| catalog.event(name));
    let id = format!("{}-{}", line.generation_id, line.dead_letter_id);
    let sequence = |sequence: Option<i64>| sequence.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let to = |verb: &str| format!("/dead-letters/{}/{verb}", line.dead_letter_id);
    html! {
        section aria-labelledby={ "of-" (id) } {
            h2 id={ "of-" (id) } { (event) " in " (line.read_model) ", generation " (line.generation) }
            p .said .wrong { (line.reason.as_deref().unwrap_or("It has not failed: it waits behind another.")) }
            dl {
                dt { "Dead letter" } dd .key { (line.dead_letter_id) }
                dt { "Aggregate" } dd .key { (line.aggregate_id) ", event " (sequence(line.sequence)) }
                dt { "Message" } dd { (line.partition.topic) "/" (line.partition.number) " at " (line.offset) }
                dt { "Parked" } dd { (words::clock(line.parked_at)) }
                dt { "Tries" } dd { (line.tries) ", the last answer at " (words::clock(line.updated_at)) }
                dt { "State" } dd {
                    (line.state.name())
                    @if let (Some(by), Some(at)) = (&line.asked_by, line.asked_at) {
                        ", asked by " (by) " at " (words::clock(at)) @if let Some(why) = &line.asked_why { ": " (why) }
                    }
                }
                dt { "Documents that have it" } dd { @if letter.done.is_empty() { "none" } @else { (letter.done.join(", ")) } }
                dt { "Waiting behind it" } dd {
                    (words::count(line.waiting))
                    @if !behind.is_empty() {
                        ul { @for other in behind { li { (other.event_type.as_deref().unwrap_or("?")) ", event " (sequence(other.sequence)) } } }
                    }
                }
                dt { "Payload" } dd { (letter.payload.as_ref().map_or(0, Vec::len)) " bytes; " code { "projector dlq show" } " prints them" }
            }
            @match data {
                Ok(data) => {
                    h3 { "Its data" }
                    pre tabindex="0" { (format!("{:#}", match known {
                        Some(known) => without_personal(data.clone(), known.personal.iter()),
                        None => data.clone(),
                    })) }
                },
                Err(error) => p { "Its data can't be read: " (error) },
            }
            @if line.first == line.dead_letter_id {
                (with_reason(
                    caller,
                    &id,
                    &html! { input type="hidden" name="read_model" value=(line.read_model); },
                    &[
                        Button { to: to("retry"), text: "Retry", grave: false },
                        Button { to: to("skip"), text: "Skip for good", grave: true },
                    ],
                ))
            } @else {
                p { "It waits for " a href={ "/dead-letters/" (line.first) "?read_model=" (words::in_path(&line.read_model)) } { "the first of its aggregate" }
                    ": only that can be retried or skipped; the others follow in order." }
            }
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Of {
    read_model: String,
}

pub(super) async fn act(
    State(admin): State<Arc<Admin>>,
    Path((id, verb)): Path<(Uuid, String)>,
    filled: Filled<Of>,
) -> Result<Redirect, Wrong> {
    let what = match verb.as_str() {
        "retry" => DeadLetterState::Retry,
        "skip" => DeadLetterState::Skip,
        other => return Err(Problem::no_such_path(other).into()),
    };
    let read_model = filled.sent.more.read_model.clone();
    let answer = ask(&admin, id, what, &read_model, &filled.session.name, &filled.sent.reason).await?;
    let still = format!("/dead-letters/{id}?read_model={}", words::in_path(&read_model));
    let (Answer { state, reason, fine, .. }, name) = (answer, &read_model);
    let reason = reason.map(|reason| format!(", {reason}")).unwrap_or_default();
    Ok(match (state, fine) {
        (state, true) => filled.then("/dead-letters", Ok(format!("The event was {state} in {name}{reason}."))),
        ("parked", false) => filled.then(&still, Err(format!("It is still parked in {name}{reason}."))),
        (_, false) => filled.then(&still, Err(format!("It was asked for{reason}."))),
    })
}

async fn ask(
    admin: &Admin,
    id: Uuid,
    what: DeadLetterState,
    read_model: &str,
    by: &str,
    reason: &str,
) -> Result<Answer, Problem> {
    let (control, ids, actor) = (&admin.site.control, [id], actor(by, reason)?);
    let asked = control.ask(what, Selection::Letters(&ids, Some(read_model)), actor.who, actor.why).await?;
    let line = asked.first().ok_or_else(|| VerbError::NotFound(format!("there is no dead letter {id}")))?;
    Ok(letters::answer(control, line, Some(Instant::now() + ANSWER_WITHIN)).await?)
}
