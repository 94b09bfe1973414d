//! `GET /freshness/{read_model}?consistency_token=…&wait_ms=…`: waits as a query does, and answers without reading anything.
//!
//! For services that answer only once a read model shows what they wrote, on behalf of callers that can't pass a token on. All
//! that such a service has to know is the token and this path. What is answered with success is there for every reader who comes
//! later, also without a token: a search engine is refreshed before. Where queries are cached, an answer from before may live on
//! for its time; a query with the token sees past it.

use super::answer::{Halt, reached};
use super::http::{Service, json_response, with_freshness};
use super::problem::Problem;
use super::request::Asked;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::Instant;

pub(super) async fn freshness(State(service): State<Service>, Path(name): Path<String>, request: Request) -> Response {
    let request = request.into_parts().0;
    service.limited(look(&service, &name, &request)).await
}

async fn look(service: &Service, name: &str, request: &Parts) -> Result<Response, Problem> {
    let begin = Instant::now();
    let asked = Asked::read(&request.uri, &request.headers)?;
    if let Some((unknown, _)) = asked.parameters.first() {
        return Err(Problem::parameter(unknown, "consistency_token and wait_ms are all that can be given here"));
    }
    service.keeper.make_sure().await;
    loop {
        let live = service.keeper.live().ok_or_else(|| Problem::not_ready("the control store wasn't reached yet"))?;
        let model = live.models.values().find(|model| model.name() == name);
        let model = model.ok_or_else(|| Problem::no_such_read_model(name))?;
        match reached(model, &asked.freshness, begin).await {
            Ok(position) => {
                let body = json!({"read_model": name, "generation": model.generation.generation, "position": position});
                return Ok(with_freshness(json_response(StatusCode::OK, &body), model, position));
            }
            Err(Halt::Problem(problem)) => {
                let position = super::freshness::position(&model.feed.snapshot());
                return Ok(with_freshness(problem.into_response(), model, position));
            }
            Err(Halt::Superseded) => {}
        }
    }
}
