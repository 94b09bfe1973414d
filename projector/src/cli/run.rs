//! `projector run`: a host.

use super::site::PastArgs;
use super::{ControlArg, SchemasArg, stop_signal};
use crate::control::Control;
use crate::event::{Catalog, Decoder};
use crate::generation::{Site, keep};
use crate::host::{Host, HostConfig};
use crate::ops::admin::{Admin, AdminArgs};
use crate::ops::{self, alert, health, lag};
use crate::sink::StoreUrls;
use crate::source::{Edges, KafkaConfig, before_reading};
use anyhow::Context;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Arguments of `run`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    schemas: SchemasArg,
    #[command(flatten)]
    control: ControlArg,
    #[command(flatten)]
    kafka: KafkaConfig,
    #[command(flatten)]
    stores: StoreUrls,
    #[command(flatten)]
    past: PastArgs,
    #[command(flatten)]
    monitor: alert::MonitorArgs,
    /// Kafka Connect's REST address, to make sure that one connector alone writes to the topics; not checked without it
    #[arg(long, env = "CONNECT_URL")]
    connect_url: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Where the console, the admin API, /metrics and /health are answered
    #[arg(long, env = "PROJECTOR_ADMIN_LISTEN", default_value = "127.0.0.1:18020")]
    admin_listen: SocketAddr,
    /// Hold every write back this long, to test what waiting queries do
    #[arg(long, env = "PROJECTOR_FAULT_DELAY_MS", default_value_t = 0, hide = true)]
    fault_delay_ms: u64,
    #[command(flatten)]
    traces: telemetry::TracesArgs,
}

pub(super) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let traces = args.traces.start("projector-run")?;
    let catalog = Arc::new(Catalog::load(&args.schemas.schemas)?);
    let decoder = Arc::new(Decoder::new(Arc::clone(&catalog), &args.past.schema_registry_url)?);
    let control = Control::connect(&args.control.control_database_url).await?;
    let live = control.live().await?;
    tokio::select! {
        checked = before_reading(&args.kafka, args.connect_url.as_deref(), &live, args.stores.tombstones_keep()) => {
            checked.context("nothing was started, since what is read could not be relied on")?;
        }
        () = stop_signal() => return Ok(ExitCode::SUCCESS),
    }
    let (write_url, connect_url) = (args.past.write_database_url.as_deref(), args.connect_url.as_deref());
    let before = lag::BeforeKafka::open(write_url, connect_url, &args.monitor.before_kafka)
        .context("WRITE_DATABASE_URL can't be read")?;
    tokio::spawn({
        let (registry_url, before) = (args.past.schema_registry_url.clone(), before.clone());
        async move {
            for finding in health::look_around(&registry_url, &before).await {
                tracing::error!(remedy = finding.remedy, "{}", finding.what);
            }
        }
    });
    let name = match &args.kafka.instance_id {
        Some(id) => format!("host {id}, pid {}", std::process::id()),
        None => format!("host, pid {}", std::process::id()),
    };
    let monitor = alert::Monitor::new(name.clone(), control.clone(), before.clone(), args.kafka.clone(), &args.monitor)
        .context("no alerts can be told")?;
    let config = HostConfig {
        kafka: args.kafka,
        stores: args.stores,
        event_store: args.past.write_database_url,
        fault_delay: Duration::from_millis(args.fault_delay_ms),
    };
    let site = Site {
        control: control.clone(),
        catalog: Arc::clone(&catalog),
        stores: config.stores.clone(),
        edges: Edges::new(&config.kafka),
        kafka: config.kafka.clone(),
        decoder: Some(Arc::clone(&decoder)),
        event_store: config.event_store.clone(),
        name,
        id: Uuid::now_v7(),
    };
    let desk = Admin::new(site.clone(), before, monitor.seen(), args.connect_url, args.admin, args.admin_listen);
    let desk = desk.map_err(anyhow::Error::msg)?;
    let host = Host::start(control, catalog, decoder, &config).await?;
    let keeper = CancellationToken::new();
    let kept = tokio::spawn(keep(site, keeper.clone()));
    let admin = ops::admin(args.admin_listen, &host, monitor.seen(), desk.routes()).await?;
    let monitored = tokio::spawn(monitor.run(keeper.clone()));
    let result = host.run_until(stop_signal()).await;
    admin.abort();
    keeper.cancel();
    // What it drives is left to others as it is.
    _ = tokio::time::timeout(Duration::from_secs(1), async { tokio::join!(kept, monitored) }).await;
    traces.stop().await;
    tracing::info!("stopped");
    result?;
    Ok(ExitCode::SUCCESS)
}
