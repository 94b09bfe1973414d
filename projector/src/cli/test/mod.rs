//! `projector test`: the tests in the projections' files, in memory, each several ways.

pub(super) mod compare;
mod junit;
mod outcome;
mod update;

use super::{Output, SchemasArg, check};
use crate::event::{Catalog, UpcasterTest};
use crate::projection::{Compiled, Finding, Source, TestCase};
use crate::verbs::given;
use anyhow::Context;
use compare::Difference;
use outcome::{Outcome, Way};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Arguments of `test`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TestArgs {
    /// Files or folders of projections
    #[arg(env = "PROJECTIONS_DIR", default_value = "projections")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    schemas: SchemasArg,
    /// Only tests whose name has this in it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Write what was found into the files of tests that fail, as what they expect; look at the difference before you commit it
    #[arg(long)]
    update: bool,
    /// Also write the results to this file, in the form that CI servers read
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

/// What a test came to.
#[derive(Clone, Debug)]
enum Verdict {
    Passed,
    /// Its given events are wrong.
    Wrong(Vec<Finding>),
    /// What is found isn't what is expected.
    Differs(Vec<Difference>, Outcome),
    /// What is found depends on how the events are delivered.
    Depends(Way, Vec<Difference>),
    /// The read model would stand still.
    Halted(Way, String),
    /// An upcaster's test can't be run.
    Broken(String),
}

/// A test and what it came to.
struct Tested<'a> {
    file: &'a str,
    line: u64,
    /// The read model, or the event whose upcaster it is.
    subject: &'a str,
    name: String,
    /// None for an upcaster's, whose file has nothing to be updated.
    case: Option<&'a TestCase>,
    verdict: Verdict,
    elapsed: Duration,
}

pub(super) fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let catalog = Catalog::load(&args.schemas.schemas)?;
    let Some(all) = check::load(&args.paths, &catalog)? else { return Ok(ExitCode::FAILURE) };
    let all: Vec<_> = all.into_iter().map(|(compiled, source)| (Arc::new(compiled), source)).collect();
    let wanted = |case: &&TestCase| args.name.as_ref().is_none_or(|part| case.name.value.contains(part.as_str()));
    let cases: Vec<_> = all
        .iter()
        .flat_map(|(compiled, source)| {
            compiled.projection.tests.iter().filter(wanted).map(move |c| (compiled, source, c))
        })
        .collect();
    let mut tested = in_parallel(&cases, |(compiled, source, case)| one(compiled, source, case, &catalog));
    let paths: Vec<_> = catalog.upcaster_tests().iter().map(|test| test.path.display().to_string()).collect();
    let upcasters = catalog.upcaster_tests().iter().zip(&paths).map(|(test, path)| upcaster(test, path, &catalog));
    tested.extend(upcasters.filter(|t| args.name.as_ref().is_none_or(|part| t.name.contains(part.as_str()))));
    if args.update {
        return update_all(&tested);
    }
    let untested: BTreeMap<&str, Vec<&str>> =
        all.iter().map(|(compiled, source)| (&*source.name, untested(compiled))).collect();
    match args.output {
        Output::Text => print_text(&tested, &untested, started.elapsed()),
        Output::Json => print_json(&tested, &untested)?,
    }
    if let Some(path) = &args.junit {
        std::fs::write(path, junit::report(&tested)).with_context(|| format!("can't write {}", path.display()))?;
    }
    let failed = tested.iter().any(|t| !matches!(t.verdict, Verdict::Passed));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Does the work for each of `items` on all cores; the results in their order.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            while let Some((n, item)) =
                Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, items.get(n)?)))
            {
                done.push((n, work(item)));
            }
            done
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    results.sort_by_key(|(n, _)| *n);
    results.into_iter().map(|(_, result)| result).collect()
}

fn one<'a>(compiled: &'a Arc<Compiled>, source: &'a Source, case: &'a TestCase, catalog: &Catalog) -> Tested<'a> {
    let started = Instant::now();
    let verdict = verdict(compiled, source, case, catalog);
    Tested {
        file: &source.name,
        line: case.name.defined.line(),
        subject: &compiled.projection.name.value,
        name: case.name.value.clone(),
        case: Some(case),
        verdict,
        elapsed: started.elapsed(),
    }
}

/// An upcaster's test.
fn upcaster<'a>(test: &'a UpcasterTest, file: &'a str, catalog: &Catalog) -> Tested<'a> {
    let started = Instant::now();
    let verdict = match test.run(catalog).map(|found| compare::compare_data(&test.expect, &found)) {
        Ok(differences) if differences.is_empty() => Verdict::Passed,
        Ok(differences) => Verdict::Differs(differences, Outcome::default()),
        Err(reason) => Verdict::Broken(reason),
    };
    let line = test.given.defined.line();
    let name = format!("version {} of line {line}", test.from);
    Tested { file, line, subject: &test.event, name, case: None, verdict, elapsed: started.elapsed() }
}

fn verdict(compiled: &Arc<Compiled>, source: &Source, case: &TestCase, catalog: &Catalog) -> Verdict {
    let events = match given::read(source, compiled, catalog, case) {
        Ok(events) => events,
        Err(findings) => return Verdict::Wrong(findings),
    };
    let run = |way| futures::executor::block_on(outcome::run(compiled, &events, way));
    let plain = match run(Way::OneByOne) {
        Ok(outcome) => outcome,
        Err(halt) => return Verdict::Halted(Way::OneByOne, halt.to_string()),
    };
    let differences = compare::compare(&case.expect, &plain);
    if !differences.is_empty() {
        return Verdict::Differs(differences, plain);
    }
    for way in Way::OTHERS {
        match run(way).map(|other| compare::compare_outcomes(&plain, &other)) {
            Ok(differences) if differences.is_empty() => {}
            Ok(differences) => return Verdict::Depends(way, differences),
            Err(halt) => return Verdict::Halted(way, halt.to_string()),
        }
    }
    Verdict::Passed
}

/// The events of a projection that no test of it gives.
fn untested(compiled: &Compiled) -> Vec<&str> {
    let given = |name: &str| {
        let gives = |case: &TestCase| case.given.iter().any(|given| given.value.to_json().get(name).is_some());
        compiled.projection.tests.iter().any(gives)
    };
    compiled.projection.on.keys().map(String::as_str).filter(|name| !given(name)).collect()
}

fn update_all(tested: &[Tested<'_>]) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    let mut by_file: BTreeMap<&str, Vec<(&TestCase, &Outcome)>> = BTreeMap::new();
    for t in tested {
        match &t.verdict {
            Verdict::Passed => {}
            Verdict::Differs(_, found) if t.case.is_some() => {
                by_file.entry(t.file).or_default().extend(t.case.map(|case| (case, found)));
            }
            _ => {
                failed = true;
                print!("{}", describe(t));
            }
        }
    }
    for (file, cases) in by_file {
        let text = std::fs::read_to_string(file).with_context(|| format!("can't read {file}"))?;
        std::fs::write(file, update::update(&text, &cases)?).with_context(|| format!("can't write {file}"))?;
        for (case, _) in cases {
            println!("{file}: updated `{}`", case.name.value);
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_text(tested: &[Tested<'_>], untested: &BTreeMap<&str, Vec<&str>>, elapsed: Duration) {
    let mut files: Vec<&str> = untested.keys().copied().collect();
    files.extend(tested.iter().filter(|t| t.case.is_none()).map(|t| t.file));
    files.dedup();
    for file in files {
        println!("{file}");
        for t in tested.iter().filter(|t| t.file == file) {
            print!("{}", describe(t));
        }
        if let Some(untested) = untested.get(file).filter(|untested| !untested.is_empty()) {
            println!("  - no test gives {}", untested.join(", "));
        }
    }
    let failed = tested.iter().filter(|t| !matches!(t.verdict, Verdict::Passed)).count();
    let tests = if tested.len() == 1 { "test" } else { "tests" };
    println!("{} {tests}, {failed} failed, in {} ms", tested.len(), elapsed.as_millis());
}

/// A test's lines.
fn describe(tested: &Tested<'_>) -> String {
    let Tested { name, file, line, .. } = tested;
    if matches!(tested.verdict, Verdict::Passed) {
        return format!("  ✓ {name}\n");
    }
    let mut text = format!("  ✗ {name} ({file}:{line})\n");
    for line in explain(&tested.verdict).lines() {
        text.push_str(&format!("      {line}\n"));
    }
    text
}

/// Why a test failed.
fn explain(verdict: &Verdict) -> String {
    let lines = |differences: &[Difference]| {
        let one = |d: &Difference| {
            let nothing = || "nothing".to_owned();
            let (expected, found) =
                (d.expected.clone().unwrap_or_else(nothing), d.found.clone().unwrap_or_else(nothing));
            format!("{}\n  expected {expected}\n  found    {found}\n", d.place)
        };
        differences.iter().map(one).collect::<String>()
    };
    match verdict {
        Verdict::Passed => String::new(),
        Verdict::Wrong(findings) => findings.iter().map(Finding::with_help).collect(),
        Verdict::Differs(differences, _) => lines(differences),
        Verdict::Depends(way, differences) => {
            format!(
                "{}, the events come to something else than one by one (which is taken as expected here):\n{}",
                way.describe(),
                lines(differences)
            )
        }
        Verdict::Halted(way, reason) => format!("{}, {reason}\n", way.describe()),
        Verdict::Broken(reason) => format!("{reason}\n"),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    tests: Vec<Entry<'a>>,
    failed: usize,
    /// By file, the events that no test gives.
    untested: &'a BTreeMap<&'a str, Vec<&'a str>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    file: &'a str,
    line: u64,
    subject: &'a str,
    name: &'a str,
    passed: bool,
    ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    differences: &'a [Difference],
}

fn print_json(tested: &[Tested<'_>], untested: &BTreeMap<&str, Vec<&str>>) -> anyhow::Result<()> {
    let entry = |t: &'_ Tested<'_>| matches!(t.verdict, Verdict::Passed);
    let failed = tested.iter().filter(|t| !entry(t)).count();
    let tests = tested.iter().map(|t| Entry {
        file: t.file,
        line: t.line,
        subject: t.subject,
        name: &t.name,
        passed: entry(t),
        ms: t.elapsed.as_secs_f64() * 1000.0,
        reason: (!entry(t)).then(|| explain(&t.verdict)),
        differences: match &t.verdict {
            Verdict::Differs(differences, _) | Verdict::Depends(_, differences) => differences,
            _ => &[],
        },
    });
    println!("{}", serde_json::to_string_pretty(&Report { tests: tests.collect(), failed, untested })?);
    Ok(())
}
