//! `projector dlq`: dead letters looked at, retried, skipped. The owner does it; this asks, and waits for the answer.

mod show;

use super::{ControlAnywhereArg, Output};
use crate::control::{Control, DeadLetterLine, DeadLetterState, Selection};
use crate::expr::json::time_text;
use crate::verbs::letters::{self, ANSWER_WITHIN, line_json};
use serde_json::json;
use std::process::ExitCode;
use tokio::time::Instant;
use uuid::Uuid;

/// Arguments of `dlq`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DlqArgs {
    #[command(subcommand)]
    verb: DlqVerb,
    #[command(flatten)]
    pub(super) control: ControlAnywhereArg,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "text", global = true)]
    output: Output,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum DlqVerb {
    /// List the dead letters that block an aggregate, the oldest first
    List {
        /// Of this read model only
        read_model: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Show one: its cause, what it has done already, what waits behind it, and its message
    Show(show::ShowArgs),
    /// Try them again, as after a fix of what made them fail
    Retry {
        /// Their ids, the first of their aggregates
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<Uuid>,
        /// Their read model; needed where several have parked the same event
        #[arg(long)]
        read_model: Option<String>,
        /// All of the read model
        #[arg(long, requires = "read_model")]
        all: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Pass over one for good: the read model goes on as if the event had not been. Kept in the log, with the reason
    Skip {
        /// Its id, the first of its aggregate
        id: Uuid,
        /// Its read model; needed where several have parked the same event
        #[arg(long)]
        read_model: Option<String>,
        /// Why it may be missing, for those who ask later
        #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        reason: String,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct Asking {
    /// Who asks, for the log
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
    /// Don't wait for the owner's answer
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn run(args: &DlqArgs) -> anyhow::Result<ExitCode> {
    let control = args.control.connect().await?;
    match &args.verb {
        DlqVerb::List { read_model, limit } => {
            list(&control.dead_letters(read_model.as_deref(), i64::from(*limit)).await?, args.output)
        }
        DlqVerb::Show(what) => show::run(&control, what, args.output).await,
        DlqVerb::Retry { ids, read_model, asking, .. } => {
            // `--all` needs a read model and excludes ids; so without ids the read model is there.
            let selection = match read_model.as_deref() {
                Some(read_model) if ids.is_empty() => Selection::All(read_model),
                read_model => Selection::Letters(ids, read_model),
            };
            let asked = control.ask(DeadLetterState::Retry, selection, &asking.by, None).await?;
            answer(&control, &asked, "retried", asking, args.output).await
        }
        DlqVerb::Skip { id, read_model, reason, asking } => {
            let ids = [*id];
            let selection = Selection::Letters(&ids, read_model.as_deref());
            let asked = control.ask(DeadLetterState::Skip, selection, &asking.by, Some(reason)).await?;
            answer(&control, &asked, "skipped", asking, args.output).await
        }
    }
}

fn list(lines: &[DeadLetterLine], output: Output) -> anyhow::Result<ExitCode> {
    if output == Output::Json {
        let lines: Vec<_> = lines.iter().map(line_json).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "dead_letters": lines }))?);
    } else if lines.is_empty() {
        println!("no dead letters");
    } else {
        println!(
            "{:<36} {:<26} {:<36} {:<22} {:>5} {:>7} {:<6} parked at",
            "dead letter", "read model", "aggregate", "event", "tries", "waiting", "state"
        );
    }
    for line in lines.iter().filter(|_| output == Output::Text) {
        println!(
            "{:<36} {:<26} {:<36} {:<22} {:>5} {:>7} {:<6} {}",
            line.dead_letter_id,
            format!("{} g{}", line.read_model, line.generation),
            line.aggregate_id,
            line.event_type.as_deref().unwrap_or("?"),
            line.tries,
            line.waiting,
            line.state.name(),
            time_text(&line.parked_at)
        );
        println!("  {}", line.reason.as_deref().unwrap_or("has not failed; about to be tried"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for the owners' answers and prints each; fails unless all letters were applied or passed over.
async fn answer(
    control: &Control,
    asked: &[DeadLetterLine],
    what: &str,
    asking: &Asking,
    output: Output,
) -> anyhow::Result<ExitCode> {
    if asked.is_empty() && output == Output::Text {
        println!("no dead letters to be {what}");
    }
    if output == Output::Text && !asked.is_empty() {
        let letters = if asked.len() == 1 { "1 letter".to_owned() } else { format!("{} letters", asked.len()) };
        println!("asked for {letters} to be {what}; the owner takes it up within a second, then what waits behind");
    }
    let deadline = (!asking.no_wait).then(|| Instant::now() + ANSWER_WITHIN);
    let mut answers = Vec::new();
    for line in asked {
        let answer = letters::answer(control, line, deadline).await?;
        if output == Output::Text {
            let still = if answer.state == "parked" { "still " } else { "" };
            let reason = answer.reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default();
            println!("{}: {still}{}{reason}", answer.dead_letter_id, answer.state);
        }
        answers.push(answer);
    }
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&json!({ "dead_letters": answers }))?);
    }
    Ok(if answers.iter().all(|answer| answer.fine) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
