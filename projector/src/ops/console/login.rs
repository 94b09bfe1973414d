//! The way in and out.

use super::super::admin::Admin;
use super::form::{Filled, Nothing};
use super::page::frame;
use axum::extract::{Form, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use maud::html;
use serde::Deserialize;
use std::sync::Arc;

const NAME_CHARS_MAX: usize = 200;

#[derive(Debug, Deserialize)]
pub(super) struct Credentials {
    name: String,
    token: String,
}

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Response {
    login(&admin, None)
}

fn login(admin: &Admin, wrong: Option<&str>) -> Response {
    let content = html! {
        h1 { "Log in" }
        @if let Some(wrong) = wrong { p .said .wrong role="alert" { (wrong) } }
        @if admin.access.has_token() {
            form .login method="post" action="/login" {
                label for="name" { "Your name, for the log" }
                input id="name" name="name" required maxlength="200" autocomplete="username";
                label for="token" { "Admin token" }
                input id="token" name="token" type="password" required autocomplete="current-password";
                button type="submit" { "Log in" }
            }
        } @else {
            p { "No admin token is set: this machine may look without one, and nothing can be changed. Start " code { "projector run" }
                " with " code { "--admin-token" } " (" code { "ADMIN_TOKEN" } ")." }
            p { a href="/" { "Read models" } }
        }
    };
    let status = if wrong.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    (status, Html(frame("Log in", None, false, &content).into_string())).into_response()
}

pub(super) async fn enter(State(admin): State<Arc<Admin>>, Form(given): Form<Credentials>) -> Response {
    let name = given.name.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.contains('\0') {
        return login(&admin, Some("Say who you are: it is for the log."));
    }
    match admin.access.log_in(name, &given.token).await {
        Some(cookie) => ([(SET_COOKIE, cookie)], Redirect::to("/")).into_response(),
        None => login(&admin, Some("That isn't the admin token.")),
    }
}

pub(super) async fn leave(State(admin): State<Arc<Admin>>, headers: HeaderMap, _form: Filled<Nothing>) -> Response {
    ([(SET_COOKIE, admin.access.log_out(&headers))], Redirect::to("/login")).into_response()
}
