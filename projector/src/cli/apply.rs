//! `projector apply`: makes what the files say the live catalog.

use super::{ControlArg, SchemasArg, check};
use crate::control::{Control, Generation};
use crate::event::Catalog;
use crate::host;
use crate::projection::{Compiled, Source};
use crate::sink::StoreUrls;
use crate::source::{KafkaConfig, partition_counts};
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
    schemas: SchemasArg,
    #[command(flatten)]
    control: ControlArg,
    #[command(flatten)]
    kafka: KafkaConfig,
    #[command(flatten)]
    stores: StoreUrls,
}

pub(super) async fn run(args: &ApplyArgs) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::load(&args.schemas.schemas)?;
    let Some(all) = check::load(&args.paths, &catalog)? else { return Ok(ExitCode::FAILURE) };
    let control = Control::connect(&args.control.control_database_url).await?;
    let live = control.live().await?;
    let changed: Vec<_> =
        all.iter().filter(|(compiled, _)| needs_rebuild(compiled, &live)).map(|(_, source)| &*source.name).collect();
    anyhow::ensure!(
        changed.is_empty(),
        "{}: other documents than the live generation's, which only a rebuild can bring in; this release can't rebuild yet, so \
         give the read model another name, or undo the change (queries may change freely). Nothing was applied",
        changed.join(", ")
    );
    for (compiled, source) in &all {
        apply_one(args, &catalog, &control, &live, compiled, source).await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn needs_rebuild(compiled: &Compiled, live: &[Generation]) -> bool {
    let live = live.iter().find(|g| g.read_model == compiled.projection.name.value);
    live.is_some_and(|g| g.fingerprint != compiled.fingerprint())
}

async fn apply_one(
    args: &ApplyArgs,
    catalog: &Catalog,
    control: &Control,
    live: &[Generation],
    compiled: &Compiled,
    source: &Source,
) -> anyhow::Result<()> {
    let name = &compiled.projection.name.value;
    let (generation, what) = match live.iter().find(|g| g.read_model == *name) {
        Some(generation) if *generation.config == *source.text => (generation.clone(), "unchanged"),
        Some(generation) => {
            control.update_config(generation.generation_id, &source.text).await?;
            (generation.clone(), "changed in place (queries)")
        }
        None => {
            let topics = partition_counts(&args.kafka, &compiled.topics())?;
            (control.create_live(name, &compiled.fingerprint(), &source.text, &topics).await?, "created")
        }
    };
    // Also for an unchanged one: a store that lost its place gets it again.
    let (_, sink) = host::open(&generation, catalog, &args.stores)?;
    sink.prepare().await.with_context(|| format!("{name}: can't prepare its place"))?;
    sink.go_live().await.with_context(|| format!("{name}: can't make its place the live one"))?;
    println!("{name}: generation {} {what}", generation.generation);
    Ok(())
}
