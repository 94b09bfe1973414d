//! `projector status`: each read model on a line.

use super::{ControlArg, Output, SchemasArg};
use crate::control::{Control, Position};
use crate::event::Catalog;
use crate::ops::lag::Placed;
use crate::ops::status::{Status, status};
use crate::sink::StoreUrls;
use std::process::ExitCode;

/// Arguments of `status`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    schemas: SchemasArg,
    #[command(flatten)]
    control: ControlArg,
    #[command(flatten)]
    stores: StoreUrls,
    /// Show each partition, too: how far it is, and which host has it (as JSON always)
    #[arg(long)]
    partitions: bool,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

pub(super) async fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::load(&args.schemas.schemas)?;
    let control = Control::connect(&args.control.control_database_url).await?;
    let status = status(&control, &catalog, &args.stores).await?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Output::Text => print(&status, args.partitions),
    }
    Ok(ExitCode::SUCCESS)
}

fn print(status: &Status, partitions: bool) {
    println!(
        "{:<26} {:<14} {:<7} {:>3} {:>10} {:>10} {:>10} {:>6} {:>7} {:>9} {:>9}",
        "read model",
        "store",
        "kind",
        "gen",
        "documents",
        "events",
        "duplicates",
        "errors",
        "behind",
        "p50 ms",
        "p99 ms"
    );
    for m in &status.read_models {
        let documents = m.documents.map_or_else(|| "?".to_owned(), |n| n.to_string());
        println!(
            "{:<26} {:<14} {:<7} {:>3} {:>10} {:>10} {:>10} {:>6} {:>7} {:>9.1} {:>9.1}",
            m.name,
            m.store,
            m.kind,
            m.generation,
            documents,
            m.events_applied,
            m.duplicates,
            m.errors,
            m.behind,
            m.lag_ms.p50,
            m.lag_ms.p99
        );
        if let Some(error) = &m.last_error {
            println!("  {error}");
        }
        for Placed { host, position } in m.partitions.iter().filter(|_| partitions) {
            let Position { topic, partition, next_offset, behind } = position;
            println!("  {topic:<26} {partition:>4}  next offset {next_offset:>10}  behind {behind:>7}  host {host}");
        }
    }
}
