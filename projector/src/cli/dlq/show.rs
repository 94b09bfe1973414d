//! `projector dlq show`: one letter, whole.

use crate::cli::{Output, SchemasArg};
use crate::control::Control;
use crate::event::{Catalog, Decoder};
use crate::expr::json::time_text;
use crate::verbs::letters::{self, Whole, hex};
use anyhow::Context;
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;
use uuid::Uuid;

/// Bytes of a payload that are printed for people.
const PAYLOAD_SHOWN: usize = 512;

/// Arguments of `dlq show`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// The dead letter's id
    id: Uuid,
    /// Its read model, where several have parked the same event; all of them otherwise
    #[arg(long)]
    read_model: Option<String>,
    #[command(flatten)]
    schemas: SchemasArg,
    /// The schema registry, Confluent's API; where it doesn't answer, the payload is shown in hex only
    #[arg(long, env = "SCHEMA_REGISTRY_URL", default_value = "http://127.0.0.1:8081/apis/ccompat/v7")]
    schema_registry_url: String,
}

pub(super) async fn run(control: &Control, args: &ShowArgs, output: Output) -> anyhow::Result<ExitCode> {
    let decoder = decoder(args).map_err(|error| format!("{error:#}"));
    let decoder = decoder.as_ref().map_err(Clone::clone);
    let all = letters::show(control, args.id, args.read_model.as_deref(), decoder).await?;
    match output {
        Output::Json => {
            let all: Vec<_> = all.iter().map(Whole::json).collect();
            println!("{}", serde_json::to_string_pretty(&json!({ "dead_letters": all }))?);
        }
        Output::Text => all.iter().for_each(print),
    }
    Ok(ExitCode::SUCCESS)
}

fn decoder(args: &ShowArgs) -> anyhow::Result<Decoder> {
    let catalog = Arc::new(Catalog::load(&args.schemas.schemas).context("see --schemas")?);
    Ok(Decoder::new(catalog, &args.schema_registry_url)?)
}

fn print(Whole { line, letter, behind, data }: &Whole) {
    let row = |name: &str, value: &str| println!("{name:<12} {value}");
    row("dead letter", &line.dead_letter_id.to_string());
    row("read model", &format!("{}, generation {}", line.read_model, line.generation));
    row("message", &format!("{}/{} at {}", line.partition.topic, line.partition.number, line.offset));
    let sequence = line.sequence.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let event = line.event_type.as_deref().unwrap_or("an unreadable event");
    row("event", &format!("{event}, {sequence} of aggregate {}", line.aggregate_id));
    row("parked", &time_text(&line.parked_at));
    row("cause", line.reason.as_deref().unwrap_or("none: it waits behind another"));
    row("tries", &format!("{}, the last answer at {}", line.tries, time_text(&line.updated_at)));
    row("state", line.state.name());
    if let (Some(by), Some(at)) = (&line.asked_by, &line.asked_at) {
        let why = line.asked_why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        row("asked", &format!("by {by} at {}{why}", time_text(at)));
    }
    if line.first != line.dead_letter_id {
        row("waits for", &line.first.to_string());
    }
    row(
        "documents",
        &if letter.done.is_empty() {
            "none has it".into()
        } else {
            format!("{} have it already", letter.done.join(", "))
        },
    );
    for (name, value) in &letter.headers {
        row("header", &format!("{name} = {}", String::from_utf8_lossy(value)));
    }
    row("behind it", &line.waiting.to_string());
    for other in behind {
        let sequence = other.sequence.map_or_else(|| "?".to_owned(), |n| n.to_string());
        row("", &format!("{} {} {sequence}", other.dead_letter_id, other.event_type.as_deref().unwrap_or("?")));
    }
    match data {
        Ok(data) => row("data", &data.to_string()),
        Err(error) => row("data", &format!("can't be decoded: {error}")),
    }
    let payload = letter.payload.as_deref().unwrap_or_default();
    row("payload", &format!("{} bytes", payload.len()));
    for bytes in payload[..payload.len().min(PAYLOAD_SHOWN)].chunks(32) {
        row("", &hex(bytes));
    }
    if payload.len() > PAYLOAD_SHOWN {
        row("", "… all of it by --output json");
    }
}
