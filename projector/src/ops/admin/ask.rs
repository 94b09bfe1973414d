//! What the API asks of owners and connectors: dead letters, epochs, restarts.

use super::act::{Answer, Body, Named, Why, actor};
use super::{Admin, Problem};
use crate::control::{Actor, DeadLetterState, Selection};
use crate::verbs::connectors;
use crate::verbs::letters::{self, ANSWER_WITHIN};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use tokio::time::Instant;
use uuid::Uuid;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Letters {
    #[serde(default)]
    ids: Vec<Uuid>,
    read_model: Option<String>,
    #[serde(default)]
    no_wait: bool,
    by: String,
    reason: String,
}

pub(super) async fn retry(State(admin): State<Arc<Admin>>, body: Body<Letters>) -> Answer {
    let Json(Letters { ids, read_model, no_wait, by, reason }) = body?;
    let selection = match read_model.as_deref() {
        Some(read_model) if ids.is_empty() => Selection::All(read_model),
        None if ids.is_empty() => {
            let message = "`ids` must name dead letters, or `read_model` one whose are all to be tried again";
            return Err(Problem::malformed(message));
        }
        read_model => Selection::Letters(&ids, read_model),
    };
    ask(&admin, DeadLetterState::Retry, selection, actor(&by, &reason)?, no_wait).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Skip {
    read_model: Option<String>,
    #[serde(default)]
    no_wait: bool,
    by: String,
    reason: String,
}

pub(super) async fn skip(
    State(admin): State<Arc<Admin>>,
    id: Result<Path<Uuid>, PathRejection>,
    body: Body<Skip>,
) -> Answer {
    let (Path(id), Json(Skip { read_model, no_wait, by, reason })) = (id?, body?);
    let ids = [id];
    let selection = Selection::Letters(&ids, read_model.as_deref());
    ask(&admin, DeadLetterState::Skip, selection, actor(&by, &reason)?, no_wait).await
}

async fn ask(
    admin: &Admin,
    what: DeadLetterState,
    selection: Selection<'_>,
    actor: Actor<'_>,
    no_wait: bool,
) -> Answer {
    let control = &admin.site.control;
    let asked = control.ask(what, selection, actor.who, actor.why).await?;
    let deadline = (!no_wait).then(|| Instant::now() + ANSWER_WITHIN);
    let mut answers = Vec::new();
    for line in &asked {
        answers.push(letters::answer(control, line, deadline).await?);
    }
    Ok(Json(json!({ "dead_letters": answers })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Epoch {
    epoch: String,
    by: String,
    reason: String,
}

pub(super) async fn accept_epoch(State(admin): State<Arc<Admin>>, body: Body<Epoch>) -> Answer {
    let Json(Epoch { epoch, by, reason }) = body?;
    if epoch.is_empty() || epoch.contains('\0') {
        return Err(Problem::malformed("`epoch` must name one, as the error of the stopped partition does"));
    }
    actor(&by, &reason)?;
    let is_new = admin.site.control.accept_epoch(&epoch, by.trim(), reason.trim()).await?;
    Ok(Json(json!({ "epoch": epoch, "accepted": true, "new": is_new })))
}

pub(super) async fn restart(State(admin): State<Arc<Admin>>, name: Named, body: Body<Why>) -> Answer {
    let (Path(name), Json(Why { by, reason })) = (name?, body?);
    let (control, url) = (&admin.site.control, admin.connect_url.as_deref());
    connectors::restart(control, url, &name, actor(&by, &reason)?).await?;
    Ok(Json(json!({"connector": name, "done": "asked to start again"})))
}
