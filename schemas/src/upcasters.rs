//! Which upcasters must be there. What they do is compiled and checked by the projector.

use crate::SchemaFile;
use std::path::{Path, PathBuf};

/// The upcasters that a folder of schemas lacks: each major below an event's newest needs
/// `upcasters/<Event>.v<major>.yaml`, since projections are written against the newest alone.
#[must_use]
pub fn missing_upcasters(folder: &Path, files: &[SchemaFile]) -> Vec<PathBuf> {
    let outdated =
        files.iter().filter(|file| files.iter().any(|other| other.event == file.event && other.major > file.major));
    let mut missing: Vec<_> = outdated
        .map(|file| folder.join("upcasters").join(format!("{}.v{}.yaml", file.event, file.major)))
        .filter(|path| !path.is_file())
        .collect();
    // Minors of one major share an upcaster.
    missing.dedup();
    missing
}
