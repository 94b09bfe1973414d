//! How far behind the read models were: `projector status`, and the difference between two of them.

use std::{fmt, process::Stdio};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{Histogram, serialization::Deserializer};
use serde::{Deserialize, Serialize};

use crate::{load::Figures, settings::Instance};

#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    read_models: Vec<ReadModel>,
}

#[derive(Debug, Deserialize)]
struct ReadModel {
    name: String,
    store: String,
    generation: u64,
    documents: Option<u64>,
    events_applied: u64,
    duplicates: u64,
    errors: u64,
    behind: u64,
    /// Base64 of an hdrhistogram, V2 with or without deflate, in microseconds.
    #[serde(default)]
    lag_histogram: Option<String>,
}

/// What one run did to a read model.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Progress {
    pub(crate) name: String,
    pub(crate) store: String,
    pub(crate) documents: Option<u64>,
    pub(crate) events: u64,
    pub(crate) duplicates: u64,
    pub(crate) errors: u64,
    /// Commit → visible.
    pub(crate) lag: Option<Figures>,
}

/// A row for each read model.
pub(crate) fn table(out: &mut impl fmt::Write, read_models: &[Progress]) -> fmt::Result {
    writeln!(
        out,
        "  {:<24} {:<14} {:>9} {:>8} {:>8} {:>8} {:>8} {:>6}",
        "", "store", "documents", "events", "p50 ms", "p99 ms", "max ms", "errors"
    )?;
    for model in read_models {
        let lag = |figure: fn(&Figures) -> f64| {
            model.lag.as_ref().map_or("–".to_owned(), |lag| format!("{:.1}", figure(lag)))
        };
        writeln!(
            out,
            "  {:<24} {:<14} {:>9} {:>8} {:>8} {:>8} {:>8} {:>6}",
            model.name,
            model.store,
            model.documents.map_or("–".to_owned(), |count| count.to_string()),
            model.events,
            lag(|figures| figures.p50),
            lag(|figures| figures.p99),
            lag(|figures| figures.max),
            model.errors,
        )?;
    }
    Ok(())
}

impl Status {
    /// Asks the projector's own command, so that what is shown is what an operator would see.
    pub(crate) async fn read(instance: &Instance) -> Result<Self> {
        let program = instance.binary("projector");
        let output = tokio::process::Command::new(&program)
            .args(["status", "--output", "json"])
            .envs(instance.env())
            .current_dir(instance.root())
            .stdin(Stdio::null())
            .output()
            .await
            .with_context(|| format!("can't run {}", program.display()))?;
        ensure!(output.status.success(), "projector status failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        serde_json::from_slice(&output.stdout).context("can't read the answer of projector status")
    }

    /// Messages not handled yet, over all read models.
    pub(crate) fn behind(&self) -> u64 {
        self.read_models.iter().map(|model| model.behind).sum()
    }

    /// What happened since an earlier status. Counters that went back were started anew: then all of it is new.
    pub(crate) fn since(&self, before: &Self) -> Result<Vec<Progress>> {
        self.read_models
            .iter()
            .map(|now| {
                let then = before.read_models.iter().find(|then| {
                    then.name == now.name
                        && then.generation == now.generation
                        && then.events_applied <= now.events_applied
                });
                let new = |count: fn(&ReadModel) -> u64| count(now).saturating_sub(then.map_or(0, count));
                Ok(Progress {
                    name: now.name.clone(),
                    store: now.store.clone(),
                    documents: now.documents,
                    events: new(|model| model.events_applied),
                    duplicates: new(|model| model.duplicates),
                    errors: new(|model| model.errors),
                    lag: lag(now, then)?,
                })
            })
            .collect()
    }
}

fn lag(now: &ReadModel, then: Option<&ReadModel>) -> Result<Option<Figures>> {
    let decode = |model: &ReadModel| -> Result<Option<Histogram<u64>>> {
        let Some(text) = model.lag_histogram.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let bytes = STANDARD.decode(text).context("the lag histogram's base64")?;
        let histogram = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| anyhow::anyhow!("the lag histogram of {}: {error:?}", model.name))?;
        Ok(Some(histogram))
    };
    let Some(mut histogram) = decode(now)? else {
        return Ok(None);
    };
    if let Some(before) = then.map(decode).transpose()?.flatten() {
        let all = histogram.clone();
        // fails where the earlier one holds what the later doesn't: it was started anew
        if histogram.subtract(&before).is_err() {
            histogram = all;
        }
    }
    Ok((!histogram.is_empty()).then(|| Figures::of(&histogram)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
    use serde_json::json;

    use super::*;

    fn status(events: u64, lags_us: &[u64]) -> Status {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        lags_us.iter().for_each(|us| histogram.record(*us).unwrap());
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&histogram, &mut bytes).unwrap();
        serde_json::from_value(json!({"read_models": [{
            "name": "order_summary", "store": "redis", "kind": "entity", "generation": 1, "state": "live",
            "documents": 3, "events_applied": events, "duplicates": 1, "errors": 0, "behind": 2,
            "lag_ms": {"p50": 1, "p99": 1, "max": 1, "count": 1},
            "lag_histogram": STANDARD.encode(bytes), "updated_at": "2026-11-21T05:00:00Z"
        }]}))
        .unwrap()
    }

    #[test]
    fn a_run_is_the_difference_of_what_was_before_and_after() {
        let before = status(10, &[900_000, 900_000]);
        let after = status(14, &[900_000, 900_000, 5_000, 6_000, 7_000]);
        let progress = &after.since(&before).unwrap()[0];
        assert_eq!((progress.events, progress.duplicates), (4, 0));
        let lag = progress.lag.unwrap();
        assert!((lag.p50 - 6.0).abs() < 0.1, "{lag}");
        assert!(lag.max < 7.1, "an earlier run's lag shows: {lag}");
        assert_eq!(after.behind(), 2);
    }

    #[test]
    fn after_a_reset_everything_is_new() {
        let progress = status(3, &[5_000]).since(&status(10, &[900_000])).unwrap();
        assert_eq!(progress[0].events, 3);
        assert!((progress[0].lag.unwrap().max - 5.0).abs() < 0.1);
    }
}
