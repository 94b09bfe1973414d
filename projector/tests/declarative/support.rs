//! Running the binary, and comparing with what is kept.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a command gave.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// The folder of this crate's library.
pub fn library(path: &str) -> String {
    format!("tests/library/{path}")
}

/// Runs `projector` with the library's schemas, in the crate's folder.
pub fn projector(arguments: &[&str]) -> Ran {
    projector_with(&library("schemas"), arguments)
}

pub fn projector_with(schemas: &str, arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_projector"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("SCHEMAS_DIR", schemas)
        .env("NO_COLOR", "1")
        .env_remove("PROJECTIONS_DIR")
        .env_remove("CONTROL_DATABASE_URL")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// Compares with the text that is kept in the library's `path`; with `UPDATE=1` keeps `found` instead.
pub fn kept(path: &str, found: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(library(path));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, found).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == found, "{path} is kept as\n{kept}\nbut now it is\n{found}\n`UPDATE=1 cargo test` accepts it");
}

/// A folder of this test's own.
pub fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
