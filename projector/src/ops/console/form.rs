//! Forms: each carries its session's secret, and a reason.

use super::super::admin::{Admin, Caller, Problem, Said, Session};
use axum::extract::{Form, FromRequest, Request};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// What every form carries.
#[derive(Debug, Deserialize)]
pub(super) struct Sent<T> {
    csrf: String,
    #[serde(default)]
    pub(super) reason: String,
    #[serde(flatten)]
    pub(super) more: T,
}

/// No fields of its own.
#[derive(Debug, Deserialize)]
pub(super) struct Nothing {}

/// A form that somebody who is logged in has sent from one of our pages.
pub(super) struct Filled<T> {
    pub(super) session: Session,
    pub(super) sent: Sent<T>,
}

impl<T: DeserializeOwned> FromRequest<Arc<Admin>> for Filled<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &Arc<Admin>) -> Result<Self, Response> {
        let Some(Caller::Session(session)) = request.extensions().get::<Caller>().cloned() else {
            return Err(Redirect::to("/login").into_response());
        };
        let form = Form::<Sent<T>>::from_request(request, state).await;
        let Form(sent) = form
            .map_err(|rejection| super::page::Wrong::from(Problem::malformed(rejection.body_text())).into_response())?;
        if !session.owns(&sent.csrf) {
            let problem = Problem::forbidden(
                "the form isn't of this session: go back, load the page again, and send it once more",
            );
            return Err(super::page::Wrong::from(problem).into_response());
        }
        Ok(Self { session, sent })
    }
}

impl<T> Filled<T> {
    /// Says on the next page what came of it.
    pub(super) fn then(&self, path: &str, said: Said) -> Redirect {
        self.session.say(said);
        Redirect::to(path)
    }
}

/// The session's secret, in a form.
pub(super) fn csrf(caller: &Caller) -> Markup {
    html! {
        @if let Caller::Session(session) = caller { input type="hidden" name="csrf" value=(session.csrf); }
    }
}

/// A button of a form: where it leads, what it says, whether it undoes something.
pub(super) struct Button<'a> {
    pub(super) to: String,
    pub(super) text: &'a str,
    pub(super) grave: bool,
}

/// A reason, and what may be done with it. `id`: unlike that of others of the page. Nothing for who can't do it.
pub(super) fn with_reason(caller: &Caller, id: &str, more: &Markup, buttons: &[Button<'_>]) -> Markup {
    let first = buttons.first().map(|button| button.to.as_str()).unwrap_or_default();
    html! {
        @if let Caller::Session(_) = caller {
            form .act method="post" action=(first) {
                (csrf(caller))
                (more)
                label for={ "reason-" (id) } { "Reason" }
                input id={ "reason-" (id) } name="reason" required maxlength="1000" autocomplete="off";
                @for (n, button) in buttons.iter().enumerate() {
                    button type="submit" id={ "do-" (n) "-" (id) } formaction=(button.to) .grave[button.grave] { (button.text) }
                }
            }
        } @else {
            p .quiet { "To change this, log in with the admin token (ADMIN_TOKEN)." }
        }
    }
}
