//! `command-api schemas`: checking the folder, and bringing it to the registry.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Subcommand;

use super::Registry;

#[derive(Debug, Subcommand)]
pub(crate) enum SchemasVerb {
    /// Check the folder, then bring every schema to the registry; what is there stays as it is
    Register {
        #[command(flatten)]
        registry: Registry,
    },
    /// Check the folder alone: compatibility within each major, upcasters between them; needs no server
    Check {
        /// Folder of the schemas
        #[arg(long, env = "SCHEMAS_DIR", default_value = "schemas")]
        schemas_dir: PathBuf,
    },
}

pub(crate) async fn run(verb: SchemasVerb) -> anyhow::Result<()> {
    match verb {
        SchemasVerb::Check { schemas_dir } => {
            let files = checked(&schemas_dir)?;
            println!("{} schemas are in order", files.len());
        }
        SchemasVerb::Register { registry } => {
            let files = checked(&registry.schemas_dir)?;
            let registered = schemas::register(&files, &registry.registry_url).await?;
            let new = registered.iter().filter(|schema| schema.new).count();
            println!("{} schemas are registered, {new} of them new", registered.len());
        }
    }
    Ok(())
}

fn checked(folder: &Path) -> anyhow::Result<Vec<schemas::SchemaFile>> {
    let files = schemas::load(folder)?;
    schemas::check(&files)?;
    let missing = schemas::missing_upcasters(folder, &files);
    if !missing.is_empty() {
        let missing: Vec<String> = missing.iter().map(|path| path.display().to_string()).collect();
        bail!("upcasters are missing: {}", missing.join(", "));
    }
    Ok(files)
}
