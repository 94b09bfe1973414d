//! What `projector status` and the admin API say of each live read model: how far it is, who has which partition, how much it has done.

use super::lag::Placed;
use crate::control::{Control, Generation, HostStatus};
use crate::event::Catalog;
use crate::host;
use crate::sink::{Sink, StoreUrls};
use crate::verbs::VerbError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::Serialize;
use std::time::Duration;

/// How long a store may take to count its documents.
const COUNT_WITHIN: Duration = Duration::from_secs(2);

/// How the live read models are.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Those that are live.
    pub read_models: Vec<ReadModel>,
}

/// A live read model.
#[derive(Debug, Serialize)]
pub struct ReadModel {
    /// Its name.
    pub name: String,
    /// Where its documents are.
    pub store: &'static str,
    /// How events become documents.
    pub kind: &'static str,
    /// The live generation.
    pub generation: i32,
    /// A [`State`](crate::control::State)'s name.
    pub state: String,
    /// None when the store can't be asked.
    pub documents: Option<u64>,
    /// Of all hosts that ever ran.
    pub events_applied: i64,
    /// Events that were handled before.
    pub duplicates: i64,
    /// Tries that failed.
    pub errors: i64,
    /// Messages not handled yet.
    pub behind: i64,
    /// Commit → visible.
    pub lag_ms: Lag,
    /// Of all hosts that ever ran: `hdrhistogram` V2 with deflate, µs, base64.
    pub lag_histogram: String,
    /// What failed last.
    pub last_error: Option<String>,
    /// When a host said so last.
    pub updated_at: Option<String>,
    /// How far each partition is, and which host has it.
    pub partitions: Vec<Placed>,
}

/// How long after their commit events became visible, in ms.
#[derive(Debug, Serialize)]
pub struct Lag {
    /// Half are quicker.
    pub p50: f64,
    /// 99 of 100 are quicker.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
    /// How many were measured.
    pub count: u64,
}

/// Asks the control store, and each store for the number of its documents.
///
/// # Errors
/// [`VerbError`]; a store that doesn't answer is none.
pub(crate) async fn status(control: &Control, catalog: &Catalog, stores: &StoreUrls) -> Result<Status, VerbError> {
    let (live, reports) = (control.live().await?, control.host_status().await?);
    let each = live.iter().map(async |generation| {
        let (compiled, sink) = host::open(generation, catalog, stores)?;
        let mine: Vec<_> = reports.iter().filter(|r| r.generation_id == generation.generation_id).collect();
        let (store, kind) = (compiled.projection.store.name(), compiled.kind.name());
        read_model(generation, &mine, store, kind, count(generation, &*sink).await)
    });
    Ok(Status { read_models: try_join_all(each).await? })
}

async fn count(generation: &Generation, sink: &dyn Sink) -> Option<u64> {
    let error = match tokio::time::timeout(COUNT_WITHIN, sink.count()).await {
        Ok(Ok(count)) => return Some(count),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", COUNT_WITHIN.as_secs()),
    };
    tracing::warn!(error, generation = generation.id(), "can't count");
    None
}

fn read_model(
    generation: &Generation,
    reports: &[&HostStatus],
    store: &'static str,
    kind: &'static str,
    documents: Option<u64>,
) -> Result<ReadModel, VerbError> {
    let histograms = reports.iter().map(|report| report.lag_histogram.as_slice()).filter(|bytes| !bytes.is_empty());
    let (lag, bytes) =
        added_up(histograms).map_err(|e| VerbError::Unreadable(format!("the lag of {}: {e}", generation.id())))?;
    #[allow(clippy::cast_precision_loss, reason = "milliseconds for people")]
    let ms = |us: u64| us as f64 / 1_000.0;
    // A host that has stopped no longer knows how far behind it is.
    let fresh = chrono::Utc::now() - chrono::TimeDelta::seconds(5);
    let partitions = placed(reports.iter().filter(|r| r.updated_at > fresh));
    let latest = reports.last();
    Ok(ReadModel {
        name: generation.read_model.clone(),
        store,
        kind,
        generation: generation.generation,
        state: generation.state.clone(),
        documents,
        events_applied: reports.iter().map(|r| r.events_applied).sum(),
        duplicates: reports.iter().map(|r| r.duplicates).sum(),
        errors: reports.iter().map(|r| r.errors).sum(),
        behind: reports.iter().filter(|r| r.updated_at > fresh).map(|r| r.behind).sum(),
        lag_ms: Lag {
            p50: ms(lag.value_at_quantile(0.5)),
            p99: ms(lag.value_at_quantile(0.99)),
            max: ms(lag.max()),
            count: lag.len(),
        },
        lag_histogram: STANDARD.encode(bytes),
        last_error: latest.and_then(|r| r.last_error.clone()),
        updated_at: latest.map(|r| crate::expr::json::time_text(&r.updated_at)),
        partitions,
    })
}

/// The lags of all hosts, and the same as bytes.
fn added_up<'a>(
    histograms: impl Iterator<Item = &'a [u8]>,
) -> Result<(Histogram<u64>, Vec<u8>), Box<dyn std::error::Error>> {
    let mut lag = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 2)?;
    for mut bytes in histograms {
        let one: Histogram<u64> = Deserializer::new().deserialize(&mut bytes)?;
        lag.add(one)?;
    }
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(&lag, &mut bytes)?;
    Ok((lag, bytes))
}

/// The partitions that hosts reported lately, in order; of two that say they have one, which happens while it changes hands, both.
fn placed<'a>(reports: impl Iterator<Item = &'a &'a HostStatus>) -> Vec<Placed> {
    let of = |report: &&'a HostStatus| {
        let host = report.host;
        report.present.positions.iter().map(move |position| Placed { host, position: position.clone() })
    };
    let mut all: Vec<_> = reports.flat_map(of).collect();
    all.sort_by(|a, b| (&a.position.topic, a.position.partition).cmp(&(&b.position.topic, b.position.partition)));
    all
}
