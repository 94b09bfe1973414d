//! The console: what is late, why, and what to do, in a browser; and the doing, with a reason.
//!
//! Pages are made here, whole, and work without a script. Their changing part is a fragment that the same code makes again each
//! second for who follows ([`live`]). All text goes through `maud`, which escapes it; the browser is told to run nothing but our
//! own two files. What is personal by a read model's `masks` or an event's schema is shown as those say ([`masks`]).

mod connectors;
mod document;
mod form;
mod letter;
mod letters;
mod live;
mod login;
mod masks;
mod model;
mod overview;
mod page;
mod picture;
mod rebuild_forms;
mod rebuilds;
mod trouble;
mod words;

#[cfg(test)]
mod tests;

use super::admin::Admin;
use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::{get, post};
use std::sync::Arc;

/// The console's routes.
pub(super) fn pages() -> Router<Arc<Admin>> {
    let file = |kind: &'static str, text: &'static str| {
        get(async move || ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "max-age=300")], text))
    };
    Router::new()
        .route("/", get(overview::show))
        .route("/read-models/{name}", get(model::show))
        .route("/rebuilds", get(rebuilds::show))
        .route("/rebuilds/start", post(rebuild_forms::start))
        .route("/rebuilds/{name}/{verb}", post(rebuild_forms::act))
        .route("/dead-letters", get(letters::show))
        .route("/dead-letters/{id}", get(letter::show))
        .route("/dead-letters/{id}/{verb}", post(letter::act))
        .route("/connectors", get(connectors::show))
        .route("/connectors/{name}/restart", post(connectors::restart))
        .route("/live", get(live::follow))
        .route("/login", get(login::show).post(login::enter))
        .route("/logout", post(login::leave))
        .route("/style.css", file("text/css; charset=utf-8", include_str!("style.css")))
        .route("/live.js", file("text/javascript; charset=utf-8", include_str!("live.js")))
}
