//! `projector rebuild status`.

use super::super::Output;
use crate::control::{LogLine, Origin, State};
use crate::generation::Site;
use serde_json::json;
use std::process::ExitCode;

pub(super) async fn status(site: &Site, name: Option<&str>, output: Output) -> anyhow::Result<ExitCode> {
    let is_ours = |read_model: &str| name.is_none_or(|name| name == read_model);
    let members: Vec<_> =
        site.control.members().await?.into_iter().filter(|m| is_ours(&m.generation.read_model)).collect();
    let mut rebuilds = Vec::new();
    for rebuild in site.control.rebuilds().await?.into_iter().filter(|r| is_ours(&r.read_model)) {
        rebuilds.push(site.status(&rebuild).await?);
    }
    let log = match name {
        Some(name) => site.control.generation_log(name, 20).await?,
        None => Vec::new(),
    };
    if output == Output::Json {
        let rebuilds: Vec<_> = rebuilds
            .iter()
            .map(|s| {
                json!({
                    "read_model": s.rebuild.read_model, "from": s.replaces, "to": s.target.generation.generation,
                    "state": s.target.state, "paused": s.target.paused, "paused_why": s.target.paused_why,
                    "events_done": s.done, "events_total": s.total, "live_behind": s.live_behind,
                    "from_event_store": s.rebuild.options.from == Origin::EventStore, "history": s.rebuild.history,
                    "together": s.rebuild.leader.is_some() || rebuilds.iter().any(|o| o.rebuild.leader == Some(s.rebuild.rebuild_id)),
                    "repair": s.rebuild.options.repair, "at_barrier": s.at_barrier, "driver": s.rebuild.driver, "asked_by": s.rebuild.asked_by,
                    "finding": s.rebuild.finding,
                })
            })
            .collect();
        let generations: Vec<_> = members
            .iter()
            .map(|m| {
                json!({"read_model": m.generation.read_model, "generation": m.generation.generation, "state": m.state,
                       "paused": m.paused, "paused_why": m.paused_why, "fed_until": m.fed_until})
            })
            .collect();
        let all = json!({"rebuilds": rebuilds, "generations": generations, "log": log});
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(ExitCode::SUCCESS);
    }
    for m in &members {
        let until = m
            .fed_until
            .filter(|_| m.state == State::Retired)
            .map(|at| format!(", fed until {}", crate::expr::json::time_text(&at)));
        let paused = m.paused.then(|| format!(", paused: {}", m.paused_why.as_deref().unwrap_or("no reason given")));
        println!(
            "{:<28} {}{}{}",
            m.generation.id(),
            m.state.name(),
            until.unwrap_or_default(),
            paused.unwrap_or_default()
        );
    }
    for s in &rebuilds {
        let driver = s.rebuild.driver.as_deref().unwrap_or("nobody for now");
        let from = if s.rebuild.history.is_some_and(|history| !history.finished) { " of the event store" } else { "" };
        println!(
            "{}: g{} → g{}, {}/{} events{from}, live is {} behind; asked for by {}, driven by {driver}",
            s.rebuild.read_model,
            s.replaces,
            s.target.generation.generation,
            s.done,
            s.total,
            s.live_behind,
            s.rebuild.asked_by
        );
        if let Some(refusal) = s.rebuild.finding.as_ref().and_then(|f| f["refusal"].as_str()) {
            println!("    stopped: {refusal}");
        }
    }
    log.iter().rev().for_each(print_line);
    Ok(ExitCode::SUCCESS)
}

fn print_line(line: &LogLine) {
    let why = line.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    println!("{}  g{:<3} {:<20} {}{why}", crate::expr::json::time_text(&line.at), line.generation, line.what, line.who);
}
