//! `projector explain`: what a read model is made of, for those who didn't write it.

use super::{SchemasArg, check};
use crate::event::Catalog;
use crate::projection::{Compiled, Source};
use crate::verbs::explain::{Lineage, explain};
use anyhow::ensure;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `explain`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// The read model; all, if none is named
    name: Option<String>,
    /// Only what flows into this field, and into those within it
    #[arg(long, value_name = "PATH")]
    field: Option<String>,
    /// A picture of topics, events, read models and queries, for Mermaid
    #[arg(long)]
    mermaid: bool,
    /// A file or folder of projections
    #[arg(long, env = "PROJECTIONS_DIR", default_value = "projections")]
    projections: PathBuf,
    #[command(flatten)]
    schemas: SchemasArg,
}

pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::load(&args.schemas.schemas)?;
    let Some(all) = check::load(std::slice::from_ref(&args.projections), &catalog)? else {
        return Ok(ExitCode::FAILURE);
    };
    let is_wanted = |c: &Compiled| args.name.as_ref().is_none_or(|name| *name == c.projection.name.value);
    let wanted: Vec<_> = all.iter().filter(|(compiled, _)| is_wanted(compiled)).collect();
    if wanted.is_empty() {
        let names: Vec<_> = all.iter().map(|(compiled, _)| compiled.projection.name.value.as_str()).collect();
        anyhow::bail!("no read model `{}`; there are {}", args.name.as_deref().unwrap_or_default(), names.join(", "));
    }
    if args.mermaid {
        print!("{}", mermaid(&wanted, &catalog));
        return Ok(ExitCode::SUCCESS);
    }
    let text: Vec<String> =
        wanted.iter().map(|(compiled, source)| explain(compiled, &source.name, args.field.as_deref())).collect();
    ensure!(
        text.iter().any(|text| !text.is_empty()),
        "no program sets `{}`",
        args.field.as_deref().unwrap_or_default()
    );
    print!("{}", text.iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>().join("\n"));
    Ok(ExitCode::SUCCESS)
}

fn mermaid(all: &[&(Compiled, Source)], catalog: &Catalog) -> String {
    let mut text = String::from("flowchart LR\n");
    for (compiled, _) in all {
        let Lineage { name, store, kind, topics, lookups, queries } = Lineage::of(compiled, catalog);
        // Writing to a string doesn't fail.
        _ = writeln!(text, "  {name}[(\"{name}<br/>{store}, {kind}\")]");
        for (aggregate, events) in topics {
            _ = writeln!(text, "  topic_{aggregate}([events.{aggregate}]) -->|{}| {name}", events.join("<br/>"));
        }
        for lookup in lookups {
            let from = match lookup.table {
                false => lookup.from,
                true => format!("{}[({})]", lookup.from.replace('.', "_"), lookup.from),
            };
            _ = writeln!(text, "  {from} -.->|{}| {name}", lookup.name);
        }
        for (n, path) in queries.iter().enumerate() {
            _ = writeln!(text, "  {name} --> {name}_{n}[\"GET {path}\"]");
        }
    }
    text
}
