//! The admin API: what the command line looks at and does, over HTTP, with a token ([`access`]). Both call the same verbs
//! (`crate::verbs`), so neither can do what the other can't. The console beside it ([`super::console`]) shows them to people.

mod access;
mod act;
mod ask;
mod board;
mod look;
mod openapi;
mod pace;
mod problem;
mod routes;

pub(super) use access::{Caller, Said, Session};
pub(super) use act::{Start, actor, begin};
pub(super) use board::Seen;
pub(super) use look::{decoder, history, opened};
pub(super) use problem::Problem;

use super::alert;
use super::lag::BeforeKafka;
use crate::generation::Site;
use access::Access;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use board::Board;
use pace::Pace;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Pages that follow at a time.
const WATCHERS_MAX: usize = 32;
/// Nothing but our own files: no script, style or picture from elsewhere, and none within a page.
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
     frame-ancestors 'none'",
);
/// What is there for all: the console's own files, and the way in.
const OPEN: [&str; 4] = ["/login", "/style.css", "/live.js", "/openapi.json"];

/// What the admin API and the console reach.
pub struct Admin {
    pub(super) site: Site,
    pub(super) projections: Vec<PathBuf>,
    pub(super) connect_url: Option<String>,
    pub(super) access: Access,
    pub(super) board: Board,
    pub(super) pace: Pace,
    pub(super) watchers: Arc<Semaphore>,
}

/// What the admin API and the console are told.
#[derive(Clone, Debug, clap::Args)]
pub struct AdminArgs {
    /// Who has this token may look at everything and change it, by the admin API and the console; 16 characters at least. Without
    /// it nothing can be changed there, and only this machine may look
    #[arg(long, env = "ADMIN_TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
    /// The folder of projections that plans and rebuilds are made of from there
    #[arg(long, env = "PROJECTIONS_DIR", default_value = "projections")]
    pub projections: PathBuf,
}

impl Admin {
    /// Looks at everything each second from now on, for as long as this is there. `listen`: where it will be answered; `monitored`:
    /// what the monitor sees, where it is this host.
    ///
    /// # Errors
    /// The token is too short.
    pub fn new(
        site: Site,
        before: BeforeKafka,
        monitored: alert::Seen,
        connect_url: Option<String>,
        args: AdminArgs,
        listen: SocketAddr,
    ) -> Result<Arc<Self>, String> {
        let access = Access::new(args.admin_token, listen)?;
        let board = Board::start(site.control.clone(), before, monitored);
        let watchers = Arc::new(Semaphore::new(WATCHERS_MAX));
        let (projections, pace) = (vec![args.projections], Pace::default());
        Ok(Arc::new(Self { site, projections, connect_url, access, board, pace, watchers }))
    }

    /// API and console.
    pub fn routes(self: Arc<Self>) -> Router {
        let guard = from_fn_with_state(Arc::clone(&self), guard);
        routes::api().merge(super::console::pages()).layer(guard).layer(from_fn(harden)).with_state(self)
    }
}

/// Lets in who may ask, and says who that is to those who answer.
async fn guard(State(admin): State<Arc<Admin>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if OPEN.contains(&path) {
        return next.run(request).await;
    }
    let is_api = path.starts_with("/v1/");
    match admin.access.admit(request.method(), request.headers()) {
        Ok(Caller::Session(_)) if is_api && !request.method().is_safe() => {
            Problem::forbidden("the API takes changes from bearers of the token only, not from a browser's session")
                .into_response()
        }
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) if problem.status == StatusCode::UNAUTHORIZED && !is_api => Redirect::to("/login").into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// What every answer says to browsers.
async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
