//! What went live lately is watched for a while, by the rules that its rebuild was given; where one of them is broken for some
//! seconds on end, it goes back by itself, and the log says why. Every host watches: of those that see the same, one starts the
//! way back, and the others are told that it is under way.

use crate::control::{Actor, Control, ControlError, Options, Verify, Watch};
use crate::host::LagMeter;
use chrono::Utc;
use std::collections::HashMap;

/// Looks in a row, a second apart, that must find a rule broken.
const LOOKS: u32 = 5;
/// Fewer queries than this say nothing.
const QUERIES_MIN: i64 = 20;

/// What was seen of the generations that are watched.
#[derive(Default)]
pub(super) struct Watched {
    seen: HashMap<i64, Seen>,
}

#[derive(Default)]
struct Seen {
    meter: LagMeter,
    broken: u32,
}

impl Watched {
    /// Looks at all of them; to be called each second.
    pub(super) async fn look(&mut self, control: &Control) -> Result<(), ControlError> {
        let watched = control.watched().await?;
        self.seen.retain(|id, _| watched.iter().any(|watch| watch.generation_id == *id));
        if watched.is_empty() {
            return Ok(());
        }
        let reports = control.host_status().await?;
        for watch in watched {
            let seen = self.seen.entry(watch.generation_id).or_default();
            let own: Vec<_> = reports.iter().filter(|r| r.generation_id == watch.generation_id).collect();
            let lag_ms = seen.meter.observe(&own, Utc::now());
            let Some(reason) = broken(&watch, lag_ms) else {
                seen.broken = 0;
                continue;
            };
            seen.broken += 1;
            if seen.broken >= LOOKS {
                seen.broken = 0;
                go_back(control, &watch, &reason).await;
            }
        }
        Ok(())
    }
}

async fn go_back(control: &Control, watch: &Watch, reason: &str) {
    let options = Options::back(Verify::Sample(0));
    let why = format!("health rule broken: {reason}");
    let actor = Actor { who: "health rules", why: Some(&why) };
    match control.start_ways_back(std::slice::from_ref(&watch.read_model), &options, actor).await {
        Ok(_) => tracing::error!(read_model = watch.read_model, reason, "goes back to its former generation"),
        Err(error) => tracing::warn!(read_model = watch.read_model, reason, %error, "can't go back"),
    }
}

/// The rule that is broken, in words.
fn broken(watch: &Watch, lag_ms: Option<u64>) -> Option<String> {
    let Watch { health, answered, failed, p99_ms, .. } = watch;
    if *answered >= QUERIES_MIN && failed * 100 > i64::from(health.failed_percent) * answered {
        return Some(format!("{failed} of {answered} queries failed (more than {} %)", health.failed_percent));
    }
    if *answered >= QUERIES_MIN && *p99_ms > i64::from(health.p99_ms) {
        return Some(format!("queries take {p99_ms} ms at the 99th percentile (more than {} ms)", health.p99_ms));
    }
    let lag_ms = lag_ms?;
    (lag_ms > u64::from(health.lag_ms)).then(|| format!("it lags {lag_ms} ms behind (more than {} ms)", health.lag_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Health;

    #[test]
    fn each_rule_says_what_is_wrong_and_few_queries_say_nothing() {
        let health = Health { watch_s: 60, failed_percent: 5, p99_ms: 500, lag_ms: 2_000 };
        let watch = |answered, failed, p99_ms| Watch {
            read_model: "loans".into(),
            generation_id: 2,
            health: health.clone(),
            answered,
            failed,
            p99_ms,
        };
        assert_eq!(broken(&watch(1_000, 50, 500), Some(2_000)), None, "at the limit");
        assert_eq!(broken(&watch(19, 19, 9_000), None), None, "too few");
        let said = |watch: &Watch, lag_ms| broken(watch, lag_ms).unwrap_or_default();
        assert!(said(&watch(1_000, 51, 1), None).starts_with("51 of 1000 queries failed"));
        assert!(said(&watch(1_000, 0, 501), None).contains("501 ms at the 99th percentile"));
        assert!(said(&watch(0, 0, 0), Some(2_001)).starts_with("it lags 2001 ms behind"));
    }
}
