//! The server for operators: metrics, health.

use crate::host::{Host, Watched};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A group settles within its session time-out, 10 s.
const STANDBY_AFTER: Duration = Duration::from_secs(20);

/// Serves `/metrics` and `/health/*` of a host, and what stands beside them: the admin API and the console.
///
/// # Errors
/// When the address can't be listened on.
pub async fn admin(listen: SocketAddr, host: &Host, more: Router) -> std::io::Result<JoinHandle<()>> {
    let stats = host.watched();
    let watched = Arc::clone(&stats);
    let now = |all: &RwLock<Vec<Watched>>| all.read().unwrap_or_else(PoisonError::into_inner).clone();
    let app = Router::new()
        .route("/health/live", get(|| async { "live" }))
        .route("/health/ready", get(move || async move { ready(&now(&watched)) }))
        .route("/metrics", get(move || async move { metrics(&now(&stats)) }))
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

/// Ready once every live generation has partitions; not while a consumer that was lost has no successor with partitions. A host
/// beyond the number of partitions gets none, and is ready all the same after a while: it stands by.
fn ready(stats: &[Watched]) -> (StatusCode, String) {
    let joins = |w: &&Watched| w.live && w.stats.joining_for().is_some_and(|waited| waited < STANDBY_AFTER);
    let waiting: Vec<_> = stats.iter().filter(joins).map(|w| w.read_model.as_str()).collect();
    if waiting.is_empty() {
        return (StatusCode::OK, "ready".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for partitions: {}", waiting.join(", ")))
}

/// Prometheus' text format. The names are those of the product's specification; more come with their own work.
fn metrics(stats: &[Watched]) -> String {
    let mut text = String::new();
    let names = ["projection_events_processed_total", "projection_duplicates_skipped_total", "projection_errors_total"];
    for (at, name) in names.into_iter().enumerate() {
        let _ = writeln!(text, "# TYPE {name} counter");
        for Watched { read_model, generation, stats, .. } in stats {
            let (applied, duplicates, errors) = stats.counts();
            let value = [applied, duplicates, errors][at];
            let _ = writeln!(text, "{name}{{read_model=\"{read_model}\",generation=\"{generation}\"}} {value}");
        }
    }
    // What alerts compare lags with.
    let name = "projection_lag_threshold_seconds";
    let _ = writeln!(text, "# TYPE {name} gauge");
    for Watched { read_model, generation, lag_max, .. } in stats {
        let seconds = lag_max.as_secs_f64();
        let _ = writeln!(text, "{name}{{read_model=\"{read_model}\",generation=\"{generation}\"}} {seconds}");
    }
    // Only for partitions that are this host's: which host has which can be seen, and that each has one.
    let name = "projection_partition_next_offset";
    let _ = writeln!(text, "# TYPE {name} gauge");
    for Watched { read_model, generation, stats, .. } in stats {
        for (partition, next) in stats.positions() {
            let (topic, number) = (partition.topic, partition.number);
            let _ = writeln!(
                text,
                "{name}{{read_model=\"{read_model}\",generation=\"{generation}\",topic=\"{topic}\",partition=\"{number}\"}} {next}"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_waits_for_partitions_is_not_ready() {
        let stats = [Watched {
            read_model: "loans".into(),
            generation: 1,
            live: true,
            stats: Arc::default(),
            lag_max: Duration::from_secs(1),
        }];
        assert_eq!(ready(&stats), (StatusCode::SERVICE_UNAVAILABLE, "waiting for partitions: loans".to_owned()));
        assert!(!metrics(&stats).contains("partition=\""));
    }
}
