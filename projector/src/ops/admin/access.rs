//! Who may look and who may act: one token, as a bearer's or, in a browser, exchanged for a session.
//!
//! Without a token nothing can be changed, and looking is for this machine alone: the port must be a loopback one, and the
//! browser must have asked for it by that name, or a page of somebody else's could have its own name lead here. With a token
//! everything needs it but health, metrics, the description of the API and the form to log in.
//!
//! A session's cookie goes with no request that another site begins (`SameSite=Strict`); forms carry a second secret of the
//! session's all the same. The API takes changes from bearers only.

use super::problem::Problem;
use axum::http::header::{AUTHORIZATION, COOKIE, HOST};
use axum::http::{HeaderMap, Method};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// The least that can't be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const SESSION_LASTS: Duration = Duration::from_secs(12 * 3_600);
/// Sessions at a time; one more ends the oldest.
const SESSIONS_MAX: usize = 100;
const COOKIE_NAME: &str = "projector_session";
/// How long a wrong token is looked at; one at a time.
const WRONG_TOKEN_TAKES: Duration = Duration::from_millis(500);

/// Somebody who gave the token in a browser.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Who they say they are, for the log.
    pub(crate) name: String,
    /// What their forms carry.
    pub(crate) csrf: String,
    until: Instant,
    said: Arc<Mutex<Option<Said>>>,
}

/// What came of a form, for the next page.
pub(crate) type Said = Result<String, String>;

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Somebody on this machine, where no token is set.
    Anybody,
    /// Who has the token.
    Bearer,
    /// Who has a session.
    Session(Session),
}

/// See the module.
pub(crate) struct Access {
    token: Option<String>,
    /// Whether only this machine reaches the port.
    loopback: bool,
    sessions: Mutex<HashMap<String, Session>>,
    wrong: tokio::sync::Mutex<()>,
}

impl Access {
    /// # Errors
    /// The token is too short.
    pub(crate) fn new(token: Option<String>, listen: SocketAddr) -> Result<Self, String> {
        if token.as_ref().is_some_and(|token| token.len() < TOKEN_BYTES_MIN) {
            return Err(format!(
                "the admin token (--admin-token, ADMIN_TOKEN) has fewer than {TOKEN_BYTES_MIN} characters: take a longer one, such \
                 as that of `openssl rand -hex 32`"
            ));
        }
        let (sessions, wrong) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self { token, loopback: listen.ip().is_loopback(), sessions, wrong })
    }

    /// Whether anybody can log in.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Who asks, if they may ask this.
    ///
    /// # Errors
    /// Why not; 401 where a token would help.
    pub(crate) fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<Caller, Problem> {
        let looks = [Method::GET, Method::HEAD].contains(method);
        if self.token.is_none() {
            if !self.loopback || !asks_for_loopback(headers) {
                return Err(Problem::forbidden(
                    "without an admin token this is shown to this machine alone, under a loopback address: set --admin-token \
                     (ADMIN_TOKEN) when `projector run` is started",
                ));
            }
            if !looks {
                return Err(Problem::forbidden(
                    "nothing can be changed here, since no admin token is set: start `projector run` with --admin-token \
                     (ADMIN_TOKEN), and give it as a bearer's token or to the console's login",
                ));
            }
            return Ok(Caller::Anybody);
        }
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        match (bearer, self.session(headers)) {
            (Some(given), _) if self.is_token(given) => Ok(Caller::Bearer),
            (None, Some(session)) => Ok(Caller::Session(session)),
            _ => Err(Problem::unauthorized("this needs the admin token: `Authorization: Bearer …`")),
        }
    }

    /// Exchanges the token for a session; gives the cookie.
    pub(crate) async fn log_in(&self, name: &str, token: &str) -> Option<String> {
        if !self.is_token(token) {
            let _one_at_a_time = self.wrong.lock().await;
            tokio::time::sleep(WRONG_TOKEN_TAKES).await;
            return None;
        }
        let id = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let csrf = Uuid::new_v4().simple().to_string();
        let session =
            Session { name: name.to_owned(), csrf, until: Instant::now() + SESSION_LASTS, said: Arc::default() };
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.until > Instant::now());
        if sessions.len() >= SESSIONS_MAX {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.until).map(|(id, _)| id.clone());
            oldest.map(|id| sessions.remove(&id));
        }
        sessions.insert(id.clone(), session);
        let seconds = SESSION_LASTS.as_secs();
        Some(format!("{COOKIE_NAME}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}"))
    }

    /// Ends the session that the request is of; gives the cookie that says so.
    pub(crate) fn log_out(&self, headers: &HeaderMap) -> String {
        if let Some(id) = cookie(headers) {
            self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        }
        format!("{COOKIE_NAME}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")
    }

    fn session(&self, headers: &HeaderMap) -> Option<Session> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(cookie(headers)?).filter(|session| session.until > Instant::now()).cloned()
    }

    fn is_token(&self, given: &str) -> bool {
        self.token.as_ref().is_some_and(|token| is_same(token, given))
    }
}

impl Session {
    /// Whether a form is this session's.
    pub(crate) fn owns(&self, csrf: &str) -> bool {
        is_same(&self.csrf, csrf)
    }

    /// To be shown once, on the next page.
    pub(crate) fn say(&self, said: Said) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
    }

    /// What was to be shown.
    pub(crate) fn take_said(&self) -> Option<Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Takes as long wherever they differ.
fn is_same(secret: &str, given: &str) -> bool {
    secret.as_bytes().ct_eq(given.as_bytes()).into()
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='))
}

fn asks_for_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
