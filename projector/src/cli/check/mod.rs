//! `projector check`: all errors of all files at once.

mod registry;

use super::{Output, SchemasArg};
use crate::event::Catalog;
use crate::projection::{Compiled, Finding, Source};
use crate::sink;
use crate::verbs::files::{self, Right, examine};
use crate::verbs::{VerbError, finding_json};
use registry::Newer;
use serde_json::json;
use std::path::PathBuf;
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
    match files::load(paths, catalog) {
        Err(VerbError::Findings(findings)) => {
            print_findings(findings);
            Ok(None)
        }
        loaded => Ok(Some(loaded?)),
    }
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

pub(super) fn print_findings(findings: Vec<Finding>) {
    let count = findings.len();
    for finding in findings {
        eprintln!("{finding}");
        eprintln!("{:?}", miette::Report::new(finding));
    }
    eprintln!("{count} error{}", if count == 1 { "" } else { "s" });
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
