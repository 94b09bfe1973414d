//! Whatever operators are told to type exists: in the docs, in what alerts say, in the rules for Prometheus.

use super::Cli;
use crate::ops::alert::rules::Rule;
use clap::CommandFactory as _;
use clap::error::ErrorKind;
use std::path::Path;

const TOLD: [&str; 10] = [
    "README.md",
    "compose/kubernetes/jobs/rebuild.yaml",
    "compose/prometheus/alerts.yaml",
    "docs/lag.md",
    "docs/limits.md",
    "docs/operations.md",
    "docs/rebuild.md",
    "docs/republish.md",
    "projector/src/ops/alert/rules.rs",
    "projector/src/ops/health.rs",
];

/// The commands that a text tells: between backticks, and as lines of blocks of code.
fn told(text: &str) -> Vec<String> {
    let (mut block, mut all) = (false, Vec::new());
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            block = !block;
        } else if block {
            all.push(line.split('#').next().unwrap_or_default().trim().trim_start_matches("$ ").to_owned());
        } else {
            all.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    // What stands for several, or for anything, is no command.
    all.retain(|command| command.starts_with("projector ") && !command.contains(['|', '[', '…', '─']));
    all
}

/// As a shell would see them; quotes around whole words only.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in command.split('"').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(|word| match word {
                "ID" => "0197a5c0-0000-7000-8000-000000000001".to_owned(),
                word => word.to_owned(),
            }));
        }
    }
    words
}

/// Why it can't be typed so, if it can't.
fn refused(command: &str) -> Option<String> {
    // Help is for those whose words are all known.
    let words = words(command).into_iter().chain(["--help".to_owned()]);
    let error = Cli::command().try_get_matches_from(words).err()?;
    (error.kind() != ErrorKind::DisplayHelp).then(|| format!("`{command}`: {error}"))
}

#[test]
fn what_operators_are_told_to_type_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut wrong, mut count) = (Vec::new(), 0);
    for file in TOLD {
        let commands = told(&std::fs::read_to_string(root.join(file)).unwrap());
        count += commands.len();
        wrong.extend(commands.iter().filter_map(|command| refused(command)).map(|why| format!("{file}: {why}")));
    }
    assert!(count > 50, "only {count} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_does_not_exist_is_found() {
    let text = "see `projector dlq list --read-model x`,\n```\nprojector lagg --watch   # seen\n$ projector epoch accept E --reason \"a b\"\n```";
    let commands = told(text);
    let found: Vec<bool> = commands.iter().map(|command| refused(command).is_some()).collect();
    assert_eq!(found, [true, true, false], "{commands:?}");
}

#[test]
fn each_alert_is_on_the_page_for_whoever_is_on_call() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |file| std::fs::read_to_string(root.join(file)).unwrap();
    let (page, rules) = (read("docs/operations.md"), read("compose/prometheus/alerts.yaml"));
    let rules: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(rules.len() > 10, "{rules:?}");
    let missing =
        Rule::ALL.map(Rule::name).into_iter().chain(rules).filter(|name| !page.contains(&format!("`{name}`")));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&str>::new());
}
