//! `command-api`: the write side's database, schemas and HTTP service.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use command_api::store::{Codec, Options, Store};
use command_api::{http, migrate};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Takes the shop's commands over HTTP and keeps state, events and outbox in Postgres.
///
/// A new database needs `migrate`, a new registry or changed schemas `schemas register`; then `serve`. All three are safe
/// to repeat.
#[derive(Debug, Parser)]
#[command(name = "command-api", version, max_term_width = 110)]
struct Cli {
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
        /// The replication slot, one in the whole Postgres cluster; empty for none
        #[arg(long, env = "OUTBOX_SLOT", default_value = "outbox_slot")]
        slot: String,
    },
    /// Avro schemas of the events
    Schemas {
        #[command(subcommand)]
        verb: SchemasVerb,
    },
    /// Answer commands over HTTP until SIGTERM
    Serve {
        #[command(flatten)]
        database: Database,
        #[command(flatten)]
        registry: Registry,
        /// Where to listen
        #[arg(long, env = "COMMAND_API_LISTEN", default_value = "127.0.0.1:18000")]
        listen: SocketAddr,
        /// Connections to Postgres: about twice its cores is enough
        #[arg(long, env = "COMMAND_API_POOL_SIZE", default_value_t = 8)]
        pool_size: u32,
        /// Events of a stream between two snapshots
        #[arg(long, env = "SNAPSHOT_EVERY", default_value_t = 100)]
        snapshot_every: u32,
        /// Hours for which an idempotency key is remembered
        #[arg(long, env = "IDEMPOTENCY_KEYS_KEPT_H", default_value_t = 168)]
        keys_kept_h: u64,
    },
}

#[derive(Debug, Subcommand)]
enum SchemasVerb {
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

#[derive(Debug, Args)]
struct Database {
    /// The write database
    #[arg(
        long,
        env = "WRITE_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://app@127.0.0.1:55432/app"
    )]
    database_url: String,
}

#[derive(Debug, Args)]
struct Registry {
    /// The schema registry, with Confluent's API
    #[arg(long, env = "SCHEMA_REGISTRY_URL", default_value = "http://127.0.0.1:18081/apis/ccompat/v7")]
    registry_url: String,
    /// Folder of the schemas
    #[arg(long, env = "SCHEMAS_DIR", default_value = "schemas")]
    schemas_dir: PathBuf,
}

const STATEMENT_TIME_MAX: &str = "8s";
/// Expired idempotency keys are harmless, so this is only about space.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// How long a request waits for a connection before it is told that the store is down.
const ACQUIRE_TIME_MAX: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> ExitCode {
    // Both of rustls' providers are in the tree; an error says that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match run(Cli::parse().verb).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Migrate { database, connector_role, connector_password, slot } => {
            let slot = Some(slot).filter(|slot| !slot.is_empty());
            let options = migrate::Options { connector_role, connector_password, slot };
            migrate::migrate(&database.database_url, &options).await?;
            println!("the database is up to date");
            Ok(())
        }
        Verb::Schemas { verb: SchemasVerb::Check { schemas_dir } } => {
            let files = checked_schemas(&schemas_dir)?;
            println!("{} schemas are in order", files.len());
            Ok(())
        }
        Verb::Schemas { verb: SchemasVerb::Register { registry } } => {
            let files = checked_schemas(&registry.schemas_dir)?;
            let registered = schemas::register(&files, &registry.registry_url).await?;
            let new = registered.iter().filter(|schema| schema.new).count();
            println!("{} schemas are registered, {new} of them new", registered.len());
            Ok(())
        }
        Verb::Serve { database, registry, listen, pool_size, snapshot_every, keys_kept_h } => {
            let options = Options { snapshot_every, keys_kept: Duration::from_secs(keys_kept_h * 3_600) };
            serve(&database, &registry, listen, pool_size, options).await
        }
    }
}

fn checked_schemas(folder: &Path) -> anyhow::Result<Vec<schemas::SchemaFile>> {
    let files = schemas::load(folder)?;
    schemas::check(&files)?;
    let missing = schemas::missing_upcasters(folder, &files);
    if !missing.is_empty() {
        let missing: Vec<String> = missing.iter().map(|path| path.display().to_string()).collect();
        bail!("upcasters are missing: {}", missing.join(", "));
    }
    Ok(files)
}

async fn serve(
    database: &Database,
    registry: &Registry,
    listen: SocketAddr,
    pool_size: u32,
    options: Options,
) -> anyhow::Result<()> {
    let pool = connect(&database.database_url, pool_size).await?;
    migrate::check(&pool).await?;
    let files = schemas::load(&registry.schemas_dir)?;
    let ids = schemas::ids(&files, &registry.registry_url).await.context("looking up the schemas' ids")?;
    let store = Store::new(pool.clone(), Codec::new(files, &ids), options);
    tokio::spawn(expire_keys(store.clone()));

    let listener = tokio::net::TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    tracing::info!(%listen, schemas = ids.len(), pool_size, "serving commands");
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        // Small answers must not wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
    });
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: no new requests, those under way are answered");
    };
    axum::serve(listener, http::router(store)).with_graceful_shutdown(stop).await?;
    pool.close().await;
    Ok(())
}

/// Until the process ends.
async fn expire_keys(store: Store) {
    let mut every = tokio::time::interval(EXPIRE_EVERY);
    loop {
        every.tick().await;
        match store.expire_keys().await {
            Ok(0) => {}
            Ok(expired) => tracing::info!(expired, "idempotency keys expired"),
            Err(error) => tracing::warn!(%error, "idempotency keys could not be expired"),
        }
    }
}

async fn connect(url: &str, pool_size: u32) -> anyhow::Result<PgPool> {
    let options: PgConnectOptions = url.parse().context("WRITE_DATABASE_URL")?;
    let options = options
        .application_name("command-api")
        .options([("statement_timeout", STATEMENT_TIME_MAX), ("idle_in_transaction_session_timeout", "15s")]);
    PgPoolOptions::new()
        .max_connections(pool_size)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIME_MAX)
        // A ping before each command would be a round trip more; a stale connection is replaced at the first statement.
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .context("connecting to the write database")
}
