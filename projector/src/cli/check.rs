//! `projector check`: all errors of all files at once.

use super::{SchemasArg, test};
use crate::event::Catalog;
use crate::projection::{Compiled, Finding, Source};
use crate::query::Endpoint;
use crate::sink;
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `check`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// Files or folders of projections
    #[arg(env = "PROJECTIONS_DIR", default_value = "projections")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    schemas: SchemasArg,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::load(&args.schemas.schemas)?;
    let Some(all) = load(&args.paths, &catalog)? else { return Ok(ExitCode::FAILURE) };
    for (compiled, source) in &all {
        println!(
            "{}: {} is right: {}, in {}",
            source.name,
            compiled.projection.name.value,
            compiled.kind.name(),
            compiled.projection.store.name()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads and compiles files; prints what is wrong in any of them, and gives none then.
pub(super) fn load(paths: &[PathBuf], catalog: &Catalog) -> anyhow::Result<Option<Vec<(Compiled, Source)>>> {
    let (mut all, mut findings): (Vec<(Compiled, Source)>, Vec<Finding>) = (Vec::new(), Vec::new());
    for path in files(paths)? {
        match Compiled::load(&path, catalog) {
            Ok((compiled, source)) => {
                findings.extend(wrong_names(&source, &compiled));
                match Endpoint::compile_all(&source, &compiled) {
                    Ok(_) => {
                        findings.extend(test::findings(&source, &compiled, catalog));
                        all.push((compiled, source));
                    }
                    Err(found) => findings.extend(found),
                }
            }
            Err(found) => findings.extend(found),
        }
    }
    let mut names = BTreeMap::new();
    for (compiled, source) in &all {
        if let Some(other) = names.insert(compiled.projection.name.value.clone(), source.name.clone()) {
            anyhow::bail!(
                "{other} and {} both declare the read model `{}`; rename one",
                source.name,
                compiled.projection.name.value
            );
        }
    }
    if findings.is_empty() {
        return Ok(Some(all));
    }
    let count = findings.len();
    for finding in findings {
        eprintln!("{finding}");
        eprintln!("{:?}", miette::Report::new(finding));
    }
    eprintln!("{count} error{}", if count == 1 { "" } else { "s" });
    Ok(None)
}

/// What the store would refuse as soon as the read model is applied.
fn wrong_names(source: &Source, compiled: &Compiled) -> Vec<Finding> {
    let found = sink::check(&compiled.projection.store, &compiled.document).into_iter();
    let help = "name fields that a program sets, or leave it out";
    found.map(|message| Finding::at(source, compiled.projection.name.defined, message, help)).collect()
}

fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).with_context(|| format!("can't read {}", path.display()))?;
            files.extend(entries.flatten().map(|e| e.path()).filter(|p| is_yaml(p)));
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    anyhow::ensure!(
        !files.is_empty(),
        "no projection in {}: expected files that end in .yaml",
        paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
    );
    Ok(files)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml")
}
