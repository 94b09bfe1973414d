//! `projector dlq show`: one letter, whole.

use super::line_json;
use crate::cli::{Output, SchemasArg};
use crate::control::{Control, DeadLetter, DeadLetterLine};
use crate::event::{Catalog, Decoder, Envelope};
use crate::expr::json::{time_text, to_json};
use anyhow::Context;
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;
use uuid::Uuid;

/// Bytes of a payload that are printed for people.
const PAYLOAD_SHOWN: usize = 512;
/// Letters behind one that are listed.
const BEHIND_SHOWN: i64 = 20;

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
    let lines = control.dead_letter_lines(&[args.id], args.read_model.as_deref()).await?;
    anyhow::ensure!(!lines.is_empty(), "there is no dead letter {}; see `projector dlq list`", args.id);
    let mut all = Vec::new();
    for line in &lines {
        let letter = control.letter(line.generation_id, line.dead_letter_id).await?;
        let Some(letter) = letter else { continue };
        let data = decode(args, &letter).await.map_err(|error| format!("{error:#}"));
        let behind = behind(control, &letter).await?;
        match output {
            Output::Json => all.push(whole_json(line, &letter, &behind, &data)),
            Output::Text => print(line, &letter, &behind, &data),
        }
    }
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&json!({ "dead_letters": all }))?);
    }
    Ok(ExitCode::SUCCESS)
}

/// The payload in the newest version of its type, as the projection's program would see it.
async fn decode(args: &ShowArgs, letter: &DeadLetter) -> anyhow::Result<serde_json::Value> {
    let header = |name: &str| letter.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice());
    let envelope = Envelope::read(letter.key.as_deref(), header)?;
    let catalog = Arc::new(Catalog::load(&args.schemas.schemas).context("see --schemas")?);
    let decoder = Decoder::new(catalog, &args.schema_registry_url)?;
    Ok(to_json(&decoder.decode(&envelope, letter.payload.as_deref().unwrap_or_default()).await?))
}

/// The next letters of its aggregate.
async fn behind(control: &Control, letter: &DeadLetter) -> anyhow::Result<Vec<DeadLetter>> {
    let aggregate =
        control.letters(letter.generation_id, &letter.partition, &letter.aggregate_id, BEHIND_SHOWN + 1).await?;
    let me = (letter.offset, letter.dead_letter_id);
    Ok(aggregate.into_iter().filter(|other| (other.offset, other.dead_letter_id) > me).collect())
}

fn whole_json(
    line: &DeadLetterLine,
    letter: &DeadLetter,
    behind: &[DeadLetter],
    data: &Result<serde_json::Value, String>,
) -> serde_json::Value {
    let headers: Vec<_> =
        letter.headers.iter().map(|(name, value)| json!([name, String::from_utf8_lossy(value)])).collect();
    let mut whole = line_json(line);
    whole["done"] = json!(letter.done);
    whole["headers"] = json!(headers);
    whole["key_hex"] = json!(letter.key.as_deref().map(hex));
    whole["payload_hex"] = json!(letter.payload.as_deref().map(hex));
    whole["payload_bytes"] = json!(letter.payload.as_ref().map(Vec::len));
    whole["data"] = json!(data.as_ref().ok());
    whole["data_error"] = json!(data.as_ref().err());
    whole["behind"] = behind.iter().map(|l| json!({ "dead_letter_id": l.dead_letter_id, "offset": l.offset, "sequence": l.sequence, "event_type": l.event_type })).collect();
    whole
}

fn print(line: &DeadLetterLine, letter: &DeadLetter, behind: &[DeadLetter], data: &Result<serde_json::Value, String>) {
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
