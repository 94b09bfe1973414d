//! `command-api replay`: a stream step by step.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use command_api::audit::{self, Replay, Step, Stop};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::Database;

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    database: Database,
    /// Such as order-0198… or account-acc-998811
    stream: String,
    /// The first position to show
    #[arg(long, default_value_t = 1)]
    from: i64,
    /// The last one
    #[arg(long)]
    to: Option<i64>,
    /// Stop where this VRL program first gives true; it sees `.before`, `.after` and `.event`, as in
    /// `.after.balance_cents < 1000`
    #[arg(long, value_name = "VRL")]
    until: Option<String>,
    /// Text with what changed, or one JSON object a line with the whole states
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(crate) async fn run(arguments: ReplayArgs) -> anyhow::Result<ExitCode> {
    let ReplayArgs { database, stream, from, to, until, output } = arguments;
    let connection = PgConnection::connect(&database.database_url).await;
    let mut connection = connection.context("connecting to the write database")?;
    let show = |step: &Step| match output {
        Output::Text => {
            println!("{}", audit::describe(step));
            for line in audit::difference(&step.before, &step.after) {
                println!("        {line}");
            }
        }
        Output::Json => println!("{}", json!({"event": step.event, "before": step.before, "after": step.after})),
    };
    let options = Replay { from, to, until };
    match audit::replay(&mut connection, &stream, &options, show).await? {
        Stop::Condition(position) => eprintln!("stopped: the condition holds after position {position}"),
        Stop::End if options.until.is_some() => {
            eprintln!("the condition never held");
            return Ok(ExitCode::FAILURE);
        }
        Stop::End => {}
    }
    Ok(ExitCode::SUCCESS)
}
