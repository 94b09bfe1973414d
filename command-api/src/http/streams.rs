//! `GET /v1/streams/{id}/events` and `/state`: what happened, when, by whom; and what was then.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use chrono::Datelike;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::audit::{self, At, AuditError};
use crate::domain::Time;
use crate::store::read::{Recorded, history};
use crate::store::{CommandError, Store};

const PAGE: i64 = 100;
const PAGE_MAX: i64 = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    after: Option<String>,
    limit: Option<String>,
}

pub(super) async fn events(
    State(store): State<Store>,
    Path(stream): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(page) = page.map_err(rejected)?;
    let stream = named(stream)?;
    let after = number("after", page.after.as_deref(), 0, 0..=i64::MAX)?;
    let limit = number("limit", page.limit.as_deref(), PAGE, 1..=PAGE_MAX)?;
    let mut connection = store.pool().acquire().await.map_err(CommandError::from)?;
    let events = history(&mut connection, &stream, after, limit).await.map_err(CommandError::from)?;
    if events.is_empty() {
        // An end that was reached is an answer; a stream that isn't there is none.
        audit::state(&mut connection, &stream, At::Position(1)).await?;
    }
    let full = i64::try_from(events.len()).is_ok_and(|len| len == limit);
    let next = events.last().filter(|_| full).map(|event| event.position);
    let events: Vec<Value> = events.iter().map(told).collect();
    Ok(Json(json!({"stream_id": stream, "events": events, "next_after": next})))
}

fn told(event: &Recorded) -> Value {
    let behind = |name: &str| event.metadata.get(name).cloned().unwrap_or_default();
    json!({
        "position": event.position,
        "event_id": event.event_id,
        "event_type": event.event_type,
        "schema_version": event.schema_version,
        "occurred_at": event.occurred_at,
        "user_id": behind("user_id"),
        "correlation_id": behind("correlation_id"),
        "causation_id": behind("causation_id"),
        "data": event.data,
        "metadata": event.metadata,
        "global_position": event.global_position,
        "txid": event.txid,
        "epoch": event.epoch,
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Moment {
    at: Option<String>,
}

pub(super) async fn state(
    State(store): State<Store>,
    Path(stream): Path<String>,
    moment: Result<Query<Moment>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(moment) = moment.map_err(rejected)?;
    let stream = named(stream)?;
    let at = match moment.at.as_deref() {
        None => At::End,
        Some(text) => read_moment(text)?,
    };
    let mut connection = store.pool().acquire().await.map_err(CommandError::from)?;
    let state = audit::state(&mut connection, &stream, at).await?;
    Ok(Json(json!(state)))
}

fn read_moment(text: &str) -> Result<At, Problem> {
    if let Ok(position) = text.parse() {
        return Ok(At::Position(position));
    }
    // A plus sign in a query means a space.
    let time: Result<Time, _> = text.replace(' ', "+").parse();
    // Postgres doesn't know all years that can be written.
    let time = time.ok().filter(|time| (1..=9999).contains(&time.year()));
    time.map(At::Time)
        .ok_or_else(|| Problem::malformed("at", "must be a position or a time such as 2026-05-23T10:00:00Z"))
}

fn rejected(rejection: QueryRejection) -> Problem {
    Problem::malformed("?", rejection.body_text())
}

/// Postgres can't be asked for a zero character.
fn named(stream: String) -> Result<String, Problem> {
    if stream.contains('\0') { Err(Problem::not_found("stream", "with a zero character")) } else { Ok(stream) }
}

fn number(name: &str, text: Option<&str>, default: i64, bounds: std::ops::RangeInclusive<i64>) -> Result<i64, Problem> {
    let Some(text) = text else { return Ok(default) };
    let number = text.parse().ok().filter(|n| bounds.contains(n));
    number.ok_or_else(|| Problem::malformed(name, format!("must be from {} to {}", bounds.start(), bounds.end())))
}

impl From<AuditError> for Problem {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::NoStream(stream) => Self::not_found("stream", &stream),
            AuditError::NotThen { .. } => Self::not_then(error.to_string()),
            AuditError::Store(error) => error.into(),
            AuditError::Condition(error) => Self::malformed("until", error.to_string()),
        }
    }
}
