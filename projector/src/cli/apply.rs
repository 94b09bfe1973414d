//! `projector apply`: makes what the files say the live catalog.

use super::rebuild::{How, Wanted, start};
use super::site::SiteArgs;
use super::{check, plan};
use crate::control::{Actor, Generation};
use crate::generation::{Change, Site, What, changes};
use crate::host;
use crate::projection::{Compiled, Source};
use crate::source::partition_counts;
use anyhow::Context;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `apply`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// Files or folders of projections
    #[arg(env = "PROJECTIONS_DIR", default_value = "projections")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    how: How,
    /// Give up live read models that no file in these folders declares, with all that is in their stores
    #[arg(long)]
    prune: bool,
}

pub(super) async fn run(args: &ApplyArgs) -> anyhow::Result<ExitCode> {
    let site = args.site.open(&args.how.by).await?;
    let Some(all) = check::load(&args.paths, &site.catalog)? else { return Ok(ExitCode::FAILURE) };
    let live = site.control.live().await?;
    let changes = changes(&live, &all, plan::are_all(&args.paths), &site.catalog);
    let of = |name: &str| all.iter().find(|(compiled, _)| compiled.projection.name.value == name);
    let mut rebuilds: Vec<(&Change, &(Compiled, Source))> = Vec::new();
    for change in &changes {
        let generation = live.iter().find(|g| g.read_model == change.read_model);
        match (change.what, of(&change.read_model), generation) {
            (What::Rebuild, Some(file), _) => rebuilds.push((change, file)),
            (What::Retire, _, Some(generation)) => retire(args, &site, generation).await?,
            (what, Some((compiled, source)), _) => apply_one(args, &site, what, generation, compiled, source).await?,
            _ => {}
        }
    }
    // Last, since they take their time.
    let wanted: Vec<_> = rebuilds
        .into_iter()
        .map(|(change, (compiled, source))| {
            plan::print(change);
            Wanted { compiled, source, announced: change.fields.clone() }
        })
        .collect();
    start(&site, &wanted, &args.how).await
}

async fn retire(args: &ApplyArgs, site: &Site, generation: &Generation) -> anyhow::Result<()> {
    let name = &generation.read_model;
    if !args.prune {
        println!("{name}: no file declares it; left as it is (`projector apply --prune` gives it up)");
        return Ok(());
    }
    let actor = Actor { who: &args.how.by, why: args.how.reason.as_deref().or(Some("no file declares it")) };
    let given_up = site.control.give_up(generation.generation_id, actor).await?;
    anyhow::ensure!(given_up, "{name} is being rebuilt; `projector rebuild abort {name}` first");
    println!("{name}: given up; the hosts remove its place");
    Ok(())
}

async fn apply_one(
    args: &ApplyArgs,
    site: &Site,
    what: What,
    live: Option<&Generation>,
    compiled: &Compiled,
    source: &Source,
) -> anyhow::Result<()> {
    let name = &compiled.projection.name.value;
    let (generation, said) = match live {
        Some(generation) if what == What::InPlace => {
            site.control.update_config(generation.generation_id, &source.text).await?;
            (generation.clone(), "changed in place (queries)")
        }
        Some(generation) => (generation.clone(), "unchanged"),
        None => {
            let topics = partition_counts(&args.site.kafka, &compiled.topics())?;
            (site.control.create_live(name, &compiled.fingerprint(), &source.text, &topics).await?, "created")
        }
    };
    // Also for an unchanged one: a store that lost its place gets it again. No other one goes live meanwhile.
    if let Some(stays) = site.control.stay_live(generation.generation_id).await? {
        let (_, sink) = host::open(&generation, &site.catalog, &args.site.stores)?;
        sink.prepare().await.with_context(|| format!("{name}: can't prepare its place"))?;
        sink.go_live().await.with_context(|| format!("{name}: can't make its place the live one"))?;
        drop(stays);
    }
    println!("{name}: generation {} {said}", generation.generation);
    Ok(())
}
