//! `projector rebuild`: another generation, while everything runs.

use super::site::{SiteArgs, attend};
use super::{Output, check};
use crate::control::{Actor, LogLine, Member, Options, Rebuild, State, Verify};
use crate::generation::{Site, What, changes, may_rebuild};
use crate::projection::{Compiled, Source};
use crate::source::partition_counts;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `rebuild`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RebuildArgs {
    #[command(subcommand)]
    verb: RebuildVerb,
    #[command(flatten)]
    site: SiteArgs,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum RebuildVerb {
    /// Build another generation of read models from their files, and make it live once it is as far as the live one
    Start {
        /// The read models
        #[arg(required = true)]
        names: Vec<String>,
        /// Files or folders of projections
        #[arg(long, env = "PROJECTIONS_DIR", default_value = "projections")]
        projections: Vec<PathBuf>,
        #[command(flatten)]
        how: How,
    },
    /// Show what is under way, what is kept for a way back, and what was done
    Status {
        /// Of this read model only
        name: Option<String>,
        /// How to print it
        #[arg(long, short, value_enum, default_value = "text")]
        output: Output,
    },
    /// Stop feeding the new generation for now
    Pause(One),
    /// Feed it again
    Resume(One),
    /// End a rebuild before it is live; what was built is removed
    Abort(One),
    /// Let a verified generation go live
    Promote {
        #[command(flatten)]
        one: One,
        /// Although it differs in what the plan didn't announce
        #[arg(long)]
        despite_differences: bool,
        /// Don't wait for it
        #[arg(long)]
        detach: bool,
    },
    /// Go back to the generation that was live before, or forward again
    Rollback {
        #[command(flatten)]
        one: One,
        /// Don't wait for it
        #[arg(long)]
        detach: bool,
    },
    /// Give up the former generation before its time for a rollback is over
    Retire(One),
}

#[derive(Clone, Debug, clap::Args)]
struct One {
    /// The read model
    name: String,
    /// Who does it, for the log
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
    /// Why, for those who ask later
    #[arg(long)]
    reason: Option<String>,
}

impl One {
    fn actor(&self) -> Actor<'_> {
        Actor { who: &self.by, why: self.reason.as_deref() }
    }
}

/// How a rebuild is done.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct How {
    /// What is compared before it goes live: `all` documents, while both generations stand still, or `sample:N` of them; always
    /// their number
    #[arg(long, value_parser = verify, default_value = "sample:1000")]
    verify: Verify,
    /// Whether it goes live by itself once it may, or waits for `rebuild promote`
    #[arg(long, value_enum, default_value = "auto")]
    promote: Promote,
    /// Events a second that the replay may take on each host, at most
    #[arg(long)]
    throttle: Option<u32>,
    /// How long the replaced generation is fed, for a way back, such as 90s, 30m, 1h
    #[arg(long, value_parser = seconds, default_value = "1h")]
    rollback_window: u32,
    /// Leave it to the hosts, and don't wait for it
    #[arg(long)]
    detach: bool,
    /// Who does it, for the log
    #[arg(long, env = "USER", default_value = "unknown")]
    pub(super) by: String,
    /// Why, for those who ask later
    #[arg(long)]
    pub(super) reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Promote {
    Auto,
    Manual,
}

fn verify(text: &str) -> Result<Verify, String> {
    match text.split_once(':') {
        None if text == "all" => Ok(Verify::All),
        Some(("sample", count)) => count.parse().map(Verify::Sample).map_err(|_| format!("`{count}` is no number")),
        _ => Err("expected `all` or `sample:N`".to_owned()),
    }
}

fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || "expected a number with s, m or h, such as 30m".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let each = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => return Err(wrong()),
    };
    let number: u32 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    number.checked_mul(each).ok_or_else(wrong)
}

pub(super) async fn run(args: &RebuildArgs) -> anyhow::Result<ExitCode> {
    match &args.verb {
        RebuildVerb::Start { names, projections, how } => start_all(args, names, projections, how).await,
        RebuildVerb::Status { name, output } => {
            let site = args.site.open("status").await?;
            status(&site, name.as_deref(), *output).await
        }
        RebuildVerb::Pause(one) => pause(args, one, true).await,
        RebuildVerb::Resume(one) => pause(args, one, false).await,
        RebuildVerb::Abort(one) => {
            let site = args.site.open(&one.by).await?;
            site.control.abort_rebuild(&under_way(&site, &one.name).await?, one.actor()).await?;
            println!("{}: aborted; the hosts remove what was built", one.name);
            Ok(ExitCode::SUCCESS)
        }
        RebuildVerb::Promote { one, despite_differences, detach } => {
            let site = args.site.open(&one.by).await?;
            let rebuild = under_way(&site, &one.name).await?;
            site.control.ask_promotion(&rebuild, *despite_differences, one.actor()).await?;
            finish(&site, &rebuild, *detach).await
        }
        RebuildVerb::Rollback { one, detach } => {
            let site = args.site.open(&one.by).await?;
            let options = Options {
                verify: Verify::Sample(100),
                promote: true,
                throttle: None,
                rollback_s: 3_600,
                announced: None,
                despite: true,
                back: true,
            };
            let rebuild = site.control.start_way_back(&one.name, &options, one.actor()).await?;
            finish(&site, &rebuild, *detach).await
        }
        RebuildVerb::Retire(one) => retire(args, one).await,
    }
}

async fn start_all(
    args: &RebuildArgs,
    names: &[String],
    projections: &[PathBuf],
    how: &How,
) -> anyhow::Result<ExitCode> {
    let site = args.site.open(&how.by).await?;
    let Some(all) = check::load(projections, &site.catalog)? else { return Ok(ExitCode::FAILURE) };
    let live = site.control.live().await?;
    let plan = changes(&live, &all, false, &site.catalog);
    for name in names {
        anyhow::ensure!(
            plan.iter().any(|change| change.read_model == *name),
            "no file in {} declares the read model `{name}`",
            projections.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
        );
    }
    let mut worst = ExitCode::SUCCESS;
    for change in plan.iter().filter(|change| names.contains(&change.read_model)) {
        let Some((compiled, source)) = all.iter().find(|(c, _)| c.projection.name.value == change.read_model) else {
            continue;
        };
        super::plan::print(change);
        // The same projection again must give the same documents.
        let announced = if change.what == What::Rebuild { change.fields.clone() } else { Some(Vec::new()) };
        let code = start(&site, compiled, source, announced, how).await?;
        if code != ExitCode::SUCCESS {
            worst = code;
        }
    }
    Ok(worst)
}

/// Starts one rebuild and drives it, or leaves it to the hosts.
pub(super) async fn start(
    site: &Site,
    compiled: &Compiled,
    source: &Source,
    announced: Option<Vec<String>>,
    how: &How,
) -> anyhow::Result<ExitCode> {
    let name = &compiled.projection.name.value;
    let topics = partition_counts(&site.kafka, &compiled.topics())?;
    may_rebuild(site, compiled, &topics).await?;
    let options = Options {
        verify: how.verify,
        promote: how.promote == Promote::Auto,
        throttle: how.throttle,
        rollback_s: how.rollback_window,
        announced,
        despite: false,
        back: false,
    };
    let actor = Actor { who: &how.by, why: how.reason.as_deref() };
    let fingerprint = compiled.fingerprint();
    let rebuild = site.control.start_rebuild(name, &fingerprint, &source.text, &topics, &options, actor).await?;
    finish(site, &rebuild, how.detach).await
}

async fn finish(site: &Site, rebuild: &Rebuild, detach: bool) -> anyhow::Result<ExitCode> {
    if detach {
        println!("{}: left to the hosts; see `projector rebuild status`", rebuild.read_model);
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        code = attend(site, rebuild) => code,
        () = super::stop_signal() => {
            eprintln!("\n{0}: the hosts go on with it; `projector rebuild abort {0}` ends it", rebuild.read_model);
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn under_way(site: &Site, name: &str) -> anyhow::Result<Rebuild> {
    let rebuild = site.control.rebuild_of(name).await?;
    rebuild.ok_or_else(|| anyhow::anyhow!("{name} isn't being rebuilt; see `projector rebuild status`"))
}

async fn pause(args: &RebuildArgs, one: &One, pause: bool) -> anyhow::Result<ExitCode> {
    let site = args.site.open(&one.by).await?;
    let target = match site.control.rebuild_of(&one.name).await? {
        Some(rebuild) => Some(rebuild.generation_id),
        None => former(&site, &one.name).await?.map(|member| member.generation.generation_id),
    };
    let Some(target) = target else {
        anyhow::bail!("{} isn't being rebuilt, and has no former generation; see `projector rebuild status`", one.name)
    };
    let changed = site.control.pause(target, pause, one.actor()).await?;
    let said = match (pause, changed) {
        (true, true) => "paused",
        (false, true) => "goes on",
        (true, false) => "was paused already, or is live",
        (false, false) => "wasn't paused",
    };
    println!("{}: {said}", one.name);
    Ok(ExitCode::SUCCESS)
}

async fn former(site: &Site, name: &str) -> anyhow::Result<Option<Member>> {
    let members = site.control.members().await?;
    Ok(members.into_iter().rev().find(|m| m.generation.read_model == name && m.state == State::Retired))
}

async fn retire(args: &RebuildArgs, one: &One) -> anyhow::Result<ExitCode> {
    let site = args.site.open(&one.by).await?;
    let Some(member) = former(&site, &one.name).await? else {
        anyhow::bail!("{} has no former generation; see `projector rebuild status`", one.name)
    };
    let retired = site.control.retire(member.generation.generation_id, one.actor()).await?;
    anyhow::ensure!(retired, "{0} is on its way back to it; `projector rebuild abort {0}` first", one.name);
    println!("{}: generation {} is given up; the hosts remove its place", one.name, member.generation.generation);
    // So that whoever starts the next one finds its place empty; where no host runs, that is said by the next one.
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if site.control.member(member.generation.generation_id).await?.removed {
            println!("{}: it is removed", one.name);
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(site: &Site, name: Option<&str>, output: Output) -> anyhow::Result<ExitCode> {
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
                    "at_barrier": s.at_barrier, "driver": s.rebuild.driver, "asked_by": s.rebuild.asked_by,
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
        println!(
            "{}: g{} → g{}, {}/{} events, live is {} behind; asked for by {}, driven by {driver}",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_samples_are_read() {
        assert_eq!((seconds("90s"), seconds("30m"), seconds("1h")), (Ok(90), Ok(1_800), Ok(3_600)));
        assert!(
            seconds("1d").is_err() && seconds("h").is_err() && seconds("").is_err() && seconds("9999999h").is_err()
        );
        assert_eq!((verify("all"), verify("sample:7")), (Ok(Verify::All), Ok(Verify::Sample(7))));
        assert!(verify("some").is_err() && verify("sample:x").is_err());
    }
}
