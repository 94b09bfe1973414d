//! `projector check`: all errors of all files at once.

mod registry;

use super::{Output, SchemasArg, test};
use crate::event::Catalog;
use crate::projection::{Compiled, Diagnosis, Finding, LookupFrom, Source, Store, check_masks};
use crate::query::Endpoint;
use crate::sink;
use anyhow::Context;
use registry::Newer;
use serde_json::json;
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
    /// Also show what was inferred
    #[arg(long, value_enum)]
    show: Option<Show>,
    /// Also say what newer schemas in this registry (Confluent's API) would break; exit code 1 if anything
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

/// What `check` shows of a file that is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Show {
    /// The document's type, and what the store makes of it: mapping or columns
    Types,
}

/// A file that is right, with its queries.
type Right = (Compiled, Source, Vec<Endpoint>);

pub(super) async fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::load(&args.schemas.schemas)?;
    let (all, findings) = examine(&args.paths, &catalog)?;
    let newer = match &args.registry {
        Some(url) => {
            let all: Vec<_> = all.iter().map(|(compiled, source, _)| (compiled, source)).collect();
            registry::newer(url, &catalog, &all).await?
        }
        None => Vec::new(),
    };
    let code = if findings.is_empty() && newer.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    match args.output {
        Output::Json => {
            let mut report = as_json(&all, &findings);
            let newer = newer
                .iter()
                .map(|n| json!({"what": n.what, "findings": n.findings.iter().map(finding_json).collect::<Vec<_>>()}));
            report["registry"] = newer.collect();
            println!("{}", serde_json::to_string_pretty(&report)?);
        }
        Output::Text => {
            if findings.is_empty() {
                all.iter().for_each(|right| print(right, args.show));
            } else {
                print_findings(findings);
            }
            for Newer { what, findings } in newer {
                eprintln!("{what}");
                if !findings.is_empty() {
                    print_findings(findings);
                }
            }
        }
    }
    Ok(code)
}

/// Loads and compiles files; prints what is wrong in any of them, and gives none then.
pub(super) fn load(paths: &[PathBuf], catalog: &Catalog) -> anyhow::Result<Option<Vec<(Compiled, Source)>>> {
    let (all, findings) = examine(paths, catalog)?;
    if findings.is_empty() {
        return Ok(Some(all.into_iter().map(|(compiled, source, _)| (compiled, source)).collect()));
    }
    print_findings(findings);
    Ok(None)
}

/// The files that are right, and everything that is wrong in the others or between them.
fn examine(paths: &[PathBuf], catalog: &Catalog) -> anyhow::Result<(Vec<Right>, Vec<Finding>)> {
    let (mut all, mut findings): (Vec<Right>, Vec<Finding>) = (Vec::new(), Vec::new());
    for path in files(paths)? {
        match Compiled::load(&path, catalog) {
            Ok((compiled, source)) => {
                findings.extend(wrong_settings(&source, &compiled));
                findings.extend(check_masks(&source, &compiled, catalog));
                findings.extend(test::findings(&source, &compiled, catalog));
                match Endpoint::compile_all(&source, &compiled) {
                    Ok(endpoints) => all.push((compiled, source, endpoints)),
                    Err(found) => findings.extend(found),
                }
            }
            Err(found) => findings.extend(found),
        }
    }
    let whole = paths.iter().any(|path| path.is_dir());
    findings.extend(all.iter().flat_map(|one| looks_up(one, &all, whole)));
    for (n, one) in all.iter().enumerate() {
        findings.extend(all[..n].iter().flat_map(|other| between(other, one)));
    }
    Ok((all, findings))
}

/// What the store says to its settings.
fn wrong_settings(source: &Source, compiled: &Compiled) -> Vec<Finding> {
    let found = sink::check(&compiled.projection.store, &compiled.document).into_iter();
    let help = "see docs/projections.md for the store's settings";
    let at = compiled.projection.name.defined;
    found.map(|message| Finding::at(source, at, message, help).of(Diagnosis::Mapping)).collect()
}

/// What the read models that one looks something up in don't have. Where only files are named, others may declare them.
fn looks_up((compiled, source, _): &Right, all: &[Right], whole: bool) -> Vec<Finding> {
    let places = compiled.projection.lookup.values().map(|lookup| lookup.defined);
    let mut findings = Vec::new();
    for (lookup, at) in compiled.lookups.iter().zip(places) {
        let LookupFrom::ReadModel(name) = &lookup.from else { continue };
        let (wrong, help) = match all.iter().find(|(other, ..)| other.projection.name.value == *name) {
            Some((other, ..)) => (
                lookup.against(other.kind, &other.document),
                "name under `fields` what that read model has, each with its type",
            ),
            None if whole => {
                (vec![format!("no file declares the read model `{name}`")], "check it together with the file that does")
            }
            None => continue,
        };
        findings.extend(wrong.into_iter().map(|wrong| {
            let message = format!("lookup `{}`: {wrong}", lookup.name);
            Finding::at(source, at, message, help).of(Diagnosis::Lookup)
        }));
    }
    findings
}

/// What can't be beside each other: two read models of one name or in one place, two queries under one path.
fn between(first: &Right, second: &Right) -> Vec<Finding> {
    let (a, b) = (&first.0.projection, &second.0.projection);
    let (source, other) = (&second.1, &first.1.name);
    let mut findings = Vec::new();
    if a.name.value == b.name.value {
        let message = format!("{other} declares the read model `{}`, too", b.name.value);
        findings.push(Finding::at(source, b.name.defined, message, "rename one of them").of(Diagnosis::SameName));
    }
    if let (Store::Redis(x), Store::Redis(y)) = (&a.store, &b.store)
        && x.database == y.database
        && (x.prefix.starts_with(&y.prefix) || y.prefix.starts_with(&x.prefix))
    {
        let message = format!(
            "keys of `{}` are keys of {other} (`{}`), too: both are in database {}",
            y.prefix, x.prefix, x.database
        );
        let help = "give each its own prefix, of which none begins with the other, or its own `database`";
        findings.push(Finding::at_entry(source, "prefix", message, help).of(Diagnosis::SamePlace));
    }
    for (query, endpoint) in b.queries.iter().zip(&second.2) {
        if let Some(n) = first.2.iter().position(|e| e.shares_a_path_with(endpoint)) {
            let path = a.queries.get(n).map_or("", |query| query.get.value.as_str());
            let message = format!("{other} answers `{path}`: which of the two would answer a request?");
            findings.push(
                Finding::at(source, query.get.defined, message, "give one of them another path")
                    .of(Diagnosis::SamePath),
            );
        }
    }
    findings
}

fn print((compiled, source, _): &Right, show: Option<Show>) {
    let projection = &compiled.projection;
    let (name, kind, store) = (&projection.name.value, compiled.kind.name(), projection.store.name());
    println!("{}: {name} is right: {kind}, in {store}", source.name);
    if show == Some(Show::Types) {
        println!("  document");
        sink::types(&compiled.document).iter().for_each(|line| println!("    {line}"));
        let layout = sink::layout(&projection.store, &compiled.document);
        if !layout.is_empty() {
            println!("  {store}");
            layout.iter().for_each(|line| println!("    {line}"));
        }
    }
}

fn print_findings(findings: Vec<Finding>) {
    let count = findings.len();
    for finding in findings {
        eprintln!("{finding}");
        eprintln!("{:?}", miette::Report::new(finding));
    }
    eprintln!("{count} error{}", if count == 1 { "" } else { "s" });
}

fn finding_json(finding: &Finding) -> serde_json::Value {
    let (line, column) = finding.position();
    json!({
        "file": finding.file(), "line": line, "column": column, "rule": finding.rule(), "message": finding.message(),
        "help": finding.advice(),
    })
}

fn as_json(all: &[Right], findings: &[Finding]) -> serde_json::Value {
    let right = |(compiled, source, _): &Right| {
        let store = &compiled.projection.store;
        json!({
            "file": &*source.name, "name": compiled.projection.name.value, "kind": compiled.kind.name(), "store": store.name(),
            "types": sink::types(&compiled.document), "layout": sink::layout(store, &compiled.document),
        })
    };
    json!({
        "findings": findings.iter().map(finding_json).collect::<Vec<_>>(), "projections": all.iter().map(right).collect::<Vec<_>>(),
    })
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
