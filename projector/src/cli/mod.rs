//! The `projector` command: one verb a file.

mod apply;
mod attempt;
mod check;
mod dlq;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod documented;
mod epoch;
mod explain;
mod init;
mod lag;
mod plan;
mod rebuild;
mod republish;
mod run;
mod schema;
mod serve;
mod site;
mod status;
mod test;
mod trace;

use crate::control::Control;
use crate::event::{Catalog, Decoder};
use anyhow::Context;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Keeps read models in Redis, Elasticsearch, ClickHouse and Postgres in step with the events that Debezium streams into Kafka.
///
/// The usual way: write a projection in YAML, `projector check` it, see the `projector plan`, `projector apply` it, and let `projector run` feed it and
/// `projector serve` answer its queries. All options can be given by environment variables.
#[derive(Parser)]
#[command(name = "projector", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    logs: telemetry::logs::LogArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Check projections against the schemas; shows every error with its place. Exit code 1 if there is any
    Check(check::CheckArgs),
    /// Run the tests that stand in projections, in memory; shows what differs. Exit code 1 if anything does
    ///
    /// Each test gives events, typed against their schemas, and names the documents, rows and dead letters that they come to.
    /// The events go through the same code as in `projector run`, one by one, all at once, twice, and in another order.
    /// `--update` takes what was found for what is expected.
    Test(test::TestArgs),
    /// Explain a read model: what feeds it, what each event does, which fields flow into which, where its data is
    Explain(explain::ExplainArgs),
    /// Write a first projection from an event's schema
    Init(init::InitArgs),
    /// Print the JSON Schema of projections' files, for editors
    Schema,
    /// Show how one document came to be what it is: each event that changed it, before and after, from the event store
    ///
    /// Exit code 0 when the same is stored, 1 when something else is.
    Trace(trace::TraceArgs),
    /// Fold real history by a changed file, in memory, and show how its documents would differ from the live ones
    ///
    /// Nothing is written. Exit code 0 when none differs and no event fails, 1 otherwise.
    Try(attempt::TryArgs),
    /// Show what `apply` would do: create, rebuild (and why), change in place, retire. Exit code 2 if there is anything
    Plan(plan::PlanArgs),
    /// Make what the files say live: create read models, change their queries, rebuild those whose documents change
    Apply(apply::ApplyArgs),
    /// Build another generation of a read model while everything runs, make it live, go back
    ///
    /// `start` builds it beside the live one and, unless told otherwise, makes it live once both have the same events and were
    /// compared. Readers see no error, no gap and no older state. `rollback` goes back as long as the former one is fed.
    /// Exit code 0 when it is done or waits for `promote`, 1 when it stopped or was aborted.
    #[command(verbatim_doc_comment)]
    Rebuild(rebuild::RebuildArgs),
    /// Feed all live read models from Kafka, until stopped
    Run(run::RunArgs),
    /// Answer the declared queries over HTTP, until stopped
    Serve(serve::ServeArgs),
    /// Show each read model: its store, generation, documents, events, lag, and how far each partition is
    Status(status::StatusArgs),
    /// Show what is late, why and since when: each read model, and the way from the commit to Kafka
    ///
    /// States: ok · late, critical: readers see events later than the projection's thresholds · waiting: something that it needs is
    /// down · stopped: a partition stands still before an event · no host · paused · parked: some aggregates wait behind dead letters,
    /// the others go on · unknown: nothing comes, and no heartbeat of the outbox tells whether that is because nothing happens.
    /// Exit code 0 when nothing is late, 1 when it couldn't be asked, 2 when a live read model is late, critical, waiting, stopped,
    /// paused or without a host, or events don't reach Kafka. With `--watch` it is 0 when stopped.
    Lag(lag::LagArgs),
    /// List, inspect, retry and skip dead letters: events that a read model couldn't apply
    ///
    /// An event that fails again and again is parked, and every later event of its aggregate waits behind it; others go on.
    /// Look at `dlq list` and `dlq show ID`, mend what made it fail, then `dlq retry ID`. Where it can't be mended,
    /// `dlq skip ID --reason TEXT` passes over it for good. What waited follows by itself, in order.
    /// Exit code 0 when done, 1 when it failed, is still parked, or had no answer.
    #[command(verbatim_doc_comment)]
    Dlq(dlq::DlqArgs),
    /// List the epochs of the sources, accept a new one after a fail-over or a restore
    Epoch(epoch::EpochArgs),
    /// Refill a lost topic, deleted and created again, from the event store, in an order that readers can rely on
    Republish(republish::RepublishArgs),
}

/// Where the projections' events are described.
#[derive(Clone, Debug, clap::Args)]
struct SchemasArg {
    /// The folder of Avro schemas, one file an event and version
    #[arg(long, env = "SCHEMAS_DIR", default_value = "schemas")]
    schemas: PathBuf,
}

/// The control store.
#[derive(Clone, Debug, clap::Args)]
struct ControlArg {
    /// The control store: a Postgres database of its own
    #[arg(long, env = "CONTROL_DATABASE_URL", hide_env_values = true)]
    control_database_url: String,
}

/// The control store, for verbs that have verbs of their own: said before or behind those.
#[derive(Clone, Debug, clap::Args)]
struct ControlAnywhereArg {
    /// The control store: a Postgres database of its own; required
    #[arg(long, env = "CONTROL_DATABASE_URL", hide_env_values = true, global = true)]
    control_database_url: Option<String>,
}

impl ControlAnywhereArg {
    async fn connect(&self) -> anyhow::Result<Control> {
        let url = self.control_database_url.as_deref();
        let url = url.context("which control store? Give --control-database-url, or set CONTROL_DATABASE_URL")?;
        Ok(Control::connect(url).await?)
    }
}

/// Where history is read.
#[derive(Clone, Debug, clap::Args)]
struct HistoryArgs {
    /// The database with the event store
    #[arg(long, env = "WRITE_DATABASE_URL", hide_env_values = true)]
    write_database_url: String,
    /// The schema registry, Confluent's API
    #[arg(long, env = "SCHEMA_REGISTRY_URL", default_value = "http://127.0.0.1:8081/apis/ccompat/v7")]
    schema_registry_url: String,
}

impl HistoryArgs {
    fn decoder(&self, catalog: &Arc<Catalog>) -> anyhow::Result<Arc<Decoder>> {
        Ok(Arc::new(Decoder::new(Arc::clone(catalog), &self.schema_registry_url)?))
    }
}

/// How a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    #[value(alias = "table")]
    Text,
    /// For scripts.
    Json,
}

/// Runs the command line; the exit code is 0 for done, 1 for failed, 2 for a wrong call.
#[must_use]
pub fn main() -> ExitCode {
    // Two TLS providers end up in the tree; the process must choose before the first connection.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("projector: a TLS provider was installed before");
    }
    let cli = Cli::parse();
    cli.logs.init();
    match execute(cli.verb) {
        Ok(code) => code,
        Err(error) if cli.logs.is_json() => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("projector: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How long what runs on threads of its own may take at the end.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

fn execute(verb: Verb) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can't start the async runtime")?;
    let outcome = runtime.block_on(async {
        match verb {
            Verb::Check(args) => check::run(&args).await,
            Verb::Test(args) => test::run(&args),
            Verb::Explain(args) => explain::run(&args),
            Verb::Init(args) => init::run(&args).await,
            Verb::Schema => schema::run(),
            Verb::Trace(args) => trace::run(&args).await,
            Verb::Try(args) => attempt::run(&args).await,
            Verb::Plan(args) => plan::run(&args).await,
            Verb::Apply(args) => Box::pin(apply::run(&args)).await,
            Verb::Rebuild(args) => Box::pin(rebuild::run(&args)).await,
            Verb::Run(args) => run::run(args).await,
            Verb::Serve(args) => serve::run(args).await.map(|()| ExitCode::SUCCESS),
            Verb::Status(args) => status::run(&args).await,
            Verb::Lag(args) => lag::run(&args).await,
            Verb::Dlq(args) => dlq::run(&args).await,
            Verb::Epoch(args) => epoch::run(&args).await,
            Verb::Republish(args) => republish::run(&args).await,
        }
    });
    // A client library that still waits for a server on a thread of its own doesn't keep the process.
    runtime.shutdown_timeout(ENDS_WITHIN);
    outcome
}

/// Resolves when the process is asked to stop (SIGTERM, Ctrl-C).
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_control_store_is_named_before_or_behind_a_verb_of_a_verb() {
        let url = "postgres://control.example/control";
        for words in [
            ["projector", "dlq", "--control-database-url", url, "list"],
            ["projector", "dlq", "list", "--control-database-url", url],
            ["projector", "epoch", "list", "--control-database-url", url],
        ] {
            let given = match Cli::try_parse_from(words).map_err(|e| e.to_string()).unwrap().verb {
                Verb::Dlq(args) => args.control,
                Verb::Epoch(args) => args.control,
                _ => panic!("{words:?}"),
            };
            assert_eq!(given.control_database_url.as_deref(), Some(url), "{words:?}");
        }
    }

    #[test]
    fn every_verb_can_be_called() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn help_shows_no_address_of_the_environment() {
        use clap::CommandFactory as _;
        let run = Cli::command().find_subcommand("run").unwrap().clone();
        let telling: Vec<_> = run
            .get_arguments()
            .filter(|argument| {
                let name = argument.get_id().as_str();
                name.ends_with("_url") && !["schema_registry_url", "connect_url"].contains(&name)
            })
            .filter(|argument| !argument.is_hide_env_values_set())
            .collect();
        assert!(telling.is_empty(), "an address may hold a password: {telling:?}");
    }
}
