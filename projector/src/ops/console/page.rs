//! The frame of all pages.

use super::super::admin::{Caller, Problem};
use super::form::csrf;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

/// Where a page is among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    Overview,
    Rebuilds,
    Letters,
    Connectors,
}

const ALL: [(Here, &str, &str); 4] = [
    (Here::Overview, "/", "Read models"),
    (Here::Rebuilds, "/rebuilds", "Rebuilds"),
    (Here::Letters, "/dead-letters", "Dead letters"),
    (Here::Connectors, "/connectors", "Connectors"),
];

/// A page: what changes each second, in the middle, and what doesn't.
pub(super) struct Page<'a> {
    pub(super) title: &'a str,
    pub(super) here: Here,
    pub(super) caller: &'a Caller,
    pub(super) above: Markup,
    /// Where it is followed, and how it is now.
    pub(super) live: Option<(String, Markup)>,
    pub(super) below: Markup,
}

impl IntoResponse for Page<'_> {
    fn into_response(self) -> Response {
        Html(self.render().into_string()).into_response()
    }
}

impl Page<'_> {
    pub(super) fn render(self) -> Markup {
        let Self { title, here, caller, above, live, below } = self;
        let said = if let Caller::Session(session) = caller { session.take_said() } else { None };
        let content = html! {
            h1 { (title) }
            @match said {
                Some(Ok(text)) => p .said role="status" { (text) },
                Some(Err(text)) => p .said .wrong role="alert" { (text) },
                None => {},
            }
            (above)
            @if let Some((url, now)) = &live {
                div id="live" data-live=(url) { (now) }
            }
            (below)
        };
        frame(title, Some((here, caller)), live.is_some(), &content)
    }
}

/// A page of one's own making; without `who`, nobody is logged in.
pub(super) fn frame(title: &str, who: Option<(Here, &Caller)>, follows: bool, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · projector" }
                link rel="stylesheet" href="/style.css";
                @if follows { script src="/live.js" defer {} }
            }
            body {
                a .skip href="#main" { "Skip to the content" }
                header {
                    strong { "projector" }
                    @if let Some((here, caller)) = who {
                        nav aria-label="Pages" {
                            @for (place, path, name) in ALL {
                                a href=(path) aria-current=[(place == here).then_some("page")] { (name) }
                            }
                        }
                        @if follows { span #follow .quiet { "as of now" } }
                        (whoami(caller))
                    }
                }
                main id="main" tabindex="-1" { (content) }
            }
        }
    }
}

fn whoami(caller: &Caller) -> Markup {
    html! {
        @match caller {
            Caller::Session(session) => form .inline method="post" action="/logout" {
                (csrf(caller))
                span .quiet { (session.name) }
                button type="submit" .plain { "Log out" }
            },
            Caller::Bearer => span .quiet { "by token" },
            Caller::Anybody => span .quiet title="Start projector run with --admin-token (ADMIN_TOKEN) to change things here" { "to look at only" },
        }
    }
}

/// A problem as a page.
pub(super) struct Wrong(pub(super) Problem);

impl<E: Into<Problem>> From<E> for Wrong {
    fn from(problem: E) -> Self {
        Self(problem.into())
    }
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        let title = match self.0.status {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::SERVICE_UNAVAILABLE => "Not now",
            _ => "That didn't work",
        };
        let content = html! {
            h1 { (title) }
            p .said .wrong role="alert" { (self.0.detail) }
            p { a href="/" { "Read models" } }
        };
        (self.0.status, Html(frame(title, None, false, &content).into_string())).into_response()
    }
}
