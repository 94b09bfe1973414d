//! Upcasters by their files: who lifts what. The program inside is compiled and run by the projector.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use crate::load::{LoadError, SchemaFile, entries};

/// A file of `schemas/upcasters/`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpcasterFile {
    /// The event type.
    pub event: String,
    /// Its aggregate type.
    pub aggregate: String,
    /// The major version that it takes.
    pub from: u32,
    /// The major version that it gives.
    pub to: u32,
    /// A VRL program, in which `.` is the event's data.
    pub upcast: String,
}

/// Reads `upcasters/` of a folder of schemas; no such folder is no upcasters.
///
/// # Errors
/// The first file that is wrong.
pub fn load_upcasters(folder: &Path) -> Result<Vec<UpcasterFile>, LoadError> {
    let folder = folder.join("upcasters");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let yaml = entries(&folder)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    yaml.map(|path| {
        let text = std::fs::read_to_string(&path).map_err(|e| LoadError::new(&path, e))?;
        serde_saphyr::from_str(&text).map_err(|e| LoadError::new(&path, e))
    })
    .collect()
}

/// Every major below an event's newest must have a way up.
///
/// # Errors
/// The schema that is stuck.
pub fn check_upcasters(files: &[SchemaFile], upcasters: &[UpcasterFile]) -> Result<(), LoadError> {
    let lifted: BTreeSet<(&str, &str, u32)> =
        upcasters.iter().filter(|u| u.to > u.from).map(|u| (u.aggregate.as_str(), u.event.as_str(), u.from)).collect();
    let stuck = files.iter().find(|file| {
        let same = |other: &&SchemaFile| other.aggregate == file.aggregate && other.event == file.event;
        files.iter().filter(same).any(|other| other.major > file.major)
            && !lifted.contains(&(file.aggregate.as_str(), file.event.as_str(), file.major))
    });
    stuck.map_or(Ok(()), |file| {
        let reason = format!("a newer major exists, so it needs upcasters/{}.v{}.yaml", file.event, file.major);
        Err(LoadError::new(&file.path, reason))
    })
}
