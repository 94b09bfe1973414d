//! `./dev bench`: what limits the projector, and how near it comes. So far: the consumer that it is compared with.

mod peer;
mod usage;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// As in `projector`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures the projector beside the limits of the same run.
#[derive(Parser)]
#[command(name = "bench", bin_name = "./dev bench", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The straightforward consumer, in a process of its own
    #[command(hide = true)]
    Peer(peer::PeerArgs),
}

fn main() -> ExitCode {
    let outcome =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Into::into).and_then(|runtime| {
            runtime.block_on(async {
                match Cli::parse().command {
                    Command::Peer(args) => peer::run(&args).await,
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
