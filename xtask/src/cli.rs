//! The commands of `./dev`.

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::audit::AuditArgs;
use crate::demo::DemoArgs;
use crate::load::LoadArgs;
use crate::settings::{Instance, Settings};
use crate::{audit, bench, containers, demo, load, services, stack, status, test};

/// Starts the real components on this machine, and everything that needs them.
///
/// Versions, ports and topic settings come from compose/.env; an environment variable of the same name wins.
#[derive(Parser)]
#[command(name = "dev", bin_name = "./dev", max_term_width = 110)]
struct Cli {
    /// Which instance: its state is in `run/NAME`. `test` uses other ports, so that both can run.
    #[arg(long, global = true, env = "DEV_INSTANCE", default_value = "dev", value_name = "NAME")]
    instance: String,
    /// Our services as for production (`cargo build --release`: many minutes the first time), with `services up` and `demo`
    #[arg(long, global = true)]
    release: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check what this machine needs and install Debian packages; every command that starts something does so first
    Prerequisites,
    /// Start Postgres, Kafka, Connect with Debezium, the registry, Redis, the search engine and ClickHouse
    Up {
        /// Use docker compose (compose/compose.yaml) instead of native processes
        #[arg(long)]
        containers: bool,
    },
    /// Stop our services, then the components, in order; their data stays
    Down {
        /// Stop the containers instead of native processes
        #[arg(long)]
        containers: bool,
    },
    /// Show what runs: state, port, pid, memory, log file
    Status {
        /// How to print it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Stop everything and delete the instance's data, logs included; downloads stay
    Reset,
    /// Show the last lines of a log, or of all of them
    Logs {
        /// A component or service, as `status` names it; all of them if absent
        name: Option<String>,
        /// Lines to show of each
        #[arg(short = 'n', long, default_value_t = 40)]
        lines: usize,
        /// Keep printing what is added
        #[arg(short, long)]
        follow: bool,
    },
    /// Print the environment of the services, for `eval "$(./dev env)"`
    Env,
    /// Migrate, register the schemas, apply the connector; start command-api, projector run and projector serve
    Services {
        #[command(subcommand)]
        action: ServicesAction,
    },
    /// Start everything, send TPC-H orders through the HTTP commands and look at them meanwhile, audit the read models; all keeps running
    Demo(DemoArgs),
    /// Send commands and queries to the running services on a schedule: TPC-H orders, and all that is read of them
    Load {
        #[command(flatten)]
        arguments: LoadArgs,
        /// How to print the report
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Measure the projector beside the limits of the same run, on a fresh instance `test` that is stopped afterwards, and
    /// write docs/benchmarks.md; `./dev bench -- --help` lists what else there is; `event` times the steps of one event, without servers
    Bench {
        /// For `bench/`: `--orders 200000` for a million events
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Recompute every read model from the write database and compare; exit code 1 if any document differs
    Audit {
        #[command(flatten)]
        arguments: AuditArgs,
        /// How to print the verdict
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Run every test of the project against a fresh instance `test`, which is stopped afterwards
    Test {
        /// Keep the components running afterwards, to look at them
        #[arg(long)]
        keep: bool,
        /// `faults`: the long fault suite alone, with a table of its steps, and 100,000 reads of own writes; `rebuild`: rebuilds under load alone; all else is passed on to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Subcommand)]
enum ServicesAction {
    /// Prepare the stores and start our three services; the components must be up
    Up,
    /// Stop our three services, the components stay
    Down,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Parses the arguments, runs the command and prints its error, if any. Exit code 1: failed, 2: wrong usage.
pub async fn main() -> ExitCode {
    // Both providers end up in the tree; an error only says that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let settings = Settings::load()?;
    let mut instance = Instance::new(settings, &cli.instance)?;
    if cli.release {
        instance = instance.released();
    }
    match cli.command {
        // ./dev does it before it starts this program.
        Command::Prerequisites => {}
        Command::Up { containers: true } => return containers::up(&instance),
        Command::Up { containers: false } => stack::up(&instance).await?,
        Command::Down { containers: true } => return containers::down(&instance),
        Command::Down { containers: false } => stack::down(&instance).await?,
        Command::Status { output } => status::print(&instance, matches!(output, Output::Json))?,
        Command::Reset => stack::reset(&instance).await?,
        Command::Logs { name, lines, follow } => status::logs(&instance, name.as_deref(), lines, follow)?,
        Command::Env => instance.env().iter().for_each(|(key, value)| println!("export {key}='{value}'")),
        Command::Services { action: ServicesAction::Up } => services::up(&instance).await?,
        Command::Services { action: ServicesAction::Down } => services::down(&instance).await?,
        Command::Demo(arguments) => return demo::run(&instance, &arguments).await,
        Command::Load { arguments, output } => {
            let report = load::run(&instance, &arguments).await?;
            match output {
                Output::Table => println!("{report}"),
                Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
            }
        }
        Command::Audit { arguments, output } => {
            let report = audit::run(&instance.env(), &arguments).await?;
            match output {
                Output::Table => println!("{report}"),
                Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
            }
            if !report.agrees {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Bench { arguments } => return bench::run(&instance, &arguments).await,
        Command::Test { keep, arguments } => return test::run(&instance, keep, &arguments).await,
    }
    Ok(ExitCode::SUCCESS)
}
