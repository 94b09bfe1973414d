//! Sends real work over HTTP, commands and queries: TPC-H customers, parts and orders (crate `tpchgen`), what happens to orders
//! afterwards (item changes, payments, shipments, deliveries, cancellations, refunds), customers that are renamed, products that
//! change, money that moves between accounts; and readers who look at all that through every declared query.
//!
//! Two phases. The set-up (customers, products, accounts) is a closed loop with a few requests at a time: nobody measures
//! it, and every order needs its answers. What follows is an **open loop**: a plan, made beforehand from the seed
//! alone, gives every request a slot `i / rate` seconds after the start, and requests leave on that schedule whether
//! or not earlier ones were answered. Latency counts from the slot, not from the moment of sending, so that a stall
//! of a service shows in every request that it delayed (no coordinated omission). A service that doesn't answer at all
//! changes nothing of the schedule either: what would be more than a bounded number under way is an error, not a wait. The one thing
//! that may hold a command back is its own order: a payment needs the order's id, hence waits for that answer, and the wait counts.
//!
//! Readers compare: no document's version may ever go back, and who passes the token of an order must be shown that order. What
//! breaks this is an error like any other ([`seen`]).

mod client;
mod command;
mod drive;
mod figures;
mod plan;
mod progress;
mod read;
mod report;
mod rng;
mod seen;
mod setup;
mod tally;
mod tpch;

pub(crate) use figures::{Figures, Latencies};
pub(crate) use report::{Report, Sample};

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{
    lag,
    settings::{Instance, Port},
};
use client::Service;
use drive::Schedule;
use plan::Step;
use progress::Progress;
use read::Readers;
use setup::Catalogue;
use tpch::Input;

/// Queries for each command unless it is said otherwise: SPEC's sizes.
const READS_PER_WRITE: u32 = 100;
/// The projector reports its figures every second.
const REPORTED_WITHIN: Duration = Duration::from_millis(1_500);

/// What `load` may be asked for.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// Requests a second, commands and queries together, sent on schedule whether or not earlier ones were answered
    #[arg(long, env = "LOAD_RATE", default_value_t = 200.0)]
    pub(crate) rate: f64,
    /// For how long, such as 30s or 5m
    #[arg(long = "for", value_name = "T", default_value = "60s", value_parser = duration)]
    pub(crate) time: Duration,
    /// Until so many orders were placed, and all that happens to them, instead of a time
    #[arg(long, env = "LOAD_ORDERS", conflicts_with = "time", value_parser = clap::value_parser!(u32).range(1..=1_500_000))]
    pub(crate) orders: Option<u32>,
    /// Queries for each command; 0 sends commands alone, as --orders does by default
    #[arg(long, env = "LOAD_READS_PER_WRITE", value_name = "N")]
    pub(crate) reads_per_write: Option<u32>,
    /// The same seed sends the same commands in the same order
    #[arg(long, env = "LOAD_SEED", default_value_t = 1)]
    pub(crate) seed: u64,
}

impl LoadArgs {
    fn ratio(&self) -> u32 {
        self.reads_per_write.unwrap_or(if self.orders.is_some() { 0 } else { READS_PER_WRITE })
    }
}

/// `30s`, `5m`, `1h`; a number alone is seconds.
fn duration(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let unit = match unit {
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => bail!("`{text}` is no time: say 30s, 5m or 1h"),
    };
    let seconds = number.parse::<f64>().ok().filter(|n| *n > 0.0).map(|n| n * unit).filter(|s| *s <= 7.0 * 86_400.0);
    Ok(Duration::from_secs_f64(seconds.with_context(|| format!("`{text}` is no time above 0 and up to a week"))?))
}

/// Customers, products and accounts are there; nothing was measured yet.
pub(crate) struct Ready {
    commands: Service,
    input: Input,
    catalogue: Catalogue,
    steps: Vec<Step>,
    readers: Option<Readers>,
    schedule: Schedule,
}

/// Makes what the load needs, through the instance's command-api.
///
/// # Errors
/// When a service isn't there, or refuses a customer, a product or an account.
pub(crate) async fn prepare(instance: &Instance, args: &LoadArgs) -> Result<Ready> {
    ensure!(args.rate.is_finite() && args.rate > 0.0, "--rate must be above 0, not {}", args.rate);
    let ratio = args.ratio();
    let commands = Service::new(&instance.http(Port::CommandApi))?;
    commands.wait_until_ready().await.context("command-api isn't ready: `./dev status` shows what runs")?;
    let (input, steps) = work(args, ratio);

    let progress = Progress::start("customers, products, accounts", 2 * input.customers.len() + input.products.len());
    let catalogue = setup::create(&commands, &input, &progress).await?;
    setup::accounts(&commands, &catalogue, &progress).await?;
    progress.finish();

    let readers = match ratio {
        0 => None,
        _ => {
            let queries = Service::new(&instance.http(Port::Query))?;
            queries
                .wait_until_ready()
                .await
                .context("the query service isn't ready: `./dev status` shows what runs")?;
            setup::visible(&queries, &catalogue).await?;
            Some(Readers::new(queries, &input, &catalogue, args.seed).await?)
        }
    };
    let schedule = Schedule { rate: args.rate, reads_per_write: ratio };
    Ok(Ready { commands, input, catalogue, steps, readers, schedule })
}

/// The input and the commands: for `--orders` all of them, else as many as the time has slots for.
fn work(args: &LoadArgs, ratio: u32) -> (Input, Vec<Step>) {
    if let Some(orders) = args.orders {
        let input = tpch::generate(orders, args.seed);
        let steps = plan::plan(&input, args.seed);
        return (input, steps);
    }
    let slots = (args.rate * args.time.as_secs_f64() / f64::from(ratio + 1)).ceil().max(1.0) as usize;
    // Some three commands come to an order; half the number leaves room for chance.
    let orders = u32::try_from(slots.div_ceil(2)).unwrap_or(u32::MAX).min(1_500_000);
    let input = tpch::generate(orders, args.seed);
    let mut steps = plan::plan(&input, args.seed);
    steps.truncate(slots);
    (input, steps)
}

impl Ready {
    /// Drives the open loop to its end. Refused or failed requests don't end it: they are counted in the report.
    pub(crate) async fn drive(self) -> Report {
        let total = self.schedule.slots(self.steps.len());
        let progress = Progress::start("requests", total);
        let report = drive::open_loop(&self, &progress).await;
        progress.finish();
        report
    }
}

/// As [`prepare`] and [`measure`].
///
/// # Errors
/// As both.
pub(crate) async fn run(instance: &Instance, args: &LoadArgs) -> Result<Report> {
    measure(instance, prepare(instance, args).await?).await
}

/// As [`Ready::drive`], with what the projector made of it, if it runs.
///
/// # Errors
/// When the projector no longer answers.
pub(crate) async fn measure(instance: &Instance, ready: Ready) -> Result<Report> {
    let before = lag::Status::read(instance).await;
    let mut report = ready.drive().await;
    match before {
        Ok(before) => {
            tokio::time::sleep(REPORTED_WITHIN).await;
            let after = lag::Status::read(instance).await?;
            report.lag = after.since(&before)?;
        }
        Err(error) => eprintln!("no lag is known: {error:#}"),
    }
    Ok(report)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, seconds) in [("30s", 30.0), ("1.5m", 90.0), ("1h", 3_600.0), ("7", 7.0)] {
            assert_eq!(duration(text).unwrap().as_secs_f64(), seconds);
        }
        for wrong in ["", "s", "0s", "-1s", "5 days", "1e9h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_is_filled_with_commands_and_a_number_of_orders_is_kept() {
        let args =
            |orders| LoadArgs { rate: 202.0, time: Duration::from_secs(300), orders, reads_per_write: None, seed: 1 };
        let (_, steps) = work(&args(None), 100);
        assert_eq!(steps.len(), 600);
        let (input, steps) = work(&args(Some(300)), 0);
        assert_eq!((input.orders.len(), args(Some(300)).ratio(), args(None).ratio()), (300, 0, 100));
        assert!(steps.len() > 600);
    }
}
