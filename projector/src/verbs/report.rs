//! What can be said of rebuilds.

use super::VerbError;
use crate::control::{LogLine, Member, Origin};
use crate::generation::{Site, Status};
use serde_json::{Value as Json, json};

/// Lines of the log that are shown.
const LOG_SHOWN: i64 = 20;

/// What is under way, what is kept for a way back, and what was done.
pub(crate) struct Report {
    pub(crate) members: Vec<Member>,
    pub(crate) rebuilds: Vec<Status>,
    /// Of one read model; the newest first.
    pub(crate) log: Vec<LogLine>,
}

/// Of one read model, or of all; the log only of one.
///
/// # Errors
/// The control store or Kafka doesn't answer.
pub(crate) async fn report(site: &Site, name: Option<&str>) -> Result<Report, VerbError> {
    let is_ours = |read_model: &str| name.is_none_or(|name| name == read_model);
    let members = site.control.members().await?.into_iter().filter(|m| is_ours(&m.generation.read_model)).collect();
    let mut rebuilds = Vec::new();
    for rebuild in site.control.rebuilds().await?.into_iter().filter(|r| is_ours(&r.read_model)) {
        rebuilds.push(site.status(&rebuild).await?);
    }
    let log = match name {
        Some(name) => site.control.generation_log(name, LOG_SHOWN).await?,
        None => Vec::new(),
    };
    Ok(Report { members, rebuilds, log })
}

impl Report {
    /// For machines.
    pub(crate) fn json(&self) -> Json {
        let rebuilds: Vec<_> = self
            .rebuilds
            .iter()
            .map(|s| {
                let leads = self.rebuilds.iter().any(|o| o.rebuild.leader == Some(s.rebuild.rebuild_id));
                json!({
                    "read_model": s.rebuild.read_model, "from": s.replaces, "to": s.target.generation.generation,
                    "state": s.target.state, "paused": s.target.paused, "paused_why": s.target.paused_why,
                    "events_done": s.done, "events_total": s.total, "live_behind": s.live_behind,
                    "from_event_store": s.rebuild.options.from == Origin::EventStore, "history": s.rebuild.history,
                    "together": s.rebuild.leader.is_some() || leads,
                    "repair": s.rebuild.options.repair, "at_barrier": s.at_barrier, "driver": s.rebuild.driver, "asked_by": s.rebuild.asked_by,
                    "finding": s.rebuild.finding,
                })
            })
            .collect();
        let generations: Vec<_> = self
            .members
            .iter()
            .map(|m| {
                json!({"read_model": m.generation.read_model, "generation": m.generation.generation, "state": m.state,
                       "paused": m.paused, "paused_why": m.paused_why, "fed_until": m.fed_until})
            })
            .collect();
        json!({"rebuilds": rebuilds, "generations": generations, "log": self.log})
    }
}
