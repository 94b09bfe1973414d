//! `projector serve`: the query service.

use super::{ControlArg, SchemasArg, stop_signal};
use crate::event::Catalog;
use crate::query::{self, QueryConfig};
use crate::sink::StoreUrls;
use anyhow::Context;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Arguments of `serve`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Where queries are answered, under the paths that the projections declare; /health/live and /health/ready beside them
    #[arg(long, env = "QUERY_LISTEN", default_value = "127.0.0.1:18010")]
    listen: SocketAddr,
    #[command(flatten)]
    control: ControlArg,
    #[command(flatten)]
    stores: StoreUrls,
    #[command(flatten)]
    schemas: SchemasArg,
}

pub(super) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let schemas = Catalog::load(&args.schemas.schemas)?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("can't listen on {}", args.listen))?;
    tracing::info!(listen = %args.listen, "answering queries");
    let config = QueryConfig { control_url: args.control.control_database_url, stores: args.stores, schemas };
    query::serve(listener, config, stop_signal()).await?;
    tracing::info!("stopped");
    Ok(())
}
