//! What an event costs while more and more is stored: orders are placed without end, and one event in nine is about an order of long
//! ago, when half as many were there.

use crate::data::{Data, Order};
use crate::machine::Machine;
use crate::oracle;
use crate::ours::Site;
use crate::report::{Part, Report};
use crate::stores::{Store, Stores};
use crate::throughput::{ADMIN_PORT, PARTITIONS, Where, fill_with};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// One order placed in so many brings an event of an older one.
const OLD_EVERY: usize = 8;
/// Looked at from here on, at each further one half as long again on a logarithmic scale.
const FIRST_MARK: usize = 10_000;
/// Documents that are compared in the end.
const COMPARED: usize = 100_000;
/// More than so many orders don't go into a search engine here: at some thousand events a second they would take hours.
const IN_SEARCH: usize = 1_000_000;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GrowthArgs {
    /// Documents in the end; in search 1,000,000 at most
    #[arg(long, default_value_t = 10_000_000)]
    documents: usize,
    /// Redis, Postgres, search
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["redis", "postgres", "search"])]
    stores: Vec<Store>,
    /// For the report: what else ran on the machine
    #[arg(long, default_value = "")]
    note: String,
    /// Print the figures, and leave the report as it is
    #[arg(long)]
    dry: bool,
}

/// All that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Growth {
    pub(crate) machine: Machine,
    pub(crate) stores: Vec<OfStore>,
}

/// Of one store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OfStore {
    pub(crate) store: Store,
    pub(crate) stages: Vec<Stage>,
    /// Of the documents that were compared in the end.
    pub(crate) compared: usize,
    pub(crate) wrong: usize,
}

/// From one number of documents to a larger one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stage {
    /// Events handled when it ended, and in it.
    pub(crate) handled: usize,
    pub(crate) events: usize,
    pub(crate) wall_s: f64,
    pub(crate) host_cpu_s: f64,
    pub(crate) store_cpu_s: f64,
    pub(crate) strangers_cpu_s: f64,
}

/// Measures, writes the report.
pub(crate) async fn run(at: &Where, args: &GrowthArgs) -> Result<()> {
    let machine = Machine::look(&args.note)?;
    let stores = Stores::new(at.stores.clone())?;
    let (mut all, mut filled) = (Vec::new(), 0);
    for store in &args.stores {
        let orders = if *store == Store::Search { args.documents.min(IN_SEARCH) } else { args.documents };
        let (data, events) = (Data::usual(orders), events(orders).count());
        if filled != orders {
            eprintln!("filling the topic with {events} events of {orders} orders");
            fill_with(at, data, self::events(orders), PARTITIONS).await?;
            filled = orders;
        }
        stores.clear(*store).await?;
        let file = at.projections_dir.join(format!("{}.yaml", store.projection()));
        let mut site = Site::new(&at.control_database_url, &file, ADMIN_PORT).await?;
        let seen = site.grow(*store, &marks(events)).await?;
        let stages: Vec<Stage> = seen
            .windows(2)
            .map(|pair| {
                let (from, to) = (&pair[0], &pair[1]);
                Stage {
                    handled: to.handled,
                    events: to.handled - from.handled,
                    wall_s: to.usage.wall_s - from.usage.wall_s,
                    host_cpu_s: to.cpu_s - from.cpu_s,
                    store_cpu_s: to.usage.store_cpu_s - from.usage.store_cpu_s,
                    strangers_cpu_s: to.usage.strangers_cpu_s - from.usage.strangers_cpu_s,
                }
            })
            .collect();
        for stage in &stages {
            eprintln!("{store:?}: {} events, {:.0}/s", stage.handled, stage.events as f64 / stage.wall_s);
        }
        let (compared, wrong) = compared(&stores, *store, data).await?;
        eprintln!("{store:?}: {wrong} of {compared} wrong");
        site.close().await?;
        stores.clear(*store).await?;
        all.push(OfStore { store: *store, stages, compared, wrong });
    }
    let wrong: usize = all.iter().map(|of| of.wrong).sum();
    Report::take(Part::Growth(Growth { machine, stores: all }), args.dry)?;
    ensure!(wrong == 0, "{wrong} documents of ours aren't as they should be");
    Ok(())
}

/// All events: an order's number, and which of its events.
fn events(orders: usize) -> impl Iterator<Item = (usize, usize)> + Send + 'static {
    (0..orders).flat_map(|number| {
        let old = (number > 0 && number.is_multiple_of(OLD_EVERY)).then_some((number / 2, 1));
        std::iter::once((number, 0)).chain(old)
    })
}

/// The order as it is after these events.
fn after(data: Data, number: usize) -> Order {
    let is_changed = number > 0 && (2 * number).is_multiple_of(OLD_EVERY) && 2 * number < data.orders;
    Order { happened: if is_changed { 2 } else { 1 }, ..data.order(number) }
}

fn marks(events: usize) -> Vec<usize> {
    let steps = (0..).map(|step: i32| (FIRST_MARK as f64 * 10_f64.powf(f64::from(step) / 2.0)).round());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    let below = steps.map(|mark| mark as usize).take_while(|mark| *mark < events);
    below.chain([events]).collect()
}

/// Compares some of all with what they must be; gives how many, and how many of these are wrong.
async fn compared(stores: &Stores, store: Store, data: Data) -> Result<(usize, usize)> {
    // An odd step, which meets orders of every kind.
    let step = (data.orders / COMPARED) | 1;
    let orders = (0..data.orders).step_by(step).map(|number| after(data, number));
    let expected = orders.flat_map(|order| oracle::of(store, &order)).collect::<std::collections::HashMap<_, _>>();
    let keys: Vec<String> = expected.keys().cloned().collect();
    let differences = oracle::differences(&expected, stores.some(store, &keys).await?);
    if let Some(example) = &differences.example {
        eprintln!("    {example}");
    }
    Ok((expected.len(), differences.count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn an_order_is_as_its_events_leave_it() {
        let data = Data::usual(1_000);
        let mut happened = HashMap::new();
        for (number, place) in events(1_000) {
            let count = happened.entry(number).or_insert(0);
            assert_eq!(*count, place, "each order's events come in their order");
            *count += 1;
        }
        assert_eq!(happened.len(), 1_000);
        assert!(happened.into_iter().all(|(number, count)| after(data, number).happened == count));
        assert_eq!(marks(100_000), [10_000, 31_623, 100_000]);
    }
}
