//! Rebuilds: what is under way, what is kept for a way back, and what the files would change.

use super::super::admin::{Admin, Caller};
use super::form::{Button, with_reason};
use super::page::{Here, Page};
use super::{overview, rebuild_forms, words};
use crate::control::{Member, State as Life};
use crate::generation::{Difference, Status};
use crate::verbs::report::{self, Report};
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use maud::{Markup, html};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) async fn show(State(admin): State<Arc<Admin>>, Extension(caller): Extension<Caller>) -> Response {
    let live = Some(("/live?page=rebuilds".to_owned(), fragment(&admin, &caller).await));
    let below = rebuild_forms::plan(&admin, &caller).await;
    let above = html! {};
    Page { title: "Rebuilds", here: Here::Rebuilds, caller: &caller, above, live, below }.into_response()
}

pub(super) async fn fragment(admin: &Admin, caller: &Caller) -> Markup {
    let report = match report::report(&admin.site, None).await {
        Ok(report) => report,
        Err(error) => return overview::unknown(&error.to_string()),
    };
    let mut changed = BTreeMap::new();
    for member in report.members.iter().filter(|member| member.state == Life::Retired) {
        if let Ok(Some(finding)) = admin.site.control.finding_at_swap(member.generation.generation_id).await {
            changed.insert(member.generation.generation_id, finding);
        }
    }
    let pace = admin.pace.of(&report.rebuilds);
    page(&report, &pace, &changed, caller)
}

/// Events a second, by rebuild.
pub(super) type Pace = BTreeMap<i64, f64>;

pub(super) fn page(
    report: &Report,
    pace: &Pace,
    changed: &BTreeMap<i64, serde_json::Value>,
    caller: &Caller,
) -> Markup {
    html! {
        section aria-labelledby="under-way" {
            h2 id="under-way" { "Under way" }
            @if report.rebuilds.is_empty() { p { "No rebuild is under way." } }
            @for status in &report.rebuilds {
                (one(status, pace.get(&status.rebuild.rebuild_id).copied().unwrap_or_default(), caller))
            }
        }
        section aria-labelledby="kept" {
            h2 id="kept" { "Kept for a way back" }
            @let kept: Vec<&Member> = report.members.iter().filter(|member| member.state == Life::Retired).collect();
            @if kept.is_empty() { p { "No former generation is kept." } }
            @for member in kept {
                (former(member, report, changed.get(&member.generation.generation_id), caller))
            }
        }
    }
}

fn one(status: &Status, per_s: f64, caller: &Caller) -> Markup {
    let (name, target) = (&status.rebuild.read_model, &status.target);
    let refusal = status.rebuild.finding.as_ref().and_then(|finding| finding["refusal"].as_str());
    let to = |verb: &str| format!("/rebuilds/{}/{verb}", words::in_path(name));
    let button = |verb: &str, text, grave| Button { to: to(verb), text, grave };
    let mut buttons =
        vec![if target.paused { button("resume", "Resume", false) } else { button("pause", "Pause", false) }];
    if refusal.is_some() {
        buttons.push(button("promote-despite", "Promote despite differences", true));
    } else if target.state == Life::Verified {
        buttons.insert(0, button("promote", "Promote", false));
    }
    buttons.push(button("abort", "Abort", true));
    html! {
        article aria-labelledby={ "rebuild-" (name) } {
            h3 id={ "rebuild-" (name) } {
                a id={ "to-" (name) } href={ "/read-models/" (words::in_path(name)) } { (name) }
                ": generation " (status.replaces) " → " (target.generation.generation) " "
                span .state .(if refusal.is_some() || target.paused { "warning" } else { "ok" }) { (target.state.name()) }
            }
            progress max=(status.total.max(1)) value=(status.done.clamp(0, status.total.max(1))) aria-label="events handled" {}
            p {
                (words::count(status.done)) " of " (words::count(status.total)) " events"
                @if status.rebuild.history.is_some_and(|history| !history.finished) { " of the event store" }
                (remaining(status, per_s))
                "; live is " (words::count(status.live_behind)) " behind"
                @if status.at_barrier { "; both stand still to be compared" }
            }
            @if target.paused { p .said .wrong { "Paused: " (target.paused_why.as_deref().unwrap_or("no reason was given")) } }
            @if let Some(refusal) = refusal { p .said .wrong { "Stopped: " (refusal) } }
            (difference(status.rebuild.finding.as_ref()))
            p .quiet {
                "Asked for by " (status.rebuild.asked_by) ", driven by " (status.rebuild.driver.as_deref().unwrap_or("nobody for now"))
            }
            (with_reason(caller, name, &html! {}, &buttons))
        }
    }
}

fn remaining(status: &Status, per_s: f64) -> Markup {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let left = (status.total - status.done).max(0) as f64;
    html! {
        @if per_s >= 1.0 {
            (format!(", {per_s:.0}/s"))
            @if left > 0.0 { ", ready in about " (super::super::lag::age(left / per_s)) }
        }
    }
}

/// What changes for readers, as far as it was compared.
fn difference(finding: Option<&serde_json::Value>) -> Markup {
    let difference = finding.and_then(|finding| finding.get("difference"));
    let difference = difference.and_then(|found| serde_json::from_value::<Difference>(found.clone()).ok());
    html! {
        @if let Some(found) = difference {
            p { (words::count(i64::try_from(found.compared).unwrap_or(i64::MAX))) " documents compared: "
                @if found.lines().is_empty() { "no difference." } @else { "what changes for readers" } }
            // Without the examples: they are documents.
            ul {
                @for (field, count) in &found.fields { li { code { (field) } " differs in " (count) } }
                @if found.missing > 0 { li { (found.missing) " documents are missing" } }
                @if found.extra > 0 { li { (found.extra) " documents are new" } }
            }
        }
    }
}

fn former(member: &Member, report: &Report, finding: Option<&serde_json::Value>, caller: &Caller) -> Markup {
    let generation = &member.generation;
    let name = &generation.read_model;
    let live = report.members.iter().find(|m| m.state == Life::Live && m.generation.read_model == *name);
    let under_way = report.rebuilds.iter().any(|status| status.rebuild.read_model == *name);
    let to = |verb: &str| format!("/rebuilds/{}/{verb}", words::in_path(name));
    let live = live.map_or_else(|| "none".to_owned(), |live| live.generation.generation.to_string());
    html! {
        article aria-labelledby={ "former-" (name) } {
            h3 id={ "former-" (name) } { (name) ": generation " (live) " is live, generation " (generation.generation) " is kept" }
            p {
                @if let Some(until) = member.fed_until { "Fed until " (words::clock(until)) }
                @if let Some(left) = member.fed_until.filter(|until| *until > Utc::now()) { ", " (words::since(Utc::now(), left)) " from now" }
                @if member.paused { ". Paused: " (member.paused_why.as_deref().unwrap_or("no reason was given")) }
            }
            (difference(finding))
            @if !under_way {
                (with_reason(caller, &format!("former-{name}"), &html! {}, &[
                    Button { to: to("rollback"), text: "Roll back", grave: true },
                    Button { to: to("retire"), text: "Give up the way back", grave: true },
                ]))
            }
        }
    }
}
