//! `command-api`: the write side's database, schemas and HTTP service.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use command_api::migrate;

use cli::outbox::OutboxVerb;
use cli::replay::ReplayArgs;
use cli::schemas::SchemasVerb;
use cli::serve::ServeArgs;
use cli::{Database, Slot};

/// A request is many short-lived texts, on whichever thread is free: glibc's allocator took a sixth of this process' time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Takes the shop's commands over HTTP and keeps state, events and outbox in Postgres.
///
/// A new database needs `migrate`, a new registry or changed schemas `schemas register`; then `serve`. All three are safe
/// to repeat.
#[derive(Debug, Parser)]
#[command(name = "command-api", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    logs: telemetry::logs::LogArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create or update the tables, the connector's role, the publication and the replication slot
    Migrate {
        #[command(flatten)]
        database: Database,
        /// The role that the outbox connector logs in with
        #[arg(long, env = "DEBEZIUM_USER", default_value = "debezium")]
        connector_role: String,
        /// Its password; without one it stays as it is
        #[arg(long, env = "DEBEZIUM_PASSWORD", hide_env_values = true)]
        connector_password: Option<String>,
        #[command(flatten)]
        slot: Slot,
    },
    /// Avro schemas of the events
    Schemas {
        #[command(subcommand)]
        verb: SchemasVerb,
    },
    /// Answer commands over HTTP until SIGTERM
    Serve(ServeArgs),
    /// Show a stream step by step, with what each event changed; exit code 1 if the condition never holds
    Replay(ReplayArgs),
    /// What of the outbox is published
    Outbox {
        #[command(subcommand)]
        verb: OutboxVerb,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    // Both of rustls' providers are in the tree; an error says that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    cli.logs.init();
    match run(cli.verb).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Migrate { database, connector_role, connector_password, slot: Slot { slot } } => {
            let slot = Some(slot).filter(|slot| !slot.is_empty());
            let options = migrate::Options { connector_role, connector_password, slot };
            migrate::migrate(&database.database_url, &options).await?;
            println!("the database is up to date");
        }
        Verb::Schemas { verb } => cli::schemas::run(verb).await?,
        Verb::Serve(arguments) => cli::serve::run(arguments).await?,
        Verb::Replay(arguments) => return cli::replay::run(arguments).await,
        Verb::Outbox { verb } => cli::outbox::run(verb).await?,
    }
    Ok(ExitCode::SUCCESS)
}
