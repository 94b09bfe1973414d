//! The verbs of the command line, one a file, and the arguments that they share.

pub(crate) mod outbox;
pub(crate) mod replay;
pub(crate) mod schemas;
pub(crate) mod serve;

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Database {
    /// The write database
    #[arg(
        long,
        env = "WRITE_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://app@127.0.0.1:15432/app"
    )]
    pub(crate) database_url: String,
}

#[derive(Debug, Args)]
pub(crate) struct Slot {
    /// The replication slot that the outbox connector reads, one in the whole Postgres cluster; empty for none
    #[arg(long, env = "OUTBOX_SLOT", default_value = "outbox_slot")]
    pub(crate) slot: String,
}

#[derive(Debug, Args)]
pub(crate) struct Registry {
    /// The schema registry, with Confluent's API
    #[arg(long, env = "SCHEMA_REGISTRY_URL", default_value = "http://127.0.0.1:18081/apis/ccompat/v7")]
    pub(crate) registry_url: String,
    /// Folder of the schemas
    #[arg(long, env = "SCHEMAS_DIR", default_value = "schemas")]
    pub(crate) schemas_dir: PathBuf,
}
