//! What is written about metrics elsewhere holds: docs/metrics.md is generated from their definitions, and alert rules and
//! dashboard name no metric and no label that isn't there.
#![allow(clippy::unwrap_used, missing_docs)]

use projector::ops::alert::rules::Rule;
use projector::ops::metrics::{Metric, document};
use std::collections::BTreeSet;
use std::path::PathBuf;

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap()
}

#[test]
fn the_list_of_metrics_is_up_to_date() {
    let (path, document) = (root("docs/metrics.md"), document());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == document, "docs/metrics.md is out of date: UPDATE=1 cargo test --workspace --test metrics");
}

/// The metrics of command-api with their labels, as docs/write-side.md lists them: its own tests hold that to the code.
fn commands() -> Vec<(String, Vec<String>)> {
    let quoted = |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let document = read("docs/write-side.md");
    let rows = document.lines().filter(|line| line.starts_with("| `command_"));
    rows.map(|row| row.split('|').collect::<Vec<_>>())
        .map(|cells| (quoted(cells[1]).remove(0), quoted(cells[3])))
        .collect()
}

/// A name without what a histogram's samples add.
fn bare(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

#[test]
fn every_alert_is_documented() {
    let document = read("docs/lag.md");
    for rule in Rule::ALL {
        let (after, over) = (rule.raised_after().num_seconds(), rule.resolved_after().num_seconds());
        let after = if after == 0 { "at once".to_owned() } else { format!("{after} s") };
        let row = document.lines().find(|line| line.starts_with(&format!("| `{}` |", rule.name())));
        let row = row.unwrap_or_else(|| panic!("{} is not in docs/lag.md", rule.name()));
        assert!(row.ends_with(&format!("| {after} | {over} s |")), "{row}");
    }
}

/// The words of expressions that look like a metric of ours.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = ["projection_", "outbox_", "query_", "command_"];
    words.filter(|word| ours.iter().any(|prefix| word.starts_with(prefix)) && !word.ends_with('_')).collect()
}

fn unknown(text: &str) -> Vec<&str> {
    let commands = commands();
    let is_known = |name: &str| {
        Metric::of(name).is_some() || commands.iter().any(|(known, _)| known == name || known == bare(name))
    };
    named(text).into_iter().filter(|name| !is_known(name)).collect()
}

/// The expressions of the rules, and of the dashboard.
fn expressions() -> Vec<(&'static str, String)> {
    let rules = read("compose/prometheus/alerts.yaml");
    let mut all: Vec<_> = Vec::new();
    let mut expression: Option<String> = None;
    for line in rules.lines() {
        let text = line.trim_start();
        if let Some(begun) = text.strip_prefix("expr: ") {
            expression = Some(begun.to_owned());
        } else if ["for:", "labels:"].iter().any(|next| text.starts_with(next)) {
            all.extend(expression.take().map(|e| ("compose/prometheus/alerts.yaml", e)));
        } else if let Some(expression) = &mut expression {
            expression.push(' ');
            expression.push_str(text);
        }
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read("compose/grafana/dashboard.json")).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|p| p["targets"].as_array().unwrap());
    all.extend(targets.map(|t| ("compose/grafana/dashboard.json", t["expr"].as_str().unwrap().to_owned())));
    all
}

#[test]
fn rules_and_dashboard_name_metrics_that_there_are() {
    let all = expressions();
    assert!(all.len() > 40, "{} expressions were found", all.len());
    for (file, expression) in &all {
        assert!(unknown(expression).is_empty(), "{file}: {:?} in `{expression}`", unknown(expression));
        assert!(!named(expression).is_empty(), "{file}: `{expression}` names none of our metrics");
    }
}

#[test]
fn a_wrong_name_is_found() {
    assert_eq!(unknown("rate(projection_lag_second[1m]) > 1"), ["projection_lag_second"]);
    assert_eq!(unknown("projection_lag_seconds_bucket"), ["projection_lag_seconds_bucket"], "a gauge has no buckets");
    assert!(unknown("rate(projection_batch_events_bucket{read_model=\"a\"}[1m])").is_empty());
}

/// `{label="…"}` behind a metric, and what it is summed by.
#[test]
fn rules_and_dashboard_select_by_labels_that_there_are() {
    let commands = commands();
    assert!(commands.len() >= 3, "{commands:?}");
    let labels = |name: &str| -> Vec<&str> {
        let of_ours = Metric::of(name).map(|metric| metric.definition().labels.to_vec());
        let of_commands = || commands.iter().find(|(known, _)| known == bare(name));
        of_ours
            .or_else(|| of_commands().map(|(_, labels)| labels.iter().map(String::as_str).collect()))
            .unwrap_or_default()
    };
    for (file, expression) in expressions() {
        let known: BTreeSet<_> = named(&expression).into_iter().flat_map(labels).chain(["le", "on"]).collect();
        let selected = expression.split('{').skip(1).map(|rest| rest.split('}').next().unwrap());
        let keys = selected.flat_map(|list| list.split(',')).map(|pair| pair.split(['=', '!']).next().unwrap().trim());
        let grouped = expression.split("by (").skip(1).map(|rest| rest.split(')').next().unwrap());
        let grouped = grouped.flat_map(|list| list.split(',')).map(str::trim);
        for label in keys.chain(grouped).filter(|label| !label.is_empty()) {
            assert!(known.contains(label), "{file}: no label `{label}` in `{expression}`");
        }
    }
}
