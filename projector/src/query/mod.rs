//! The query service: answers the queries that projections declare, and never lies about how fresh an answer is.
//!
//! # Freshness
//! Without being asked, a query reads what is there. A caller who wrote something passes the `consistency_token` of the
//! command's answer (or `min_seq`, for one document's own sequence), and the query waits until the read model has it:
//!
//! 1. The token names its transaction and every stream that it touched. Of these the read model has those whose topic it
//!    takes; for each, the partition of the stream must have handled the event ([`crate::apply::Progress`]).
//! 2. The hosts publish progress after the store has the documents. A waiting query sleeps on that publication ([`feed`]).
//! 3. Only after the progress is there, the data is read; a search after one more refresh that starts then ([`refresh`]).
//!
//! `min_seq` and `consistency=strong` are put in the terms of a token first ([`wait`]); for that the write database may be asked ([`write_side`]).
//!
//! So an answer to a token holds what the token's command wrote; else there is no answer, but 503 `read-model-behind` at the
//! time limit. `min_seq` compares with the document's stored version. Where a read model doesn't take some type of
//! event, that version never gets to such an event's sequence; then `min_seq` is met only while the event is among the
//! partition's recent ones. A token knows no such limit.
//!
//! # What is served
//! The queries in the frozen configs of the live generations, each bound to its generation's physical place ([`live`]), all of
//! one version of the catalog. When another generation goes live, queries that wait begin again with that one, and those that
//! read end first ([`gate`]); only then the service says that it follows. The service holds nothing of its own: any number of them run side by side.

mod answer;
mod ask;
mod breaker;
mod cache;
mod cursor;
mod endpoint;
mod facets;
mod feed;
mod fields;
mod freshness;
mod gate;
mod hits;
mod http;
mod live;
mod measures;
mod openapi;
mod parameters;
mod path;
mod problem;
mod reached;
mod refresh;
mod represent;
mod request;
mod service;
mod store;
mod subscribe;
mod suggest;
mod tally;
mod template;
mod token;
mod verify;
mod wait;
mod write_side;

pub use crate::source::partition_of;
pub use endpoint::Endpoint;
pub use measures::Measures;
pub use service::ServiceLimits;
pub use token::{Stream, Token, TokenError};

use crate::event::Catalog;
use crate::sink::StoreUrls;
use std::future::{Future, IntoFuture};
use std::time::Duration;
use tokio::net::TcpListener;

/// Requests that are under way get this long when the service stops; a wait is shorter.
const DRAIN_MAX: Duration = Duration::from_secs(8);

/// What a query service needs.
pub struct QueryConfig {
    /// The control store.
    pub control_url: String,
    /// The read stores.
    pub stores: StoreUrls,
    /// The event types, from which the documents' types are inferred.
    pub schemas: Catalog,
    /// The write database with its event store: for `consistency=strong`, `min_seq` and fallbacks.
    pub write_url: Option<String>,
    /// How much at a time, and for whom.
    pub limits: ServiceLimits,
    /// What it measures goes here.
    pub measures: std::sync::Arc<Measures>,
    /// What is answered beside the queries, under paths that none can have.
    pub beside: axum::Router,
}

/// Answers on `listener` until `stop`, then lets what is under way end.
///
/// # Errors
/// When the HTTP server fails, or an address can't be one. That the control store or a read store is down is no error: it is waited for.
pub async fn serve(
    listener: TcpListener,
    config: QueryConfig,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let keeper = live::Keeper::new(config.stores, config.schemas)?;
    let follower = tokio::spawn(std::sync::Arc::clone(&keeper).follow(config.control_url.clone()));
    let leaving = std::sync::Arc::clone(&keeper);
    let write_side = config.write_url.as_deref().map(write_side::WriteSide::open).transpose()?;
    let service =
        service::Service { measures: config.measures, ..service::Service::new(keeper, write_side, &config.limits) };
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let streams = service.stopping.clone();
    let server = axum::serve(listener, http::router(service, &config.limits).merge(config.beside))
        .with_graceful_shutdown(async move {
            stop.await;
            tracing::info!("stopping");
            streams.cancel();
            _ = stopping.send(());
        });
    let overdue = async {
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(DRAIN_MAX).await;
    };
    let result = tokio::select! {
        result = server.into_future() => result,
        () = overdue => {
            tracing::warn!("requests that took too long to end were cut off");
            Ok(())
        }
    };
    follower.abort();
    leaving.leave(&config.control_url).await;
    Ok(result?)
}
