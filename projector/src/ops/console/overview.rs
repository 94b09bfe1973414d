//! All read models at a glance: what is wrong first.

use super::super::admin::{Admin, Caller, Seen};
use super::super::lag::{Leg, Line, Standing};
use super::page::{Here, Page};
use super::{picture, trouble, words};
use crate::control::State as Life;
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use std::sync::Arc;

pub(super) async fn show(State(admin): State<Arc<Admin>>, Extension(caller): Extension<Caller>) -> Response {
    let live = Some(("/live?page=overview".to_owned(), fragment(&admin)));
    let (above, below) = (html! {}, html! {});
    Page { title: "Read models", here: Here::Overview, caller: &caller, above, live, below }.into_response()
}

pub(super) fn fragment(admin: &Admin) -> Markup {
    match admin.board.now() {
        Ok(seen) => board(&seen),
        Err(reason) => unknown(&reason),
    }
}

/// That nothing can be shown, and why.
pub(super) fn unknown(reason: &str) -> Markup {
    html! { p .said .wrong role="alert" { (reason) } }
}

pub(super) fn board(seen: &Seen) -> Markup {
    let report = &seen.report;
    let troubles = trouble::all(report);
    let mut lines: Vec<&Line> = report.read_models.iter().collect();
    lines.sort_by_key(|line| (std::cmp::Reverse(line.state.max(Standing::Unknown)), !is_live(line)));
    html! {
        (trouble::shown(&troubles, report.at))
        table .cards {
            caption { "Read models as of " (words::clock(report.at)) }
            thead {
                tr {
                    th scope="col" { "Read model" } th scope="col" { "State" } th scope="col" { "Lag" }
                    th scope="col" { "Waiting" } th scope="col" { "Handled" } th scope="col" { "Dead letters" }
                    th scope="col" { "Generation" } th scope="col" { "Store" }
                }
            }
            tbody { @for line in lines { (row(line, seen)) } }
        }
        (before_kafka(&report.before_kafka, report.at))
        (lately(seen))
    }
}

fn is_live(line: &Line) -> bool {
    line.generation_state == Life::Live
}

/// Its state as a coloured word.
pub(super) fn state(line: &Line) -> Markup {
    let class = match line.state {
        Standing::Ok => "ok",
        Standing::Unknown => "unknown",
        Standing::Parked | Standing::Late | Standing::Paused => "warning",
        Standing::Critical | Standing::NoHost | Standing::Stopped | Standing::Waiting => "critical",
    };
    html! { span .state .(class) { (line.state.name()) } }
}

/// Its lag, as a number and a picture.
pub(super) fn lag(line: &Line, lags: &[f32]) -> Markup {
    #[allow(clippy::cast_precision_loss, reason = "drawn some pixels high")]
    let threshold = line.lag_ms_max as f32 / 1_000.0;
    html! {
        @match line.behind_seconds {
            Some(_) => (format!("{:.1} s", line.lag_seconds())),
            None => "not known",
        }
        " " (picture::sparkline(lags, threshold))
    }
}

fn row(line: &Line, seen: &Seen) -> Markup {
    let name = &line.read_model;
    html! {
        tr .beside[!is_live(line)] {
            th scope="row" data-label="Read model" {
                a id={ "row-" (name) "-" (line.generation) } href={ "/read-models/" (words::in_path(name)) } { (name) }
            }
            td data-label="State" { (state(line)) }
            td data-label="Lag" { (lag(line, &seen.lags(line.generation_id))) }
            td data-label="Waiting" { (line.behind_events.map_or_else(|| "not known".to_owned(), words::count)) }
            td data-label="Handled" { (format!("{:.0}/s", line.handled_per_s)) span .quiet { (format!(" of {:.0}/s", line.published_per_s)) } }
            td data-label="Dead letters" {
                @if line.parked > 0 { a id={ "letters-" (name) "-" (line.generation) } href="/dead-letters" { (line.parked) } } @else { "0" }
            }
            td data-label="Generation" { (line.generation) @if !is_live(line) { " " span .quiet { (line.generation_state.name()) } } }
            td data-label="Store" { (line.store.as_deref().unwrap_or("?")) }
        }
    }
}

/// From the commit to Kafka, in a line each.
pub(super) fn before_kafka(leg: &Leg, now: DateTime<Utc>) -> Markup {
    html! {
        section aria-labelledby="before" {
            h2 id="before" { "Before Kafka" }
            dl {
                dt { "State" }
                dd {
                    span .state .(if leg.is_late() { "critical" } else { "ok" }) { (leg.state.name()) }
                    @if !leg.text.is_empty() { " " (leg.text) }
                }
                @if let Some(outbox) = &leg.outbox {
                    dt { "Outbox" } dd { (words::count(outbox.unpublished)) @if outbox.at_least { " at least" } " not published" }
                }
                @if let Some(slot) = &leg.slot {
                    dt { "Slot " (slot.name) }
                    dd {
                        @if !slot.exists { "missing" } @else if slot.active { "read" } @else { "nobody reads it" }
                        @if let Some(kept) = slot.retained_bytes { ", keeps " (words::bytes(kept)) " of WAL" }
                    }
                }
                @if let Some(writer) = &leg.writer {
                    dt { "Oldest writing transaction" } dd { (words::since(writer.since, now)) ", " (writer.application_name) }
                }
                @if let Some(connect) = &leg.connect {
                    dt { a id="to-connectors" href="/connectors" { "Connector" } } dd { (connect.state) }
                }
                @if let Some(heard) = &leg.heartbeat {
                    dt { "Last heartbeat" } dd { "written " (words::ago(heard.written_at, now)) }
                }
            }
        }
    }
}

/// Alerts that are over.
fn lately(seen: &Seen) -> Markup {
    let over: Vec<_> =
        seen.report.alerts.iter().filter_map(|alert| Some((alert, alert.resolved_at?))).take(10).collect();
    html! {
        @if !over.is_empty() {
            section aria-labelledby="over" {
                h2 id="over" { "Over within a day" }
                ul .over {
                    @for (alert, at) in over {
                        li {
                            @if let Some(name) = &alert.read_model { (name) ": " }
                            (alert.name) " for " (words::since(alert.since, at)) ", over " (words::ago(at, seen.report.at))
                        }
                    }
                }
            }
        }
    }
}
