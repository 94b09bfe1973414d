//! Making visible what was written, where the store needs a refresh for that: beside the batches, one at a time.

use super::super::traced::{self, Unseen};
use super::Worker;
use crate::sink::SinkError;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long writes to a store with refreshes may stay invisible to those who don't wait.
const REFRESH_EVERY: Duration = Duration::from_millis(100);

/// A refresh under way, and the events that it will make visible.
pub(super) struct Refreshing {
    task: JoinHandle<Result<(), SinkError>>,
    events: Vec<DateTime<Utc>>,
    traced: Vec<Unseen>,
    began: Instant,
}

impl Worker {
    pub(super) fn wants_refresh(&self) -> bool {
        !self.invisible.is_empty() && self.refreshing.is_none()
    }

    pub(super) fn start_refresh(&mut self) {
        let sink = Arc::clone(&self.setup.sink);
        let id = self.calls.generation.clone();
        let task = tokio::spawn(async move {
            let started = Instant::now();
            let result = sink.refresh().await;
            tracing::debug!(generation = id, ms = started.elapsed().as_millis(), "refreshed");
            result
        });
        let began = Instant::now();
        let (events, traced) = (std::mem::take(&mut self.invisible), std::mem::take(&mut self.traced));
        self.refreshing = Some(Refreshing { task, events, traced, began });
    }

    pub(super) fn refreshed(&mut self, result: Result<(), String>) {
        let Some(refreshing) = self.refreshing.take() else { return };
        // A slow refresh is a busy engine: it gets a while to do something else.
        let rest = refreshing.began.elapsed().min(REFRESH_EVERY);
        self.next_refresh = (refreshing.began + REFRESH_EVERY).max(Instant::now() + rest);
        match result {
            Ok(()) => {
                if self.setup.orders.borrow().live {
                    self.setup.stats.visible(&refreshing.events);
                }
                traced::seen(&self.setup.generation.read_model, refreshing.traced);
            }
            Err(error) => {
                self.calls.failed(&error, 0);
                self.invisible.extend(refreshing.events);
                traced::keep(&mut self.traced, refreshing.traced);
            }
        }
        self.note_unrefreshed();
    }

    /// How old the oldest event is that only a refresh keeps from readers.
    pub(super) fn note_unrefreshed(&self) {
        let refreshing = self.refreshing.iter().flat_map(|refreshing| &refreshing.events);
        let oldest = self.invisible.iter().chain(refreshing).min().copied();
        self.setup.stats.with(|s| s.doing.unrefreshed = oldest);
    }
}

pub(super) async fn join(refreshing: &mut Option<Refreshing>) -> Result<(), String> {
    match refreshing {
        Some(refreshing) => match (&mut refreshing.task).await {
            Ok(result) => result.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        },
        None => std::future::pending().await,
    }
}
