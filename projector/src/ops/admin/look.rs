//! What the API shows.

use super::super::lag::report;
use super::super::status;
use super::{Admin, Problem};
use crate::control::Generation;
use crate::event::Decoder;
use crate::host;
use crate::projection::Compiled;
use crate::verbs::explain::{Lineage, explain};
use crate::verbs::report::report as rebuild_report;
use crate::verbs::trace::{Sources, Trace, trace};
use crate::verbs::{VerbError, connectors, letters, rebuild};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

type Answer = Result<Json<Value>, Problem>;
type Asked<T> = Result<Query<T>, QueryRejection>;
type Named<T> = Result<Path<T>, PathRejection>;

/// Letters that are listed where nobody says how many.
const LETTERS_SHOWN: u32 = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfReadModel {
    read_model: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Letters {
    read_model: Option<String>,
    limit: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    key: String,
}

fn to_json(value: impl serde::Serialize) -> Answer {
    let failed = |error: serde_json::Error| Problem::from(VerbError::Unreadable(error.to_string()));
    serde_json::to_value(value).map(Json).map_err(failed)
}

pub(super) async fn lag(State(admin): State<Arc<Admin>>) -> Answer {
    to_json(report(&admin.site.control, admin.board.before()).await?)
}

pub(super) async fn status(State(admin): State<Arc<Admin>>) -> Answer {
    let site = &admin.site;
    to_json(status::status(&site.control, &site.catalog, &site.stores).await?)
}

pub(super) async fn log() -> Json<Value> {
    Json(json!({ "filter": telemetry::logs::filter() }))
}

pub(super) async fn plan(State(admin): State<Arc<Admin>>) -> Answer {
    let plan = rebuild::plan(&admin.site, &admin.projections).await?;
    Ok(Json(json!({ "changes": plan.changes })))
}

pub(super) async fn rebuilds(State(admin): State<Arc<Admin>>, asked: Asked<OfReadModel>) -> Answer {
    let Query(asked) = asked?;
    Ok(Json(rebuild_report(&admin.site, asked.read_model.as_deref()).await?.json()))
}

pub(super) async fn dead_letters(State(admin): State<Arc<Admin>>, asked: Asked<Letters>) -> Answer {
    let Query(Letters { read_model, limit }) = asked?;
    let limit = i64::from(limit.unwrap_or(LETTERS_SHOWN));
    let lines = admin.site.control.dead_letters(read_model.as_deref(), limit).await?;
    Ok(Json(json!({ "dead_letters": lines.iter().map(letters::line_json).collect::<Vec<_>>() })))
}

pub(super) async fn dead_letter(State(admin): State<Arc<Admin>>, id: Named<Uuid>, asked: Asked<OfReadModel>) -> Answer {
    let (Path(id), Query(asked)) = (id?, asked?);
    let all = letters::show(&admin.site.control, id, asked.read_model.as_deref(), decoder(&admin)).await?;
    Ok(Json(json!({ "dead_letters": all.iter().map(letters::Whole::json).collect::<Vec<_>>() })))
}

pub(super) async fn epochs(State(admin): State<Arc<Admin>>) -> Answer {
    Ok(Json(json!({ "epochs": admin.site.control.epochs().await? })))
}

pub(super) async fn explained(State(admin): State<Arc<Admin>>, name: Named<String>) -> Answer {
    let Path(name) = name?;
    let (generation, compiled) = opened(&admin, &name).await?;
    let text = explain(&compiled, &format!("{} as applied", generation.id()), None);
    Ok(Json(json!({ "lineage": Lineage::of(&compiled, &admin.site.catalog), "text": text })))
}

pub(super) async fn traced(State(admin): State<Arc<Admin>>, name: Named<String>, asked: Asked<Key>) -> Answer {
    let (Path(name), Query(Key { key })) = (name?, asked?);
    to_json(history(&admin, &name, &key).await?)
}

pub(super) async fn all_connectors(State(admin): State<Arc<Admin>>) -> Answer {
    let all = connectors::list(admin.connect_url.as_deref()).await?;
    let all: Vec<_> = all
        .iter()
        .map(|c| json!({"name": c.name, "state": c.state, "tasks": c.tasks, "failures": c.failures}))
        .collect();
    Ok(Json(json!({ "connectors": all, "actions": admin.site.control.actions(20).await? })))
}

/// What reads events, or why nothing does.
pub(in crate::ops) fn decoder(admin: &Admin) -> Result<&Decoder, String> {
    admin.site.decoder.as_deref().ok_or_else(|| "no schema registry was named".to_owned())
}

/// A live read model as it was applied.
pub(in crate::ops) async fn opened(admin: &Admin, name: &str) -> Result<(Generation, Compiled), Problem> {
    let live = admin.site.control.live().await?;
    let generation = live.into_iter().find(|generation| generation.read_model == name);
    let unknown = || VerbError::NotFound(format!("no read model `{name}` is live"));
    let generation = generation.ok_or_else(unknown)?;
    let (compiled, _) = host::open(&generation, &admin.site.catalog, &admin.site.stores).map_err(VerbError::from)?;
    Ok((generation, compiled))
}

/// How a document came to be.
pub(in crate::ops) async fn history(admin: &Admin, name: &str, key: &str) -> Result<Trace, VerbError> {
    let site = &admin.site;
    let missing = |what: &str| VerbError::Unconfigured(format!("start `projector run` with {what}, for histories"));
    let sources = Sources {
        control: &site.control,
        catalog: &site.catalog,
        stores: &site.stores,
        decoder: site.decoder.as_ref().ok_or_else(|| missing("--schema-registry-url"))?,
        event_store: site.event_store.as_deref().ok_or_else(|| missing("--write-database-url (WRITE_DATABASE_URL)"))?,
    };
    trace(&sources, name, key).await
}
