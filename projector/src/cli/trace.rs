//! `projector trace`: one document's history, event by event: why is it as it is?

use super::history::{HistoryArgs, Reader, fold};
use super::memory::{Answers, Memory};
use super::{ControlArg, Output, SchemasArg};
use crate::control::Control;
use crate::event::Catalog;
use crate::expr::{Value, json};
use crate::host::{self, Lookups};
use crate::projection::ReadModelKind;
use crate::sink::{StoreUrls, Stored};
use anyhow::{Context, ensure};
use serde_json::{Value as Json, json};
use std::process::ExitCode;
use std::sync::Arc;

/// Arguments of `trace`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TraceArgs {
    /// The read model, as it is live
    name: String,
    /// The document's key
    key: String,
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    schemas: SchemasArg,
    #[command(flatten)]
    control: ControlArg,
    #[command(flatten)]
    stores: StoreUrls,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

/// An event that changed the document.
struct Step {
    event: String,
    aggregate: String,
    at: String,
    before: Json,
    after: Json,
}

pub(super) async fn run(args: &TraceArgs) -> anyhow::Result<ExitCode> {
    let catalog = Arc::new(Catalog::load(&args.schemas.schemas)?);
    let control = Control::connect(&args.control.control_database_url).await?;
    let live = control.live().await?;
    let generation = live.iter().find(|g| g.read_model == args.name);
    let generation = generation.with_context(|| format!("no read model `{}` is live", args.name))?;
    let (compiled, sink) = host::open(generation, &catalog, &args.stores)?;
    ensure!(compiled.kind != ReadModelKind::Facts, "`{}` keeps rows, which no event changes", args.name);
    let compiled = Arc::new(compiled);
    // Where each document has one aggregate, no other has to be looked at.
    let only = if compiled.kind == ReadModelKind::Entity { vec![args.key.clone()] } else { Vec::new() };
    let mut reader = Reader::new(&args.history, Arc::clone(&compiled), &catalog, only)?;
    let lookups = Lookups::new(Arc::clone(&compiled), control.clone(), Arc::clone(&catalog), args.stores.clone());
    let mut memory = Memory::new(Arc::clone(&compiled), Answers::Stores(Box::new(lookups))).await?;
    let mut steps: Vec<Step> = Vec::new();
    let mut before = Json::Null;
    while let Some((partition, event)) = reader.next().await? {
        let envelope = event.envelope.clone();
        fold(&mut memory, vec![(partition, event)]).await?;
        let after = shown(memory.document(&args.key).await?);
        if after != before {
            steps.push(Step {
                event: envelope.event_type.to_string(),
                aggregate: format!(
                    "{} {} of {}",
                    envelope.aggregate_type, envelope.reference.sequence, envelope.reference.aggregate_id
                ),
                at: json::time_text(&envelope.occurred_at),
                before: std::mem::replace(&mut before, after.clone()),
                after,
            });
        }
    }
    let stored = shown(sink.load(std::slice::from_ref(&args.key)).await?.into_iter().next().flatten());
    let same = without_nulls(&stored) == without_nulls(&before);
    match args.output {
        Output::Json => {
            let steps = steps.iter().map(|s| json!({"event": s.event, "aggregate": s.aggregate, "at": s.at, "before": s.before, "after": s.after}));
            let report = json!({"steps": steps.collect::<Vec<_>>(), "stored": stored, "same": same});
            println!("{}", serde_json::to_string_pretty(&report)?);
        }
        Output::Text => {
            steps.iter().for_each(print);
            let verdict = if same { "the same is stored" } else { "what is stored differs" };
            println!("{verdict}: {stored}");
        }
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shown(stored: Option<Stored>) -> Json {
    let fields = stored.and_then(|stored| stored.fields);
    fields.map_or(Json::Null, |fields| json::to_json(&Value::Object(fields)))
}

/// Stores have no field where it is null.
fn without_nulls(document: &Json) -> Json {
    match document {
        Json::Object(map) => map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect(),
        other => other.clone(),
    }
}

fn print(step: &Step) {
    println!("{}  {}, {}", step.at, step.event, step.aggregate);
    let nothing = serde_json::Map::new();
    let (before, after) = (step.before.as_object().unwrap_or(&nothing), step.after.as_object().unwrap_or(&nothing));
    if step.after.is_null() {
        println!("    the document is deleted");
    }
    for (name, value) in after {
        match before.get(name) {
            Some(old) if old == value => {}
            Some(old) => println!("    {name}: {old} → {value}"),
            None => println!("    {name}: {value}"),
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name) && !step.after.is_null()) {
        println!("    {name} is gone");
    }
}
