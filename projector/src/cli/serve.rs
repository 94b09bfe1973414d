//! `projector serve`: the query service.

use super::{ControlArg, SchemasArg, stop_signal};
use crate::event::Catalog;
use crate::ops::metrics;
use crate::query::{self, Measures, QueryConfig, ServiceLimits};
use crate::sink::StoreUrls;
use anyhow::Context;
use axum::Router;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Arguments of `serve`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Where queries are answered, under the paths that the projections declare; /health/live, /health/ready, /metrics and
    /// /openapi.json beside them
    #[arg(long, env = "QUERY_LISTEN", default_value = "127.0.0.1:18010")]
    listen: SocketAddr,
    #[command(flatten)]
    control: ControlArg,
    #[command(flatten)]
    stores: StoreUrls,
    #[command(flatten)]
    schemas: SchemasArg,
    /// The write database with its event store, read only: for `consistency=strong`, `min_seq` and declared fallbacks. Without it
    /// those are refused, and a document that isn't in its read model is not found
    #[arg(long, env = "WRITE_DATABASE_URL", hide_env_values = true)]
    write_database_url: Option<String>,
    #[command(flatten)]
    limits: ServiceLimits,
    #[command(flatten)]
    traces: telemetry::TracesArgs,
}

pub(super) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let traces = args.traces.start("projector-serve")?;
    let schemas = Catalog::load(&args.schemas.schemas)?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("can't listen on {}", args.listen))?;
    tracing::info!(listen = %args.listen, "answering queries");
    let measures = Arc::<Measures>::default();
    let shown = Arc::clone(&measures);
    let page = move || std::future::ready(metrics::answer(metrics::serve(&shown)));
    let config = QueryConfig {
        control_url: args.control.control_database_url,
        stores: args.stores,
        schemas,
        write_url: args.write_database_url,
        limits: args.limits,
        measures,
        beside: Router::new().route("/metrics", get(page)),
    };
    query::serve(listener, config, stop_signal()).await?;
    traces.stop().await;
    tracing::info!("stopped");
    Ok(())
}
