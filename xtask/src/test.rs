//! `./dev test`: everything built first, a fresh instance `test`, all tests, and the instance stopped whatever happens.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::process;
use crate::settings::{Instance, TEST};
use crate::stack;

/// Every test but those of the documentation, for which `--include-ignored` means something else: they run apart.
const ALL: [&str; 4] = ["--workspace", "--lib", "--bins", "--tests"];

/// Tests of one binary at a time: enough to be quick, few enough to leave the shared stores' latencies alone.
const THREADS: &str = "--test-threads=4";

/// Errors say by themselves where they came about: fifty frames of a runtime below each only hide it. Panics keep theirs.
const BACKTRACES: &str = "RUST_LIB_BACKTRACE";

/// The long forms of the fault suite and of read-your-writes: too long for every run, so they are left out unless they are asked for.
const LONG_FORM: &str = "long_form";

/// The tests of rebuilds under load. They replay whole topics, and what other tests leave there on purpose (events that can't be
/// read) would stop them: so they have an instance of their own, after the others.
const REBUILD: [&str; 9] = [
    "a_new_read_model_is_taken_up_and_given_up_without_a_restart",
    "a_naive_swap_is_noticed",
    "a_rebuild_goes_on_after_its_job_and_its_host_were_killed",
    "a_rebuild_is_held_back_paused_and_aborted",
    "one_document_and_a_whole_read_model_are_made_anew",
    "readers_notice_nothing_of_rebuilds_way_back_and_forward",
    "what_does_badly_goes_back_by_itself_and_says_why",
    "what_kafka_no_longer_has_comes_from_the_event_store",
    "what_the_plan_did_not_announce_stops_the_swap",
];

/// Runs the tests with the environment of instance `test`; cargo's exit code is ours.
///
/// `arguments` replace the selection of all tests, as in `./dev test -p tests --test pipeline -- name_of_a_test`; `faults`
/// stands for the long forms of the fault suite and of read-your-writes, which print what they do, `rebuild` for the tests of rebuilds under load.
pub(crate) async fn run(chosen: &Instance, keep: bool, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let instance = Instance::new(chosen.settings().clone(), TEST)?;
    let _session = process::lock(&instance, "tests")?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let passes = passes(&words);
    // Built before the servers start, so that compilers and servers do not compete for memory; plain binaries too,
    // since the acceptance tests start them.
    let build = ["build", "--workspace"];
    let build_tests = passes.iter().map(|pass| [&["test", "--no-run"], &pass.selection[..]].concat());
    for step in std::iter::once(build.to_vec()).chain(build_tests) {
        if !cargo(&instance, &step).status().await.context("running cargo")?.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        outcome = all(&instance, &passes) => outcome,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    if keep {
        eprintln!("instance `test` keeps running; stop it with ./dev --instance test down");
    } else {
        stack::down(&instance).await?;
    }
    outcome
}

/// Tests that share an instance: cargo's words for their binaries, and the test harness' for which of theirs.
#[derive(Debug, PartialEq, Eq)]
struct Pass<'a> {
    selection: Vec<&'a str>,
    filter: Vec<&'a str>,
}

/// What is run for these words, one pass after the other, each on a fresh instance.
fn passes<'a>(words: &[&'a str]) -> Vec<Pass<'a>> {
    let of =
        |test, filter: &[&'a str]| Pass { selection: vec!["--workspace", "--test", test], filter: filter.to_vec() };
    match words {
        ["faults"] => ["faults", "read_your_writes"].map(|test| of(test, &[LONG_FORM, "--nocapture"])).into(),
        ["rebuild"] => vec![of("rebuild", &["--nocapture", "--skip", LONG_FORM])],
        _ => {
            let split = words.iter().position(|word| *word == "--").unwrap_or(words.len());
            let selection = if split == 0 { ALL.to_vec() } else { words[..split].to_vec() };
            let mut filter: Vec<&str> = words[split..].iter().skip(1).copied().collect();
            // Who names a test doesn't ask for others.
            let all = selection == ALL && filter.is_empty();
            if !filter.iter().any(|word| word.contains(LONG_FORM)) {
                filter.extend(["--skip", LONG_FORM]);
            }
            if selection == ALL {
                filter.extend(REBUILD.iter().flat_map(|name| ["--skip", *name]));
            }
            let rebuild = all.then(|| of("rebuild", &["--skip", LONG_FORM]));
            std::iter::once(Pass { selection, filter }).chain(rebuild).collect()
        }
    }
}

/// Until one fails.
async fn all(instance: &Instance, passes: &[Pass<'_>]) -> anyhow::Result<ExitCode> {
    for pass in passes {
        let code = fresh_then_test(instance, &pass.selection, &pass.filter).await?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn fresh_then_test(instance: &Instance, selection: &[&str], filter: &[&str]) -> anyhow::Result<ExitCode> {
    stack::reset(instance).await?;
    stack::up(instance).await?;
    let started = Instant::now();
    let arguments: Vec<&str> = ["test", "--no-fail-fast"]
        .iter()
        .chain(selection)
        .chain(&["--", "--include-ignored", THREADS])
        .chain(filter)
        .copied()
        .collect();
    let mut status = cargo(instance, &arguments).status().await.context("running cargo test")?;
    if status.success() && selection == ALL {
        status =
            cargo(instance, &["test", "--workspace", "--doc"]).status().await.context("running cargo test --doc")?;
    }
    let verdict = if status.success() { "passed" } else { "FAILED; logs of the servers: ./dev --instance test logs" };
    eprintln!("tests took {} s and {verdict}", started.elapsed().as_secs());
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

fn cargo(instance: &Instance, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).envs(instance.env()).current_dir(instance.root()).kill_on_drop(true);
    if std::env::var_os(BACKTRACES).is_none() {
        command.env(BACKTRACES, "0");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_forms_and_rebuilds_run_on_instances_of_their_own() {
        let binaries = |words: &[&'static str]| -> Vec<String> {
            passes(words).iter().map(|pass| pass.selection.join(" ")).collect()
        };
        assert_eq!(binaries(&[]), ["--workspace --lib --bins --tests", "--workspace --test rebuild"]);
        assert_eq!(binaries(&["faults"]), ["--workspace --test faults", "--workspace --test read_your_writes"]);
        assert_eq!(
            binaries(&["--", "a_naive_swap"]),
            ["--workspace --lib --bins --tests"],
            "who names one wants no others"
        );
        assert_eq!(binaries(&["--workspace", "--lib"]), ["--workspace --lib"]);
        let skips_long =
            |words: &[&'static str]| passes(words).iter().all(|p| p.filter.ends_with(&["--skip", LONG_FORM]));
        assert!(skips_long(&["rebuild"]) && skips_long(&["--workspace", "--lib", "--", "x"]));
        assert!(!skips_long(&["faults"]) && !skips_long(&["--workspace", "--test", "rebuild", "--", LONG_FORM]));
    }
}
