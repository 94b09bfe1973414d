//! `projector rebuild status`.

use super::super::Output;
use crate::control::{LogLine, State};
use crate::generation::Site;
use crate::verbs::report::report;
use std::process::ExitCode;

pub(super) async fn status(site: &Site, name: Option<&str>, output: Output) -> anyhow::Result<ExitCode> {
    let report = report(site, name).await?;
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
        return Ok(ExitCode::SUCCESS);
    }
    for m in &report.members {
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
    for s in &report.rebuilds {
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
    report.log.iter().rev().for_each(print_line);
    Ok(ExitCode::SUCCESS)
}

fn print_line(line: &LogLine) {
    let why = line.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    println!("{}  g{:<3} {:<20} {}{why}", crate::expr::json::time_text(&line.at), line.generation, line.what, line.who);
}
