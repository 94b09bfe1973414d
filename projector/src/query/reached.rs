//! `GET /freshness/{read_model}?consistency_token=…&wait_ms=…`: waits as a query does, and answers without reading anything.
//!
//! For services that answer only once a read model shows what they wrote, on behalf of callers that can't pass a token on. All
//! that such a service has to know is the token and this path. What is answered with success is there for every reader who comes
//! later, also without a token: a search engine is refreshed before. Where queries are cached, an answer from before may live on
//! for its time; a query with the token sees past it.

use super::http::{Answered, json_response};
use super::live::ReadModel;
use super::problem::Problem;
use super::request::{Asked, Freshness, pairs};
use super::service::Service;
use super::store::Reader;
use super::wait::{Halt, Wait};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(super) async fn freshness(State(service): State<Service>, Path(name): Path<String>, request: Request) -> Response {
    let request = request.into_parts().0;
    service.limited(look(&service, &name, &request)).await
}

async fn look(service: &Service, name: &str, request: &Parts) -> Result<Response, Problem> {
    let begin = Instant::now();
    let asked = Asked::read(pairs(&request.uri)?, &request.headers)?;
    if let Some((unknown, _)) = asked.parameters.first() {
        return Err(Problem::parameter(unknown, ALL_THAT_CAN_BE_ASKED));
    }
    let others = [("min_seq", asked.freshness.min_seq.is_some()), ("consistency", asked.freshness.strong)];
    if let Some((parameter, _)) = others.into_iter().find(|(_, is_given)| *is_given) {
        return Err(Problem::parameter(parameter, ALL_THAT_CAN_BE_ASKED));
    }
    service.keeper.make_sure().await;
    loop {
        let live = service.keeper.live().ok_or_else(|| Problem::not_ready("the control store wasn't reached yet"))?;
        let model = live.models.values().find(|model| model.name() == name);
        let model = model.ok_or_else(|| Problem::no_such_read_model(name))?;
        let answered = Answered::of(Arc::clone(model));
        match reached(service, model, &asked.freshness, begin).await {
            Ok(position) => {
                let body = json!({"read_model": name, "generation": model.generation.generation, "position": position});
                return Ok(answered.with_source(json_response(StatusCode::OK, &body), position));
            }
            Err(Halt::Problem(problem)) => {
                let position = super::freshness::position(&model.feed.snapshot());
                return Ok(answered.with_source(problem.into_response(), position));
            }
            Err(Halt::Superseded) => {}
        }
    }
}

const ALL_THAT_CAN_BE_ASKED: &str = "consistency_token and wait_ms are all that can be given here";

/// For the refresh of who had waited to the last.
const REFRESH_AT_LEAST: Duration = Duration::from_secs(1);

/// Waits until `model` shows to all readers what the caller knows to be written, and gives the position that it has then.
async fn reached(service: &Service, model: &ReadModel, asked: &Freshness, begin: Instant) -> Result<i64, Halt> {
    // Half a promise would be none.
    let asked = Freshness { stale_ok: false, ..asked.clone() };
    let wait = Wait::of_tokens(model, &asked, service.write_side.as_ref(), begin);
    let reached = wait.reach().await?;
    if let (Reader::Search(reader), true) = (&model.reader, wait.asks()) {
        wait.show(reader, REFRESH_AT_LEAST).await?;
    }
    Ok(super::freshness::position(&reached.progress))
}
