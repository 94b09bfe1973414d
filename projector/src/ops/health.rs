//! Whether a host runs, and whether it can work; and what is amiss around it when it starts.
//!
//! A host is **live** as long as it answers: one that is late, or whose store is away, is not helped by a restart. It is
//! **ready** once its live generations have partitions.

use super::lag::{BeforeKafka, LegState};
use crate::host::Watched;
use axum::http::StatusCode;
use std::fmt;
use std::time::Duration;

/// A group settles within its session time-out, 10 s.
const STANDBY_AFTER: Duration = Duration::from_secs(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Ready once every live generation has partitions; not while a consumer that was lost has no successor with partitions. A host
/// beyond the number of partitions gets none, and is ready all the same after a while: it stands by.
pub(super) fn ready(stats: &[Watched]) -> (StatusCode, String) {
    let joins = |w: &&Watched| w.live && w.stats.joining_for().is_some_and(|waited| waited < STANDBY_AFTER);
    let waiting: Vec<_> = stats.iter().filter(joins).map(|w| w.read_model.as_str()).collect();
    if waiting.is_empty() {
        return (StatusCode::OK, "ready".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for partitions: {}", waiting.join(", ")))
}

/// Something around a host that is amiss, which it can start without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was found, and where.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Looks at the schema registry and at the leg before Kafka. What a host can't start without is refused elsewhere
/// ([`crate::source::before_reading`]); this it waits for, so it is named.
pub async fn look_around(registry_url: &str, before: &BeforeKafka) -> Vec<Finding> {
    let (registry, leg) = tokio::join!(registry(registry_url), before.look_once());
    let mut findings = Vec::from_iter(registry);
    match leg.state {
        LegState::Unreachable => findings.push(Finding {
            what: leg.text.clone(),
            remedy: "mend WRITE_DATABASE_URL; until then nobody sees whether the outbox is published".to_owned(),
        }),
        _ if leg.slot.as_ref().is_some_and(|slot| !slot.exists) => findings.push(Finding {
            what: leg.text.clone(),
            remedy: "nothing new reaches Kafka: name the connector's (OUTBOX_SLOT), or see docs/operations.md (The slot is lost)"
                .to_owned(),
        }),
        _ => {}
    }
    findings
}

async fn registry(url: &str) -> Option<Finding> {
    let asked = async {
        let http = reqwest::Client::builder().timeout(ANSWER_WITHIN).build()?;
        http.get(format!("{}/subjects", url.trim_end_matches('/'))).send().await?.error_for_status()
    };
    let error = asked.await.err()?.without_url();
    Some(Finding {
        what: format!("the schema registry doesn't answer: {error}"),
        remedy: "mend SCHEMA_REGISTRY_URL, or start it: events whose schema isn't known yet wait".to_owned(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::host::Promise;
    use crate::ops::lag::BeforeKafkaArgs;
    use std::sync::Arc;

    pub(crate) fn watched() -> Watched {
        Watched {
            read_model: "loans".into(),
            generation: 1,
            live: true,
            stats: Arc::default(),
            promise: Promise { lag_max: Duration::from_secs(1), lag_critical: Duration::from_secs(60), store: "redis" },
            state: "live".into(),
            queued: crate::source::Queued::default(),
        }
    }

    #[test]
    fn a_host_that_waits_for_partitions_is_not_ready() {
        let expected = (StatusCode::SERVICE_UNAVAILABLE, "waiting for partitions: loans".to_owned());
        assert_eq!(ready(&[watched()]), expected);
        let mut page = crate::ops::metrics::Page::default();
        crate::ops::metrics::host(&mut page, &[watched()]);
        let text = page.render();
        assert!(!text.contains("partition=\"") && text.contains("projection_partitions_held{"), "{text}");
    }

    #[tokio::test]
    async fn what_is_away_at_the_start_is_named() {
        let args = BeforeKafkaArgs { outbox_slot: "outbox_slot".into(), outbox_late_ms: 5_000 };
        let before = BeforeKafka::open(Some("postgres://nobody@127.0.0.1:1/none"), None, &args).unwrap();
        let findings = look_around("http://127.0.0.1:1", &before).await;
        let all = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(all.contains("the schema registry doesn't answer"), "{all}");
        assert!(all.contains("the write database doesn't answer"), "{all}");
        assert!(all.contains("mend SCHEMA_REGISTRY_URL") && all.contains("mend WRITE_DATABASE_URL"), "{all}");
    }
}
