//! Pages that follow: the changing part of one, made again at each look and sent when it is another than before.
//!
//! A browser that doesn't take what it is sent is let go: nothing is kept for it but the fragment on its way.

use super::super::admin::{Admin, Caller, Problem};
use super::{connectors, letters, model, overview, rebuilds};
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use maud::Markup;
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Connect is asked less often: it is a REST call to a busy JVM.
const CONNECTORS_EVERY: u32 = 3;
/// Fragments in a row that a browser may have no room for.
const MISSES_MAX: u32 = 10;

/// Which page.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "page", rename_all = "kebab-case")]
pub(super) enum Followed {
    Overview,
    ReadModel { name: String },
    Rebuilds,
    DeadLetters,
    Connectors,
}

impl Followed {
    async fn fragment(&self, admin: &Admin, caller: &Caller) -> Markup {
        match self {
            Self::Overview => overview::fragment(admin),
            Self::ReadModel { name } => model::fragment(admin, name).await,
            Self::Rebuilds => rebuilds::fragment(admin, caller).await,
            Self::DeadLetters => letters::fragment(admin).await,
            Self::Connectors => connectors::fragment(admin, caller).await,
        }
    }
}

pub(super) async fn follow(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Query(page): Query<Followed>,
) -> Response {
    let Ok(place) = Arc::clone(&admin.watchers).try_acquire_owned() else { return Problem::busy().into_response() };
    let (sender, receiver) = mpsc::channel::<String>(1);
    tokio::spawn(async move {
        let _place = place;
        let mut looks = admin.board.follow();
        let (mut last, mut misses, mut look) = (String::new(), 0, 0_u32);
        while looks.changed().await.is_ok() && !sender.is_closed() {
            look = look.wrapping_add(1);
            if matches!(page, Followed::Connectors) && !look.is_multiple_of(CONNECTORS_EVERY) {
                continue;
            }
            let fragment = page.fragment(&admin, &caller).await.into_string();
            if fragment == last {
                continue;
            }
            match sender.try_send(fragment.clone()) {
                Ok(()) => (last, misses) = (fragment, 0),
                Err(TrySendError::Full(_)) if misses < MISSES_MAX => misses += 1,
                Err(_) => return,
            }
        }
    });
    let events = stream::unfold(receiver, async |mut receiver| {
        let html = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Event::default().data(html)), receiver))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}
