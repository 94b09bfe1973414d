//! `projector schema`: the JSON Schema of projections' files.

use anyhow::anyhow;
use std::process::ExitCode;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    let schema = crate::projection::schema().map_err(|reason| anyhow!("{reason}"))?;
    println!("{}", serde_json::to_string_pretty(&schema)?);
    Ok(ExitCode::SUCCESS)
}
