//! The modules of the projector are rooms, and a room imports only what stands to its left. The tree is the architecture as
//! long as this holds.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

const ROOMS: [&str; 13] = [
    "expr",
    "event",
    "projection",
    "apply",
    "sink",
    "control",
    "source",
    "host",
    "generation",
    "query",
    "verbs",
    "ops",
    "cli",
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The rooms that a text names after `crate::`, also within braces.
fn imported(text: &str) -> Vec<&str> {
    let names = text.split("crate::").skip(1).flat_map(|rest| {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || "_:{}, \n".contains(c))).unwrap_or(rest.len());
        let one = rest[..end].split(|c: char| !(c.is_alphanumeric() || c == '_')).next();
        let many = rest.strip_prefix('{').map(|list| list.split('}').next().unwrap_or(list).split(','));
        many.into_iter().flatten().map(|item| item.trim().split("::").next().unwrap_or("")).chain(one)
    });
    names.filter(|name| ROOMS.contains(name)).collect()
}

#[test]
fn rooms_import_only_to_their_left() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (at, room) in ROOMS.iter().enumerate() {
        for path in files(&source.join(room)).into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs")) {
            let text = std::fs::read_to_string(&path).unwrap();
            let seen = imported(&text).into_iter().filter(|name| ROOMS[at + 1..].contains(name));
            wrong.extend(seen.map(|name| format!("{} imports {name}", path.strip_prefix(&source).unwrap().display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_import_is_seen() {
    assert_eq!(imported("use crate::host::Host;\nuse crate::{apply, cli::main};"), ["host", "apply", "cli"]);
}

#[test]
fn the_projector_names_nothing_of_the_reference_domain() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in files(&source).into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let code: String = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
        if path.to_string_lossy().ends_with("_tests.rs") {
            continue;
        }
        for word in ["OrderPlaced", "customer", "payment", "account_id", "order_id"] {
            assert!(!code.contains(word), "{} names `{word}`", path.display());
        }
    }
}
