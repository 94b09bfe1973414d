//! What Kafka Connect says of the connectors that write to our topics.
//!
//! A topic's order is its connector's: invariant I0 stands as long as one connector routes the outbox into it. So it is the
//! route that counts here, whatever table or database a connector reads.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
/// The route of Debezium's outbox event router where its configuration names none.
const DEFAULT_ROUTE: &str = "outbox.event.${routedByValue}";
/// Modes in which Debezium sends nothing but what it reads from the log.
const WITHOUT_SNAPSHOT: [&str; 3] = ["no_data", "schema_only", "never"];

/// Connect gave no answer, or none that can be read.
#[derive(Debug, thiserror::Error)]
#[error("asking Kafka Connect at {url}: {source}")]
pub struct ConnectError {
    url: String,
    source: reqwest::Error,
}

/// A connector as Connect describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connector {
    /// Its name in Connect.
    pub name: String,
    /// RUNNING, FAILED, UNASSIGNED, PAUSED, STOPPED or RESTARTING.
    pub state: String,
    /// The states of its tasks.
    pub tasks: Vec<String>,
    /// Why it or its tasks failed: the first line of each failure.
    pub failures: Vec<String>,
    /// Its configuration, references to secrets unresolved.
    pub config: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Described {
    info: Info,
    status: Status,
}

#[derive(Deserialize)]
struct Info {
    config: BTreeMap<String, Option<String>>,
}

#[derive(Deserialize)]
struct Status {
    connector: Worker,
    #[serde(default)]
    tasks: Vec<Worker>,
}

#[derive(Deserialize)]
struct Worker {
    state: String,
    trace: Option<String>,
}

impl Worker {
    fn failure(&self) -> Option<String> {
        Some(self.trace.as_ref()?.lines().next()?.to_owned())
    }
}

/// All connectors of the cluster at `url`, such as `http://127.0.0.1:18083`, by name.
///
/// # Errors
/// [`ConnectError`]: it can't be reached within 10 s, or isn't Kafka Connect.
pub async fn connectors(url: &str) -> Result<Vec<Connector>, ConnectError> {
    let url = format!("{}/connectors?expand=info&expand=status", url.trim_end_matches('/'));
    let asked = async {
        let http = reqwest::Client::builder().timeout(LIMIT).build()?;
        http.get(&url).send().await?.error_for_status()?.json::<BTreeMap<String, Described>>().await
    };
    let all = asked.await.map_err(|source| failed(&url, source))?;
    let connector = |(name, described): (String, Described)| Connector {
        name,
        failures: described
            .status
            .tasks
            .iter()
            .chain([&described.status.connector])
            .filter_map(Worker::failure)
            .collect(),
        state: described.status.connector.state,
        tasks: described.status.tasks.into_iter().map(|t| t.state).collect(),
        config: described.info.config.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
    };
    Ok(all.into_iter().map(connector).collect())
}

/// Starts a connector and all its tasks again; Connect does so a moment later.
///
/// # Errors
/// [`ConnectError`]; among them that it has no connector of this name.
pub async fn restart(url: &str, name: &str) -> Result<(), ConnectError> {
    let base = url.trim_end_matches('/');
    let asked = async {
        let http = reqwest::Client::builder().timeout(LIMIT).build()?;
        let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
        http.post(format!("{base}/connectors/{name}/restart?includeTasks=true")).send().await?.error_for_status()
    };
    asked.await.map(drop).map_err(|source| failed(base, source))
}

fn failed(url: &str, source: reqwest::Error) -> ConnectError {
    ConnectError { url: url.to_owned(), source: source.without_url() }
}

impl Connector {
    /// Whether one of its outbox event routers can send a row to `topic`.
    #[must_use]
    pub fn routes_to(&self, topic: &str) -> bool {
        let transforms = self.config.get("transforms").map(String::as_str).unwrap_or_default();
        transforms.split(',').map(str::trim).any(|name| {
            let option = |key: &str| self.config.get(&format!("transforms.{name}.{key}")).map(String::as_str);
            option("type").is_some_and(|class| class.contains(".outbox."))
                && matches(option("route.topic.replacement").unwrap_or(DEFAULT_ROUTE), topic)
        })
    }

    /// Whether nothing of it can be on its way to Kafka: stopped with no task left, or paused with all its tasks.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        match self.state.as_str() {
            "STOPPED" => self.tasks.is_empty(),
            "PAUSED" => self.tasks.iter().all(|task| task == "PAUSED"),
            _ => false,
        }
    }

    /// The snapshot mode, if it makes Debezium send rows in another order than that of their commits.
    #[must_use]
    pub fn snapshot_mode(&self) -> Option<&str> {
        let mode = self.config.get("snapshot.mode").map_or("initial", String::as_str);
        (!WITHOUT_SNAPSHOT.contains(&mode)).then_some(mode)
    }

    /// Whether its producer was told to have several requests on their way without being idempotent: a retry then lands
    /// behind what was sent after it. (Without overrides Connect's producers have one.)
    #[must_use]
    pub fn may_reorder(&self) -> bool {
        let option = |key: &str| self.config.get(&format!("producer.override.{key}")).map(String::as_str);
        let idempotent = option("enable.idempotence").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        !idempotent && option("max.in.flight.requests.per.connection").is_some_and(|n| n != "1")
    }
}

/// Whether a route's replacement, with each `${group}` standing for any text, can give the name.
fn matches(route: &str, topic: &str) -> bool {
    let mut literals = Vec::new();
    let mut rest = route;
    while let Some((before, after)) = rest.split_once("${") {
        literals.push(before);
        rest = after.split_once('}').map_or("", |(_, behind)| behind);
    }
    let Some((first, middle)) = literals.split_first() else { return route == topic };
    let Some(mut left) = topic.strip_prefix(first).and_then(|t| t.strip_suffix(rest)) else { return false };
    for literal in middle {
        let Some((_, behind)) = left.split_once(literal) else { return false };
        left = behind;
    }
    true
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::source) fn connector(name: &str, state: &str, more: &[(&str, &str)]) -> Connector {
        let common = [
            ("transforms", "unwrap, outbox"),
            ("transforms.outbox.type", "io.debezium.transforms.outbox.EventRouter"),
            ("transforms.outbox.route.topic.replacement", "events.${routedByValue}"),
            ("snapshot.mode", "no_data"),
        ];
        let config = common.iter().chain(more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Connector { name: name.to_owned(), state: state.to_owned(), tasks: Vec::new(), failures: Vec::new(), config }
    }

    #[test]
    fn routes_are_patterns() {
        assert!(matches("events.${routedByValue}", "events.loan"));
        assert!(matches("${a}.x.${b}.y", "events.x.loan.y"));
        assert!(matches("events.loan", "events.loan"));
        assert!(!matches("events.${routedByValue}", "audit.loan"));
        assert!(!matches("events.${routedByValue}.v2", "events.loan"));
        assert!(!matches("${a}.x.${b}", "events.loan"));
        assert!(connector("outbox", "RUNNING", &[]).routes_to("events.loan"));
        let elsewhere = [("transforms.outbox.route.topic.replacement", "copy.${routedByValue}")];
        assert!(!connector("copy", "RUNNING", &elsewhere).routes_to("events.loan"));
        assert!(!connector("plain", "RUNNING", &[("transforms", "unwrap")]).routes_to("events.loan"));
    }

    #[test]
    fn a_connector_rests_only_with_all_its_tasks() {
        let with = |state: &str, tasks: &[&str]| Connector {
            tasks: tasks.iter().map(|t| (*t).to_owned()).collect(),
            ..connector("outbox", state, &[])
        };
        assert!(with("STOPPED", &[]).at_rest());
        assert!(with("PAUSED", &["PAUSED"]).at_rest());
        assert!(!with("STOPPED", &["RUNNING"]).at_rest());
        assert!(!with("PAUSED", &["RUNNING"]).at_rest());
        assert!(!with("FAILED", &["FAILED"]).at_rest());
    }

    #[test]
    fn what_reorders_is_seen() {
        let several = ("producer.override.max.in.flight.requests.per.connection", "5");
        assert!(connector("outbox", "RUNNING", &[several]).may_reorder());
        assert!(
            !connector("outbox", "RUNNING", &[several, ("producer.override.enable.idempotence", "true")]).may_reorder()
        );
        assert!(!connector("outbox", "RUNNING", &[]).may_reorder());
        assert_eq!(connector("outbox", "RUNNING", &[]).snapshot_mode(), None);
        assert_eq!(connector("outbox", "RUNNING", &[("snapshot.mode", "initial")]).snapshot_mode(), Some("initial"));
    }
}
