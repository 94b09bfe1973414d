//! What the API changes of generations. Each change names who does it and why.

use super::{Admin, Problem};
use crate::control::{Actor, Health, Options, Origin, Rebuild, Verify};
use crate::generation::What;
use crate::verbs::{apply, rebuild};
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) type Answer = Result<Json<Value>, Problem>;
pub(super) type Body<T> = Result<Json<T>, JsonRejection>;
pub(super) type Named = Result<Path<String>, PathRejection>;

/// An hour to go back.
const ROLLBACK_S: u32 = 3_600;
const BY_CHARS_MAX: usize = 200;
const REASON_CHARS_MAX: usize = 1_000;

/// Who does something and why, if both are said.
pub(in crate::ops) fn actor<'a>(by: &'a str, reason: &'a str) -> Result<Actor<'a>, Problem> {
    for (name, text, max) in [("by", by, BY_CHARS_MAX), ("reason", reason, REASON_CHARS_MAX)] {
        if text.trim().is_empty() || text.chars().count() > max || text.contains('\0') {
            return Err(Problem::malformed(format!("`{name}` must say something, in at most {max} characters")));
        }
    }
    Ok(Actor { who: by.trim(), why: Some(reason.trim()) })
}

/// A rebuild as it is asked for; what isn't said is as the command line has it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::ops) struct Start {
    pub(in crate::ops) read_models: Vec<String>,
    #[serde(default)]
    pub(in crate::ops) together: bool,
    /// Documents that are compared; all of them where it is `"all"`.
    #[serde(default)]
    pub(in crate::ops) verify: Option<Verify>,
    /// Whether it goes live by itself.
    #[serde(default = "yes")]
    pub(in crate::ops) promote: bool,
    #[serde(default)]
    pub(in crate::ops) from: Option<Origin>,
    #[serde(default)]
    pub(in crate::ops) throttle: Option<u32>,
    #[serde(default)]
    pub(in crate::ops) rollback_s: Option<u32>,
    pub(in crate::ops) by: String,
    pub(in crate::ops) reason: String,
}

fn yes() -> bool {
    true
}

impl Start {
    fn options(&self) -> Options {
        Options {
            verify: self.verify.unwrap_or(Verify::Sample(1_000)),
            promote: self.promote,
            throttle: self.throttle,
            rollback_s: self.rollback_s.unwrap_or(ROLLBACK_S),
            announced: None,
            despite: false,
            back: false,
            repair: false,
            from: Origin::default(),
            health: Some(Health::default()),
        }
    }
}

/// Begins rebuilds; the hosts drive them.
pub(in crate::ops) async fn begin(admin: &Admin, asked: &Start) -> Result<Vec<Rebuild>, Problem> {
    let actor = actor(&asked.by, &asked.reason)?;
    let plan = rebuild::plan(&admin.site, &admin.projections).await?;
    let wanted = plan.wanted(&asked.read_models)?;
    if wanted.is_empty() {
        return Err(Problem::malformed("`read_models` must name one at least"));
    }
    let each = if asked.together { wanted.len() } else { 1 };
    let mut all = Vec::new();
    for wanted in wanted.chunks(each) {
        all.extend(rebuild::begin(&admin.site, wanted, asked.from, &asked.options(), actor).await?);
    }
    Ok(all)
}

/// Rebuilds that were begun or asked about, without what is found out later.
fn begun(all: &[Rebuild]) -> Json<Value> {
    let all: Vec<_> = all.iter().map(|r| json!({"rebuild_id": r.rebuild_id, "read_model": r.read_model})).collect();
    Json(json!({ "rebuilds": all }))
}

pub(super) async fn start(State(admin): State<Arc<Admin>>, body: Body<Start>) -> Answer {
    let Json(asked) = body?;
    Ok(begun(&begin(&admin, &asked).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Apply {
    #[serde(default)]
    prune: bool,
    by: String,
    reason: String,
}

/// As `projector apply --detach`.
pub(super) async fn apply_all(State(admin): State<Arc<Admin>>, body: Body<Apply>) -> Answer {
    let Json(Apply { prune, by, reason }) = body?;
    let actor = actor(&by, &reason)?;
    let plan = rebuild::plan(&admin.site, &admin.projections).await?;
    let mut done = Vec::new();
    for change in plan.changes.iter().filter(|change| change.what != What::Rebuild) {
        if let Some(said) = apply::apply(&admin.site, &plan, change, prune, actor).await? {
            done.push(json!({"read_model": change.read_model, "done": said}));
        }
    }
    let names = plan.rebuilds().iter().map(|wanted| wanted.change.read_model.clone()).collect::<Vec<_>>();
    let mut rebuilds = Vec::new();
    if !names.is_empty() {
        let asked = Start { read_models: names, promote: true, by, reason, ..Start::default() };
        rebuilds = begin(&admin, &asked).await?;
    }
    let Json(mut answer) = begun(&rebuilds);
    answer["applied"] = done.into();
    Ok(Json(answer))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Why {
    pub(super) by: String,
    pub(super) reason: String,
}

pub(super) async fn pause(State(admin): State<Arc<Admin>>, name: Named, body: Body<Why>) -> Answer {
    hold(&admin, name, body, true).await
}

pub(super) async fn resume(State(admin): State<Arc<Admin>>, name: Named, body: Body<Why>) -> Answer {
    hold(&admin, name, body, false).await
}

async fn hold(admin: &Admin, name: Named, body: Body<Why>, pause: bool) -> Answer {
    let (Path(name), Json(Why { by, reason })) = (name?, body?);
    let said = rebuild::pause(&admin.site, &name, pause, actor(&by, &reason)?).await?;
    Ok(Json(json!({"read_model": name, "done": said})))
}

pub(super) async fn abort(State(admin): State<Arc<Admin>>, name: Named, body: Body<Why>) -> Answer {
    let (Path(name), Json(Why { by, reason })) = (name?, body?);
    rebuild::abort(&admin.site, &name, actor(&by, &reason)?).await?;
    Ok(Json(json!({"read_model": name, "done": "aborted; the hosts remove what was built"})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Promote {
    #[serde(default)]
    despite_differences: bool,
    by: String,
    reason: String,
}

pub(super) async fn promote(State(admin): State<Arc<Admin>>, name: Named, body: Body<Promote>) -> Answer {
    let (Path(name), Json(Promote { despite_differences, by, reason })) = (name?, body?);
    Ok(begun(&rebuild::promote(&admin.site, &name, despite_differences, actor(&by, &reason)?).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollback {
    read_models: Vec<String>,
    by: String,
    reason: String,
}

pub(super) async fn roll_back(State(admin): State<Arc<Admin>>, body: Body<Rollback>) -> Answer {
    let Json(Rollback { read_models, by, reason }) = body?;
    if read_models.is_empty() {
        return Err(Problem::malformed("`read_models` must name one at least"));
    }
    Ok(begun(&rebuild::roll_back(&admin.site, &read_models, actor(&by, &reason)?).await?))
}

pub(super) async fn retire(State(admin): State<Arc<Admin>>, name: Named, body: Body<Why>) -> Answer {
    let (Path(name), Json(Why { by, reason })) = (name?, body?);
    let former = rebuild::retire(&admin.site, &name, actor(&by, &reason)?).await?;
    let said = format!("generation {} is given up; the hosts remove its place", former.generation);
    Ok(Json(json!({"read_model": name, "done": said})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Repair {
    #[serde(default)]
    from: Option<Origin>,
    by: String,
    reason: String,
}

pub(super) async fn repair(State(admin): State<Arc<Admin>>, name: Named, body: Body<Repair>) -> Answer {
    let (Path(name), Json(Repair { from, by, reason })) = (name?, body?);
    Ok(begun(&rebuild::repair(&admin.site, &name, from, actor(&by, &reason)?).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    key: String,
    by: String,
    reason: String,
}

pub(super) async fn make_anew(State(admin): State<Arc<Admin>>, name: Named, body: Body<One>) -> Answer {
    let (Path(name), Json(One { key, by, reason })) = (name?, body?);
    let order = rebuild::make_anew(&admin.site, &name, &key, actor(&by, &reason)?).await?;
    Ok(Json(json!({"read_model": name, "key": key, "outcome": order.outcome, "answer": order.answer})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    filter: String,
    by: String,
    reason: String,
}

pub(super) async fn log(body: Body<Log>) -> Answer {
    let Json(Log { filter, by, reason }) = body?;
    let actor = actor(&by, &reason)?;
    // Before: the new filter may leave this line out.
    tracing::info!(filter, by = actor.who, reason = actor.why, "other log lines are asked for");
    telemetry::logs::set_filter(&filter).map_err(Problem::malformed)?;
    Ok(Json(json!({ "filter": telemetry::logs::filter() })))
}
