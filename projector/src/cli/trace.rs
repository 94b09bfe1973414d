//! `projector trace`: one document's history, event by event: why is it as it is?

use super::{ControlArg, HistoryArgs, Output, SchemasArg};
use crate::control::Control;
use crate::event::Catalog;
use crate::sink::StoreUrls;
use crate::verbs::trace::{Sources, Step, trace};
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

pub(super) async fn run(args: &TraceArgs) -> anyhow::Result<ExitCode> {
    let catalog = Arc::new(Catalog::load(&args.schemas.schemas)?);
    let sources = Sources {
        control: &Control::connect(&args.control.control_database_url).await?,
        catalog: &catalog,
        stores: &args.stores,
        decoder: &args.history.decoder(&catalog)?,
        event_store: &args.history.write_database_url,
    };
    let found = trace(&sources, &args.name, &args.key).await?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&found)?),
        Output::Text => {
            found.steps.iter().for_each(print);
            let verdict = if found.same { "the same is stored" } else { "what is stored differs" };
            println!("{verdict}: {}", found.stored);
        }
    }
    Ok(if found.same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
