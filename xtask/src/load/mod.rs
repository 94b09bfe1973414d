//! Sends real work through the HTTP commands: TPC-H customers, parts and orders (crate `tpchgen`), then what happens
//! to orders afterwards: payments, shipments, deliveries, cancellations, refunds.
//!
//! Two phases. The set-up (customers and products) is a closed loop with a few requests at a time: nobody measures
//! it, and every order needs its answers. The orders are an **open loop**: a plan, made beforehand from the seed
//! alone, gives every command a slot `i / rate` seconds after the start, and commands leave on that schedule whether
//! or not earlier ones were answered. Latency counts from the slot, not from the moment of sending, so that a stall
//! of the service shows in every command that it delayed (no coordinated omission). The one thing that may hold a
//! command back is its own order: a payment needs the order's id, hence waits for that answer, and the wait counts.

mod client;
mod command;
mod drive;
mod plan;
mod progress;
mod report;
mod rng;
mod setup;
mod tpch;

pub(crate) use report::{Figures, Report, Sample};

use anyhow::{Context, Result, ensure};
use clap::Args;

use client::CommandApi;
use progress::Progress;

/// What `load` (and `demo`) may be asked for.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// Orders to place; customers and products are scaled with them as in TPC-H (1/10 and 2/15 of the orders)
    #[arg(long, env = "LOAD_ORDERS", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_500_000))]
    pub(crate) orders: u32,
    /// Commands a second, sent on schedule whether or not earlier ones were answered
    #[arg(long, env = "LOAD_RATE", default_value_t = 100.0)]
    pub(crate) rate: f64,
    /// The same seed sends the same commands in the same order
    #[arg(long, env = "LOAD_SEED", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Sends the load to the command-api at `url`.
///
/// # Errors
/// When the service isn't there, or refuses a customer or a product. Refused or failed commands on orders don't end
/// the run: they are counted in the report.
pub(crate) async fn run(url: &str, args: &LoadArgs) -> Result<Report> {
    ensure!(args.rate.is_finite() && args.rate > 0.0, "--rate must be above 0, not {}", args.rate);
    let api = CommandApi::new(url)?;
    api.wait_until_ready()
        .await
        .with_context(|| format!("the command-api at {url} is not ready: `./dev status` shows what runs"))?;
    let input = tpch::generate(args.orders, args.seed);
    let steps = plan::plan(&input, args.seed);

    let progress = Progress::start("customers, products, accounts", 2 * input.customers.len() + input.products.len());
    let catalogue = setup::create(&api, &input, &progress).await?;
    setup::accounts(&api, &catalogue, &progress).await?;
    progress.finish();

    let progress = Progress::start("commands", steps.len());
    let report = drive::open_loop(&api, &input, &catalogue, &steps, args.rate, &progress).await;
    progress.finish();
    Ok(report)
}
