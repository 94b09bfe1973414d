//! Files that are wrong, one at least for each thing that `check` finds, each with what a user reads.

use super::support::{kept, library, projector};
use projector::projection::Diagnosis;
use std::collections::BTreeSet;

/// What stands in the folder: files, and folders of files that are wrong together.
fn bad() -> Vec<String> {
    let entries = std::fs::read_dir(library("bad")).unwrap().map(|e| e.unwrap().path());
    let wanted = entries.filter(|path| path.is_dir() || path.extension().is_some_and(|e| e == "yaml"));
    let mut names: Vec<_> = wanted.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn each_bad_file_is_refused_with_the_message_beside_it() {
    for name in bad() {
        let ran = projector(&["check", &library(&format!("bad/{name}"))]);
        assert_eq!(ran.code, 1, "{name}: {}{}", ran.out, ran.err);
        kept(&format!("bad/{}.txt", name.trim_end_matches(".yaml")), &ran.err);
    }
}

#[test]
fn every_diagnosis_has_a_bad_file_and_every_finding_a_diagnosis_and_advice() {
    let mut found = BTreeSet::new();
    for name in bad() {
        let ran = projector(&["check", "--output", "json", &library(&format!("bad/{name}"))]);
        let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        for finding in report["findings"].as_array().unwrap() {
            found.insert(
                finding["rule"].as_str().unwrap_or_else(|| panic!("{finding}: without a diagnosis")).to_owned(),
            );
            assert!(finding["help"].as_str().is_some_and(|help| help.len() > 10), "{finding}: what to do?");
            assert!(finding["line"].as_u64().is_some_and(|line| line > 0), "{finding}");
        }
    }
    let all: BTreeSet<String> = Diagnosis::ALL.iter().map(|d| d.name().to_owned()).collect();
    assert_eq!(all.difference(&found).collect::<Vec<_>>(), Vec::<&String>::new(), "no bad file shows these");
}

#[test]
fn what_is_right_is_right() {
    for folder in ["projections", "failing/loans.yaml"] {
        let ran = projector(&["check", &library(folder)]);
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    let ran = projector(&["check", &library("projections"), "--show", "types"]);
    kept("projections.types.txt", &ran.out);
}
