//! `projector status`: each read model on a line.

use super::{ControlArg, Output, SchemasArg};
use crate::control::{Control, Generation, HostStatus, Position};
use crate::event::Catalog;
use crate::host;
use crate::ops::lag::Placed;
use crate::sink::StoreUrls;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::Serialize;
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

#[derive(Serialize)]
struct Status {
    read_models: Vec<ReadModel>,
}

#[derive(Serialize)]
struct ReadModel {
    name: String,
    store: &'static str,
    kind: &'static str,
    generation: i32,
    state: String,
    /// None when the store can't be asked.
    documents: Option<u64>,
    events_applied: i64,
    duplicates: i64,
    errors: i64,
    /// Messages not handled yet.
    behind: i64,
    lag_ms: Lag,
    /// Of all hosts that ever ran: `hdrhistogram` V2 with deflate, µs, base64.
    lag_histogram: String,
    last_error: Option<String>,
    updated_at: Option<String>,
    /// How far each partition is, and which host has it.
    partitions: Vec<Placed>,
}

#[derive(Serialize)]
struct Lag {
    p50: f64,
    p99: f64,
    max: f64,
    count: u64,
}

pub(super) async fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::load(&args.schemas.schemas)?;
    let control = Control::connect(&args.control.control_database_url).await?;
    let reports = control.host_status().await?;
    let mut read_models = Vec::new();
    for generation in control.live().await? {
        let (compiled, sink) = host::open(&generation, &catalog, &args.stores)?;
        let documents = sink
            .count()
            .await
            .inspect_err(|error| tracing::warn!(%error, generation = generation.id(), "can't count"))
            .ok();
        let mine: Vec<_> = reports.iter().filter(|r| r.generation_id == generation.generation_id).collect();
        read_models.push(read_model(
            &generation,
            &mine,
            compiled.projection.store.name(),
            compiled.kind.name(),
            documents,
        )?);
    }
    let status = Status { read_models };
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Output::Text => print(&status, args.partitions),
    }
    Ok(ExitCode::SUCCESS)
}

fn read_model(
    generation: &Generation,
    reports: &[&HostStatus],
    store: &'static str,
    kind: &'static str,
    documents: Option<u64>,
) -> anyhow::Result<ReadModel> {
    let mut lag = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 2)?;
    for report in reports.iter().filter(|r| !r.lag_histogram.is_empty()) {
        let one: Histogram<u64> = Deserializer::new().deserialize(&mut report.lag_histogram.as_slice())?;
        lag.add(one)?;
    }
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(&lag, &mut bytes)?;
    #[allow(clippy::cast_precision_loss, reason = "milliseconds for people")]
    let ms = |us: u64| us as f64 / 1_000.0;
    // A host that has stopped no longer knows how far behind it is.
    let fresh = chrono::Utc::now() - chrono::TimeDelta::seconds(5);
    let partitions = placed(reports.iter().filter(|r| r.updated_at > fresh));
    let latest = reports.last();
    Ok(ReadModel {
        name: generation.read_model.clone(),
        store,
        kind,
        generation: generation.generation,
        state: generation.state.clone(),
        documents,
        events_applied: reports.iter().map(|r| r.events_applied).sum(),
        duplicates: reports.iter().map(|r| r.duplicates).sum(),
        errors: reports.iter().map(|r| r.errors).sum(),
        behind: reports.iter().filter(|r| r.updated_at > fresh).map(|r| r.behind).sum(),
        lag_ms: Lag {
            p50: ms(lag.value_at_quantile(0.5)),
            p99: ms(lag.value_at_quantile(0.99)),
            max: ms(lag.max()),
            count: lag.len(),
        },
        lag_histogram: STANDARD.encode(bytes),
        last_error: latest.and_then(|r| r.last_error.clone()),
        updated_at: latest.map(|r| crate::expr::json::time_text(&r.updated_at)),
        partitions,
    })
}

/// The partitions that hosts reported lately, in order; of two that say they have one, which happens while it changes hands, both.
fn placed<'a>(reports: impl Iterator<Item = &'a &'a HostStatus>) -> Vec<Placed> {
    let of = |report: &&'a HostStatus| {
        let host = report.host;
        report.present.positions.iter().map(move |position| Placed { host, position: position.clone() })
    };
    let mut all: Vec<_> = reports.flat_map(of).collect();
    all.sort_by(|a, b| (&a.position.topic, a.position.partition).cmp(&(&b.position.topic, b.position.partition)));
    all
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
