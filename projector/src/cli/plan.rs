//! `projector plan`: what `apply` would do.

use super::{ControlArg, Output, SchemasArg, check};
use crate::control::Control;
use crate::event::Catalog;
use crate::generation::{Change, What, changes};
use crate::verbs::files::are_all;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `plan`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PlanArgs {
    /// Files or folders of projections
    #[arg(env = "PROJECTIONS_DIR", default_value = "projections")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    schemas: SchemasArg,
    #[command(flatten)]
    control: ControlArg,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

/// The exit code for "there are changes".
const CHANGES: u8 = 2;

pub(super) async fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::load(&args.schemas.schemas)?;
    let Some(all) = check::load(&args.paths, &catalog)? else { return Ok(ExitCode::FAILURE) };
    let control = Control::connect(&args.control.control_database_url).await?;
    let changes = changes(&control.live().await?, &all, are_all(&args.paths), &catalog);
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "changes": changes }))?),
        Output::Text => changes.iter().for_each(print),
    }
    let none = changes.iter().all(|change| change.what == What::Nothing);
    Ok(if none { ExitCode::SUCCESS } else { ExitCode::from(CHANGES) })
}

pub(super) fn print(change: &Change) {
    let (sign, what) = match change.what {
        What::Create => ('+', "create"),
        What::Rebuild => ('~', "rebuild"),
        What::InPlace => ('~', "change in place"),
        What::Retire => ('-', "retire (by apply --prune)"),
        What::Nothing => ('=', "nothing"),
    };
    let generation = change.generation.map(|n| format!(", generation {n} is live")).unwrap_or_default();
    println!("{sign} {}: {what}{generation}", change.read_model);
    change.why.iter().for_each(|why| println!("    {why}"));
    if change.what == What::Rebuild {
        match &change.fields {
            Some(fields) if fields.is_empty() => println!("    documents stay the same"),
            Some(fields) => println!("    may differ: {}", fields.join(", ")),
            None => println!("    anything may differ"),
        }
    }
}
