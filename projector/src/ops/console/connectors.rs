//! Kafka Connect's connectors: their state, and a restart.

use super::super::admin::{Admin, Caller, actor};
use super::form::{Button, Filled, Nothing, with_reason};
use super::page::{Here, Page};
use super::{overview, words};
use crate::control::Action;
use crate::source::Connector;
use crate::verbs::connectors;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use std::sync::Arc;

const PAGE: &str = "/connectors";
const ACTIONS_SHOWN: i64 = 10;

pub(super) async fn show(State(admin): State<Arc<Admin>>, Extension(caller): Extension<Caller>) -> Response {
    let live = Some(("/live?page=connectors".to_owned(), fragment(&admin, &caller).await));
    let page =
        Page { title: "Connectors", here: Here::Connectors, caller: &caller, above: html! {}, live, below: html! {} };
    page.into_response()
}

pub(super) async fn fragment(admin: &Admin, caller: &Caller) -> Markup {
    let all = connectors::list(admin.connect_url.as_deref()).await;
    let actions = admin.site.control.actions(ACTIONS_SHOWN).await;
    html! {
        @match &all {
            Ok(all) => (list(all, caller)),
            Err(error) => (overview::unknown(&error.to_string())),
        }
        @match admin.board.now() {
            Ok(seen) => (overview::before_kafka(&seen.report.before_kafka, seen.report.at)),
            Err(reason) => (overview::unknown(&reason)),
        }
        @match &actions {
            Ok(actions) => (restarted(actions)),
            Err(error) => (overview::unknown(&error.to_string())),
        }
    }
}

pub(super) fn list(all: &[Connector], caller: &Caller) -> Markup {
    html! {
        @if all.is_empty() { p .said .wrong { "Kafka Connect has no connector: `connectors apply` makes it." } }
        @for connector in all {
            @let runs = connector.state == "RUNNING" && !connector.tasks.is_empty() && connector.tasks.iter().all(|task| task == "RUNNING");
            article aria-labelledby={ "connector-" (connector.name) } {
                h3 id={ "connector-" (connector.name) } {
                    (connector.name) " " span .state .(if runs { "ok" } else { "critical" }) { (connector.state) }
                }
                p { "Tasks: " @if connector.tasks.is_empty() { "none" } @else { (connector.tasks.join(", ")) } }
                @for failure in &connector.failures { p .said .wrong { (failure) } }
                (with_reason(caller, &connector.name, &html! {}, &[Button {
                    to: format!("{PAGE}/{}/restart", words::in_path(&connector.name)),
                    text: "Restart",
                    grave: false,
                }]))
            }
        }
    }
}

fn restarted(actions: &[Action]) -> Markup {
    html! {
        @if !actions.is_empty() {
            section aria-labelledby="actions" {
                h2 id="actions" { "What was done" }
                ul {
                    @for action in actions {
                        li { (words::clock(action.at)) ": " (action.what) " " (action.subject) " by " (action.who)
                            @if let Some(why) = &action.why { ": " (why) } }
                    }
                }
            }
        }
    }
}

pub(super) async fn restart(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    filled: Filled<Nothing>,
) -> Redirect {
    let said = match actor(&filled.session.name, &filled.sent.reason) {
        Ok(actor) => {
            let (control, url) = (&admin.site.control, admin.connect_url.as_deref());
            connectors::restart(control, url, &name, actor).await.map_err(|error| error.to_string())
        }
        Err(problem) => Err(problem.detail),
    };
    filled.then(PAGE, said.map(|()| format!("{name} was asked to start again.")))
}
