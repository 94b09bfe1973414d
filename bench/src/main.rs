//! `./dev bench`: what limits the projector, and how near it comes. What it found is in docs/benchmarks.md.
//!
//! - [`data`], [`topic`]: orders and their events, as Debezium sends them; limit (a), reading them.
//! - [`stores`]: limit (b), each store fed by its best bulk client; and what is found there in the end.
//! - [`peer`]: (c), the consumer that a competent team writes without a platform.
//! - [`ours`]: hosts and rebuilds of the projector, in processes of their own ([`process`], [`usage`]), and where their time goes ([`flames`]).
//! - [`oracle`]: what must be found.
//! - [`throughput`]: events a second; [`scale`]: what more of something costs; [`latency`]; [`soak`]: memory over ten minutes; [`growth`]: what an event costs while more is stored. [`report`]: docs/benchmarks.md and .json, made of all parts.

#![allow(clippy::cast_precision_loss, reason = "rates and ratios of counts far below 2^52")]

mod data;
mod flames;
mod growth;
mod latency;
mod machine;
mod oracle;
mod ours;
mod peer;
mod process;
mod report;
mod scale;
mod soak;
mod stores;
mod throughput;
mod topic;
mod usage;

use clap::{Parser, Subcommand};
use std::path::Path;
use std::process::ExitCode;

/// As in `projector`, which this program is too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures the projector beside the limits of the same run, and writes docs/benchmarks.md and .json.
///
/// Without a command: events a second into each store. Exit code 1 if a document of ours isn't as it must be.
#[derive(Parser)]
#[command(
    name = "bench",
    bin_name = "./dev bench",
    max_term_width = 110,
    args_conflicts_with_subcommands = true,
    override_usage = "./dev bench [OPTIONS]\n       ./dev bench scale|growth|latency|soak [OPTIONS]"
)]
struct Cli {
    #[command(flatten)]
    throughput: throughput::ThroughputArgs,
    #[command(flatten)]
    at: throughput::Where,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Partitions, hosts, read models on a host, lines in a document, events on one key
    Scale(scale::ScaleArgs),
    /// What an event costs while the store grows to ten million documents
    Growth(growth::GrowthArgs),
    /// From a command to the read models, at 50, 200 and 500 commands a second
    Latency(latency::LatencyArgs),
    /// What our services hold in memory over ten minutes of commands and queries
    Soak(latency::LatencyArgs),
    /// Write docs/benchmarks.md anew from docs/benchmarks.json
    Report,
    /// The straightforward consumer, in a process of its own
    #[command(hide = true)]
    Peer(peer::PeerArgs),
}

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == process::PROJECTOR) {
        return projector::cli::main();
    }
    // Two TLS providers end up in the tree; an error only says that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    let outcome =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Into::into).and_then(|runtime| {
            runtime.block_on(async {
                match cli.command {
                    None => Box::pin(throughput::run(&cli.at, &cli.throughput)).await,
                    Some(Command::Scale(args)) => Box::pin(scale::run(&cli.at, &args)).await,
                    Some(Command::Growth(args)) => Box::pin(growth::run(&cli.at, &args)).await,
                    Some(Command::Latency(args)) => latency::run(&args),
                    Some(Command::Soak(args)) => soak::run(&args),
                    Some(Command::Report) => report::Report::write_anew(),
                    Some(Command::Peer(args)) => peer::run(&args).await,
                }
            })
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
