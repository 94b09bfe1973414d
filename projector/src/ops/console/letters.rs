//! The dead letters that block an aggregate.

use super::super::admin::{Admin, Caller};
use super::page::{Here, Page};
use super::{overview, words};
use crate::control::DeadLetterLine;
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use std::sync::Arc;

const SHOWN: i64 = 100;

pub(super) async fn show(State(admin): State<Arc<Admin>>, Extension(caller): Extension<Caller>) -> Response {
    let live = Some(("/live?page=dead-letters".to_owned(), fragment(&admin).await));
    let above = html! {
        p { "Events that a read model couldn't apply. Every later event of the same aggregate waits behind them; others go on." }
    };
    Page { title: "Dead letters", here: Here::Letters, caller: &caller, above, live, below: html! {} }.into_response()
}

pub(super) async fn fragment(admin: &Admin) -> Markup {
    match admin.site.control.dead_letters(None, SHOWN).await {
        Ok(lines) => list(&lines, Utc::now()),
        Err(error) => overview::unknown(&error.to_string()),
    }
}

/// Where one of them is shown.
pub(super) fn path(line: &DeadLetterLine) -> String {
    format!("/dead-letters/{}?read_model={}", line.dead_letter_id, words::in_path(&line.read_model))
}

pub(super) fn list(lines: &[DeadLetterLine], now: DateTime<Utc>) -> Markup {
    html! {
        @if lines.is_empty() { p .said { "No dead letters." } }
        @else {
            table .cards {
                caption { (lines.len()) @if lines.len() >= 100 { " (the oldest)" } " dead letters that block an aggregate" }
                thead {
                    tr {
                        th scope="col" { "Event" } th scope="col" { "Read model" } th scope="col" { "Aggregate" }
                        th scope="col" { "Why" } th scope="col" { "Tries" } th scope="col" { "Waiting" } th scope="col" { "Parked" }
                    }
                }
                tbody {
                    @for line in lines {
                        tr {
                            th scope="row" data-label="Event" {
                                a id={ "letter-" (line.generation_id) "-" (line.dead_letter_id) } href=(path(line)) {
                                    (line.event_type.as_deref().unwrap_or("unreadable"))
                                }
                            }
                            td data-label="Read model" { (line.read_model) " g" (line.generation) }
                            td data-label="Aggregate" .key { (line.aggregate_id) }
                            td data-label="Why" { (line.reason.as_deref().unwrap_or("has not failed; about to be tried")) }
                            td data-label="Tries" { (line.tries) }
                            td data-label="Waiting" { (words::count(line.waiting)) }
                            td data-label="Parked" { (words::ago(line.parked_at, now)) @if line.state.name() != "parked" { ", asked to " (line.state.name()) } }
                        }
                    }
                }
            }
        }
    }
}
