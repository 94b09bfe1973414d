//! The projections' files: all errors of all of them at once.

use super::{VerbError, given};
use crate::event::Catalog;
use crate::projection::{Compiled, Diagnosis, Finding, LookupFrom, Source, Store, check_masks};
use crate::query::Endpoint;
use crate::sink;
use std::path::{Path, PathBuf};

/// A file that is right, with its queries.
pub(crate) type Right = (Compiled, Source, Vec<Endpoint>);

/// Loads and compiles files.
///
/// # Errors
/// [`VerbError::Findings`]: all that is wrong in any of them.
pub(crate) fn load(paths: &[PathBuf], catalog: &Catalog) -> Result<Vec<(Compiled, Source)>, VerbError> {
    let (all, findings) = examine(paths, catalog)?;
    if findings.is_empty() {
        return Ok(all.into_iter().map(|(compiled, source, _)| (compiled, source)).collect());
    }
    Err(VerbError::Findings(findings))
}

/// Whether the files are all that there should be: folders were named.
pub(crate) fn are_all(paths: &[PathBuf]) -> bool {
    paths.iter().all(|path| path.is_dir())
}

/// The files that are right, and everything that is wrong in the others or between them.
pub(crate) fn examine(paths: &[PathBuf], catalog: &Catalog) -> Result<(Vec<Right>, Vec<Finding>), VerbError> {
    let (mut all, mut findings): (Vec<Right>, Vec<Finding>) = (Vec::new(), Vec::new());
    for path in found(paths)? {
        match Compiled::load(&path, catalog) {
            Ok((compiled, source)) => {
                findings.extend(wrong_settings(&source, &compiled));
                findings.extend(check_masks(&source, &compiled, catalog));
                findings.extend(given::findings(&source, &compiled, catalog));
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

/// The files that are named, and those in folders that are.
fn found(paths: &[PathBuf]) -> Result<Vec<PathBuf>, VerbError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = std::fs::read_dir(path)
                .map_err(|error| VerbError::Unreadable(format!("can't read {}: {error}", path.display())))?;
            files.extend(entries.flatten().map(|e| e.path()).filter(|p| is_yaml(p)));
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    if files.is_empty() {
        let looked = paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
        return Err(VerbError::Unreadable(format!("no projection in {looked}: expected files that end in .yaml")));
    }
    Ok(files)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml")
}
