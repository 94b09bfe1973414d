//! The whole way in one command: components, services, load, audit, and one screen at the end.
//!
//! Every step is safe to repeat, so a second demo finds most of them done and only adds orders. What the screen says
//! of events and lag is this run's alone: the projector's counters and histograms are read before and after.

mod screen;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::Args;

use crate::{
    audit::{self, AuditArgs},
    lag::Status,
    load::{self, LoadArgs},
    process, services,
    settings::Instance,
    stack,
};

/// How long the read models may need for what is left when the last command was answered.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(120);
/// The projector reports its counters every second: what the audit has seen is counted by then.
const REPORTED_WITHIN: Duration = Duration::from_millis(1_500);
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Orders sent first to a stack that has just started, while its JVMs compile what they run most. Their lag is shown apart.
const WARM_UP_ORDERS: u32 = 800;

/// What `demo` may be asked for.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// Orders to place; customers and products are scaled with them as in TPC-H (1/10 and 2/15 of the orders)
    #[arg(long, env = "LOAD_ORDERS", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_500_000))]
    orders: u32,
    /// Commands and queries a second, sent on schedule whether or not earlier ones were answered
    #[arg(long, env = "LOAD_RATE", default_value_t = 200.0)]
    rate: f64,
    /// Queries for each command
    #[arg(long, env = "LOAD_READS_PER_WRITE", default_value_t = 1, value_name = "N")]
    reads_per_write: u32,
    /// The same seed sends the same commands in the same order
    #[arg(long, env = "LOAD_SEED", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    audit: AuditArgs,
}

impl DemoArgs {
    fn load(&self, orders: u32, seed: u64) -> LoadArgs {
        let reads_per_write = Some(self.reads_per_write);
        LoadArgs { rate: self.rate, time: Duration::ZERO, orders: Some(orders), reads_per_write, seed }
    }
}

/// Runs the demo; exit code 1 when a read model doesn't agree with the write database.
pub(crate) async fn run(instance: &Instance, args: &DemoArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let was_running =
        ["connect", "search", "projector-run"].iter().all(|name| process::alive(instance, name).is_some());
    stack::up(instance).await?;
    services::up(instance).await?;
    let up_s = started.elapsed().as_secs_f64();

    let mut before = Status::read(instance).await?;
    let mut warm_up = None;
    if !was_running {
        eprintln!("warm-up: {WARM_UP_ORDERS} orders");
        let seed = args.seed.wrapping_add(1);
        load::prepare(instance, &args.load(WARM_UP_ORDERS, seed)).await?.drive().await;
        catch_up(instance).await?;
        tokio::time::sleep(REPORTED_WITHIN).await;
        let warm = Status::read(instance).await?;
        warm_up = Some(warm.since(&before)?);
        before = warm;
    }
    let load = load::prepare(instance, &args.load(args.orders, args.seed)).await?.drive().await;
    let caught_up_after = catch_up(instance).await?;
    eprintln!("audit: recomputing every read model from the write database");
    let audit = audit::run(&instance.env(), &args.audit).await?;
    tokio::time::sleep(REPORTED_WITHIN).await;
    let after = Status::read(instance).await?;

    let run = screen::Run {
        instance,
        up_s,
        total_s: started.elapsed().as_secs_f64(),
        caught_up_after,
        load: &load,
        warm_up: warm_up.as_deref(),
        read_models: &after.since(&before)?,
        audit: &audit,
    };
    println!("{}", run.render());
    Ok(if audit.agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until no read model has messages left, and says how long that took.
async fn catch_up(instance: &Instance) -> Result<Duration> {
    let started = Instant::now();
    loop {
        let behind = Status::read(instance).await?.behind();
        if behind == 0 {
            return Ok(started.elapsed());
        }
        ensure!(
            started.elapsed() < CATCH_UP_WITHIN,
            "the read models are {behind} messages behind, {} s after the last command: see {}",
            CATCH_UP_WITHIN.as_secs(),
            instance.log("projector-run").display()
        );
        tokio::time::sleep(ASK_EVERY).await;
    }
}
