//! The server for operators: metrics, health.

use super::alert::Seen;
use super::health::ready;
use super::metrics::{self, Metric, Page};
use crate::host::{Host, Watched};
use axum::Router;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Serves `/metrics` and `/health/*` of a host, and what stands beside them: the admin API and the console.
///
/// # Errors
/// When the address can't be listened on.
pub async fn admin(listen: SocketAddr, host: &Host, seen: Seen, more: Router) -> std::io::Result<JoinHandle<()>> {
    let stats = host.watched();
    let watched = Arc::clone(&stats);
    let app = Router::new()
        .route("/health/live", get(|| async { "live" }))
        .route("/health/ready", get(move || async move { ready(&now(&watched)) }))
        .route("/metrics", get(move || async move { metrics::answer(page(&now(&stats), &seen)) }))
        .merge(more);
    let listener = TcpListener::bind(listen).await.map_err(|e| {
        std::io::Error::new(e.kind(), format!("can't listen on {listen}: {e}; choose another with --admin-listen"))
    })?;
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "admin server ended");
        }
    }))
}

fn now(all: &RwLock<Vec<Watched>>) -> Vec<Watched> {
    all.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn page(watched: &[Watched], seen: &Seen) -> Page {
    let mut page = Page::default();
    metrics::host(&mut page, watched);
    let report = seen.report();
    page.whole(Metric::MonitorLeader, &[], i64::from(report.is_some()));
    page.whole(Metric::ControlStoreUp, &[], i64::from(seen.reaches_control_store()));
    page.count(Metric::WebhookFailed, &[], seen.webhook_failures());
    if let Some(report) = &report {
        metrics::monitored(&mut page, report);
    }
    page
}
