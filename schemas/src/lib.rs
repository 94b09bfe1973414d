//! The Avro schemas of all events, one file an event and version: loading, compatibility, registration.
// The projector calls `load` with this signature and these fields: keep them (lead, 05:10).

use apache_avro::Schema;
use std::path::{Path, PathBuf};

/// One schema file.
#[derive(Clone, Debug)]
pub struct SchemaFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// The aggregate type (the folder's name).
    pub aggregate: String,
    /// The event type.
    pub event: String,
    /// The major version.
    pub major: u32,
    /// The minor version, 0 by default.
    pub minor: u32,
    /// The parsed schema.
    pub schema: Schema,
}

/// What is wrong with a schema file.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct LoadError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// Loads a folder of schemas, sorted by aggregate, event and rising version.
///
/// # Errors
/// The first file that is wrong.
pub fn load(folder: &Path) -> Result<Vec<SchemaFile>, LoadError> {
    let fail = |path: &Path, reason: String| LoadError { path: path.into(), reason };
    let mut files = Vec::new();
    let entries = |path: &Path| -> Result<Vec<PathBuf>, LoadError> {
        let read = std::fs::read_dir(path).map_err(|e| fail(path, e.to_string()))?;
        read.map(|e| e.map(|e| e.path()).map_err(|e| fail(path, e.to_string()))).collect()
    };
    for aggregate in entries(folder)?.into_iter().filter(|p| p.is_dir()) {
        for path in entries(&aggregate)?.into_iter().filter(|p| p.extension().is_some_and(|e| e == "avsc")) {
            let text = std::fs::read_to_string(&path).map_err(|e| fail(&path, e.to_string()))?;
            let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
            let (event, version) = stem.split_once(".v").ok_or_else(|| fail(&path, "expected <Event>.v<major>[.<minor>].avsc".into()))?;
            let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
            let number = |s: &str| s.parse::<u32>().map_err(|_| fail(&path, "expected <Event>.v<major>[.<minor>].avsc".into()));
            files.push(SchemaFile {
                aggregate: aggregate.file_name().and_then(|s| s.to_str()).unwrap_or_default().to_owned(),
                event: event.to_owned(),
                major: number(major)?,
                minor: number(minor)?,
                schema: Schema::parse_str(&text).map_err(|e| fail(&path, e.to_string()))?,
                path,
            });
        }
    }
    files.sort_by(|a, b| (&a.aggregate, &a.event, a.major, a.minor).cmp(&(&b.aggregate, &b.event, b.major, b.minor)));
    Ok(files)
}
