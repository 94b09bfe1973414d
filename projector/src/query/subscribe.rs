//! Server-sent events: an answer, and then each next one that differs.
//!
//! `event: snapshot`, then `event: change`, each with the whole answer and an id. Who comes back with `Last-Event-ID` gets no snapshot if nothing
//! has changed since. `event: gone` says that the document is no longer there, `event: problem` that it can't be told what is there now.
//!
//! A subscriber sleeps on the read model's progress and reads again when that moves, at most a few times a second; those who ask the same share
//! that read. Who takes events too slowly gets `event: dropped` as the last one, rather than an ever longer queue.

use super::http::{Answered, ask, ask_as};
use super::problem::Problem;
use super::service::Service;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{Instant, sleep, timeout};

/// Events that may lie unread.
const UNREAD_MAX: usize = 16;
/// Reads of one subscriber are this far apart at least.
const PAUSE: Duration = Duration::from_millis(250);
/// Without any news from the read model it is looked at again: what expires makes no news.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Answers once, then goes on; what is wrong with the first answer is an ordinary answer.
pub(super) async fn stream(service: Service, request: Parts, begin: Instant) -> Result<Response, Problem> {
    let Ok(permit) = Arc::clone(&service.subscribers).try_acquire_owned() else { return Err(Problem::subscribers()) };
    let (answered, answer) = ask(&service, &request, begin).await?;
    let position = super::freshness::position(&answered.model.feed.snapshot());
    let answer = match answer {
        Ok(answer) => answer,
        Err(problem) => return Ok(answered.with_source(problem.into_response(), position)),
    };
    let id = id_of(&answer.etag);
    let (sender, receiver) = mpsc::channel(UNREAD_MAX);
    let known = request.headers.get("last-event-id").and_then(|value| value.to_str().ok());
    if known != Some(id.as_str()) {
        _ = sender.try_send(event("snapshot", &answer.text).id(id.clone()));
    }
    let events = stream::unfold(receiver, |mut receiver| async move {
        Some((Ok::<_, Infallible>(receiver.recv().await?), receiver))
    });
    let head = Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response();
    let response = answered.with_source(head, position);
    tokio::spawn(follow(service, request, answered, id, sender, permit));
    Ok(response)
}

async fn follow(
    service: Service,
    request: Parts,
    mut answered: Answered,
    mut last: String,
    sender: Sender<Event>,
    _permit: OwnedSemaphorePermit,
) {
    let mut feed = answered.model.feed.subscribe();
    // What moved between the first answer and here is looked at right away.
    let mut moved = true;
    loop {
        if !moved {
            tokio::select! {
                _ = timeout(LOOK_EVERY, feed.changed()) => {}
                () = answered.model.gate.closed() => {}
                () = sender.closed() => return,
                () = service.stopping.cancelled() => return,
            }
        }
        sleep(PAUSE).await;
        feed.look();
        moved = false;
        let (next, (id, event)) = match ask_as(&service, &request, Instant::now(), false).await {
            Ok((from, Ok(answer))) => {
                let id = id_of(&answer.etag);
                (Some(from), (id.clone(), event("change", &answer.text).id(id)))
            }
            Ok((from, Err(problem))) => (Some(from), of_problem(&problem)),
            Err(problem) => (None, of_problem(&problem)),
        };
        if let Some(next) = next {
            if next.model.generation.generation_id != answered.model.generation.generation_id {
                feed = next.model.feed.subscribe();
                moved = true;
            }
            answered = next;
        } else {
            // Not even the path can be told now.
            sleep(Duration::from_secs(1)).await;
        }
        if id == last {
            continue;
        }
        last = id;
        if sender.capacity() <= 1 {
            let words =
                br#"{"detail":"events weren't taken as fast as they came; subscribe again with Last-Event-ID"}"#;
            _ = sender.try_send(self::event("dropped", words));
            return;
        }
        if sender.try_send(event).is_err() {
            return;
        }
    }
}

fn of_problem(problem: &Problem) -> (String, Event) {
    let name = if problem.status == StatusCode::NOT_FOUND { "gone" } else { "problem" };
    (problem.name.to_owned(), event(name, problem.body().to_string().as_bytes()))
}

fn event(name: &str, data: &[u8]) -> Event {
    // JSON has no line ends outside of texts, and escapes those within.
    Event::default().event(name).data(String::from_utf8_lossy(data))
}

/// Of the answer alone: another generation with the same answer is no news.
fn id_of(etag: &str) -> String {
    let inner = etag.trim_start_matches("W/").trim_matches('"');
    inner.split_once('-').map_or(inner, |(_, rest)| rest).to_owned()
}
