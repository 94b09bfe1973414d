//! `projector try`: a file over real history, in memory. Nothing is written.

use super::test::compare::{Difference, compare_data};
use super::{ControlArg, HistoryArgs, Output, SchemasArg, check};
use crate::control::Control;
use crate::event::Catalog;
use crate::expr::json;
use crate::host::{self, Lookups};
use crate::projection::{Compiled, ReadModelKind};
use crate::sink::{StoreUrls, Stored};
use crate::verbs::history::{Reader, fold};
use crate::verbs::memory::{Answers, Memory};
use anyhow::{bail, ensure};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Events that are folded at once.
const BATCH: usize = 500;
/// Documents that are compared at once.
const KEYS: usize = 1_000;

/// Arguments of `try`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TryArgs {
    /// The read model
    name: String,
    /// A file or folder of projections, with the changed one
    #[arg(long, env = "PROJECTIONS_DIR", default_value = "projections")]
    projections: PathBuf,
    /// Read history from its beginning: the one place to begin from, for now
    #[arg(long, required = true)]
    from_beginning: bool,
    /// Events at most; what they make of a document is compared where live is no further
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    limit: usize,
    /// Documents that differ to be shown at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    show: usize,
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

#[derive(Default)]
struct Compared {
    same: usize,
    /// Live has seen more events of it.
    further: usize,
    /// Live has no such document.
    new: usize,
    differ: BTreeMap<String, Vec<Difference>>,
}

pub(super) async fn run(args: &TryArgs) -> anyhow::Result<ExitCode> {
    let catalog = Arc::new(Catalog::load(&args.schemas.schemas)?);
    let Some(all) = check::load(std::slice::from_ref(&args.projections), &catalog)? else {
        return Ok(ExitCode::FAILURE);
    };
    let Some((compiled, _)) = all.into_iter().find(|(compiled, _)| compiled.projection.name.value == args.name) else {
        bail!("no read model `{}` in {}", args.name, args.projections.display());
    };
    ensure!(compiled.kind != ReadModelKind::Facts, "`{}` keeps rows; there is no document to compare", args.name);
    let compiled = Arc::new(compiled);
    let control = Control::connect(&args.control.control_database_url).await?;
    let lookups = Lookups::new(Arc::clone(&compiled), control, Arc::clone(&catalog), args.stores.clone());
    let mut memory = Memory::new(Arc::clone(&compiled), Answers::Stores(Box::new(lookups))).await?;
    let decoder = args.history.decoder(&catalog)?;
    let mut reader = Reader::new(&args.history.write_database_url, decoder, Arc::clone(&compiled), Vec::new());
    let (mut events, mut whole) = (0, false);
    while events < args.limit && !whole {
        let mut batch = Vec::new();
        while batch.len() < BATCH.min(args.limit - events) {
            match reader.next().await? {
                Some(event) => batch.push(event),
                None => {
                    whole = true;
                    break;
                }
            }
        }
        events += batch.len();
        fold(&mut memory, batch).await?;
    }
    let compared = with_live(args, &catalog, &compiled, &memory, whole).await?;
    print(args, &memory, events, whole, compared.as_ref())?;
    Ok(if compared.is_none_or(|c| c.differ.is_empty()) && memory.parked().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Compares with what is live; none where nothing is.
async fn with_live(
    args: &TryArgs,
    catalog: &Catalog,
    compiled: &Compiled,
    memory: &Memory,
    whole: bool,
) -> anyhow::Result<Option<Compared>> {
    let control = Control::connect(&args.control.control_database_url).await?;
    let live = control.live().await?;
    let Some(generation) = live.iter().find(|g| g.read_model == args.name) else { return Ok(None) };
    let (_, sink) = host::open(generation, catalog, &args.stores)?;
    let mut compared = Compared::default();
    let documents: Vec<(String, Stored)> = memory.documents().into_iter().collect();
    for some in documents.chunks(KEYS) {
        let keys: Vec<String> = some.iter().map(|(key, _)| key.clone()).collect();
        for ((key, ours), theirs) in some.iter().zip(sink.load(&keys).await?) {
            let Some(theirs) = theirs else {
                compared.new += 1;
                continue;
            };
            let comparable =
                if compiled.kind == ReadModelKind::Entity { theirs.version == ours.version } else { whole };
            if !comparable {
                compared.further += 1;
                continue;
            }
            let differences = compare_data(&shown(&theirs), &shown(ours));
            if differences.is_empty() {
                compared.same += 1;
            } else {
                compared.differ.insert(key.clone(), differences);
            }
        }
    }
    Ok(Some(compared))
}

fn shown(stored: &Stored) -> Json {
    stored.fields.as_ref().map_or(Json::Null, |fields| Json::Object(json::object_to_json(fields)))
}

fn print(
    args: &TryArgs,
    memory: &Memory,
    events: usize,
    whole: bool,
    compared: Option<&Compared>,
) -> anyhow::Result<()> {
    let (documents, parked) = (memory.documents().len(), memory.parked());
    let nothing = Compared::default();
    let live = compared.is_some();
    let Compared { same, further, new, differ } = compared.unwrap_or(&nothing);
    if args.output == Output::Json {
        let report = json!({
            "events": events, "whole_history": whole, "documents": documents, "dead_letters": parked.len(), "live": live,
            "same": same, "live_is_further": further, "new": new, "differ": differ,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let rest = if whole { "all there are" } else { "there are more" };
    println!("{events} events ({rest}) make {documents} documents; {} would be dead letters", parked.len());
    for letter in parked.iter().filter_map(|parked| parked.reason.as_ref()).take(args.show) {
        println!("  dead letter: {letter}");
    }
    if !live {
        println!("`{}` isn't live: nothing to compare with", args.name);
        return Ok(());
    }
    println!("{same} are as live, {} differ, {new} are not live, of {further} live has seen more events", differ.len());
    for (key, differences) in differ.iter().take(args.show) {
        println!("  document `{key}`");
        for Difference { place, expected, found } in differences {
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
            println!("    {place}: {} → {}", text(expected), text(found));
        }
    }
    Ok(())
}
