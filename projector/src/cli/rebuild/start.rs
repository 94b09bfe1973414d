//! Starting rebuilds, alone or together, and waiting for them.

use super::super::site::{SiteArgs, attend};
use super::super::{check, plan, stop_signal};
use super::{How, One};
use crate::control::{Actor, New, Options, Origin, Rebuild, Verify};
use crate::generation::{Site, What, changes, may_rebuild, origin};
use crate::projection::{Compiled, Source};
use crate::source::partition_counts;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// What is to be built, and the fields that may differ then.
pub(crate) struct Wanted<'a> {
    pub(crate) compiled: &'a Compiled,
    pub(crate) source: &'a Source,
    pub(crate) announced: Option<Vec<String>>,
}

pub(super) async fn start_named(
    args: &SiteArgs,
    names: &[String],
    projections: &[PathBuf],
    how: &How,
) -> anyhow::Result<ExitCode> {
    let site = args.open(&how.by).await?;
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
    let mut wanted = Vec::new();
    for change in plan.iter().filter(|change| names.contains(&change.read_model)) {
        let Some((compiled, source)) = all.iter().find(|(c, _)| c.projection.name.value == change.read_model) else {
            continue;
        };
        plan::print(change);
        // The same projection again must give the same documents.
        let announced = if change.what == What::Rebuild { change.fields.clone() } else { Some(Vec::new()) };
        wanted.push(Wanted { compiled, source, announced });
    }
    start(&site, &wanted, how).await
}

/// Starts rebuilds and drives them, one after the other unless they go live together, or leaves them to the hosts.
pub(crate) async fn start(site: &Site, wanted: &[Wanted<'_>], how: &How) -> anyhow::Result<ExitCode> {
    let each = if how.together { wanted.len().max(1) } else { 1 };
    let mut worst = ExitCode::SUCCESS;
    for wanted in wanted.chunks(each) {
        let mut ready: Vec<(String, BTreeMap<String, i32>, Options)> = Vec::new();
        for Wanted { compiled, announced, .. } in wanted {
            let topics = partition_counts(&site.kafka, &compiled.topics())?;
            may_rebuild(site, compiled).await?;
            let origin = origin(site, &compiled.projection.name.value, &topics, how.from.wanted()).await?;
            if origin == Origin::EventStore {
                println!("{}: its history is read from the event store", compiled.projection.name.value);
            }
            ready.push((compiled.fingerprint(), topics, how.options(origin, announced.clone())));
        }
        let all: Vec<New<'_>> = wanted
            .iter()
            .zip(&ready)
            .map(|(wanted, (fingerprint, topics, options))| New {
                read_model: &wanted.compiled.projection.name.value,
                fingerprint,
                config: &wanted.source.text,
                topics,
                options,
            })
            .collect();
        let actor = Actor { who: &how.by, why: how.reason.as_deref() };
        let rebuilds = site.control.start_rebuilds(&all, actor).await?;
        let code = finish(site, &rebuilds, how.detach).await?;
        if code != ExitCode::SUCCESS {
            worst = code;
        }
    }
    Ok(worst)
}

/// Builds what is live anew, as it was applied, without the one that is lost.
pub(super) async fn repair(site: &Site, one: &One, from: Option<Origin>, detach: bool) -> anyhow::Result<ExitCode> {
    let live = site.control.live().await?;
    let Some(live) = live.into_iter().find(|generation| generation.read_model == one.name) else {
        anyhow::bail!("no read model `{}` is live; `projector apply` creates it", one.name)
    };
    let (compiled, _) = crate::host::open(&live, &site.catalog, &site.stores)?;
    may_rebuild(site, &compiled).await?;
    let from = origin(site, &one.name, &live.topics, from).await?;
    let options = Options { back: false, repair: true, from, ..Options::back(Verify::Sample(0)) };
    let new = New {
        read_model: &live.read_model,
        fingerprint: &live.fingerprint,
        config: &live.config,
        topics: &live.topics,
        options: &options,
    };
    let rebuilds = site.control.start_rebuilds(&[new], one.actor()).await?;
    finish(site, &rebuilds, detach).await
}

/// Waits until all of them have come to rest, unless they are left to the hosts.
pub(super) async fn finish(site: &Site, rebuilds: &[Rebuild], detach: bool) -> anyhow::Result<ExitCode> {
    let names: Vec<&str> = rebuilds.iter().map(|rebuild| rebuild.read_model.as_str()).collect();
    let names = names.join(", ");
    if detach {
        println!("{names}: left to the hosts; see `projector rebuild status`");
        return Ok(ExitCode::SUCCESS);
    }
    let several = rebuilds.len() > 1;
    let all = futures::future::try_join_all(rebuilds.iter().map(|rebuild| attend(site, rebuild, several)));
    tokio::select! {
        codes = all => Ok(codes?.into_iter().find(|code| *code != ExitCode::SUCCESS).unwrap_or(ExitCode::SUCCESS)),
        () = stop_signal() => {
            eprintln!("\n{names}: the hosts go on; `projector rebuild abort {}` ends it", rebuilds[0].read_model);
            Ok(ExitCode::FAILURE)
        }
    }
}
