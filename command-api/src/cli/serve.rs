//! `command-api serve`: commands over HTTP, and what has to be done beside them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use command_api::http::{self, Consistency};
use command_api::migrate;
use command_api::outbox::{self, KafkaHeartbeats};
use command_api::store::{Codec, Options, Store};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::signal::unix::{SignalKind, signal};

use super::{Database, Registry, Slot};

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    registry: Registry,
    #[command(flatten)]
    slot: Slot,
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
    /// Where the outbox's heartbeats are read back, to know what is published; without it the outbox is never pruned
    #[arg(long, env = "KAFKA_BROKERS")]
    kafka_brokers: Option<String>,
    /// Seconds for which an outbox row is kept after it is known to be published
    #[arg(long, env = "OUTBOX_KEPT_S", default_value_t = 3_600)]
    outbox_kept_s: u64,
    /// The query service, which is asked what read models show when a command is to wait for them; without it none waits
    #[arg(long, env = "QUERY_URL")]
    query_url: Option<String>,
    /// Commands that wait for read models without being asked, as in `POST /payments=order_summary,order_details`; in the variable
    /// with semicolons between
    #[arg(long = "wait-for", env = "COMMAND_WAITS", value_name = "COMMAND=READ_MODELS", value_delimiter = ';')]
    waits: Vec<String>,
    #[command(flatten)]
    traces: telemetry::TracesArgs,
}

const STATEMENT_TIME_MAX: &str = "8s";
/// How long a request waits for a connection before it is told that the store is down.
const ACQUIRE_TIME_MAX: Duration = Duration::from_secs(3);
/// Expired idempotency keys are harmless, so this is only about space.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
const MARK_EVERY: Duration = Duration::from_secs(10);

pub(crate) async fn run(arguments: ServeArgs) -> anyhow::Result<()> {
    let traces = arguments.traces.start("command-api")?;
    let consistency = Consistency::new(arguments.query_url.as_deref(), &arguments.waits)?;
    let pool = connect(&arguments.database.database_url, arguments.pool_size).await?;
    migrate::check(&pool).await?;
    let Registry { registry_url, schemas_dir } = &arguments.registry;
    let files = schemas::load(schemas_dir)?;
    let ids = schemas::ids(&files, registry_url).await.context("looking up the schemas' ids")?;
    let options = Options {
        snapshot_every: arguments.snapshot_every,
        keys_kept: Duration::from_secs(arguments.keys_kept_h * 3_600),
    };
    let store = Store::new(pool.clone(), Codec::new(files, &ids), options);
    tokio::spawn(expire_keys(store.clone()));
    tend_outbox(&pool, &arguments).await?;

    let listen = arguments.listen;
    let listener = tokio::net::TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    tracing::info!(%listen, schemas = ids.len(), pool_size = arguments.pool_size, "serving commands");
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
    // Made once: else every connection would have all routes made anew for it, some 0.9 MB.
    let service = http::router(store, consistency).into_make_service();
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;
    pool.close().await;
    traces.stop().await;
    Ok(())
}

async fn tend_outbox(pool: &PgPool, arguments: &ServeArgs) -> anyhow::Result<()> {
    let slot = arguments.slot.slot.clone();
    let Some(brokers) = arguments.kafka_brokers.as_ref().filter(|brokers| !brokers.is_empty() && !slot.is_empty())
    else {
        tracing::info!("no Kafka or no slot is named: the outbox is neither stamped nor pruned");
        return Ok(());
    };
    let heartbeats = KafkaHeartbeats::start(brokers, outbox::HEARTBEATS, outbox::oldest_heartbeat_ms(pool).await?);
    let settings = outbox::Settings { slot, every: MARK_EVERY, kept: Duration::from_secs(arguments.outbox_kept_s) };
    tokio::spawn(outbox::tend(pool.clone(), settings, heartbeats));
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
    let options = options.application_name("command-api").options([
        ("statement_timeout", STATEMENT_TIME_MAX),
        ("idle_in_transaction_session_timeout", "15s"),
        // Events go in as arrays, whose length Postgres would otherwise plan for anew with every command.
        ("plan_cache_mode", "force_generic_plan"),
    ]);
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
