//! Do the read models say what the write database says?
//!
//! Each read model is recomputed from the write database by SQL of its own (the `.sql` files here) and compared with
//! what its store holds: every document, every field, both ways. Nothing here goes through the projector's code, its
//! YAML or its query service, so that a fault in them can't hide itself. Fields that begin with `_` are the
//! projector's own business and aren't compared.
//!
//! The projector may still be catching up, so whatever differs is compared anew until it agrees or the patience ends.

mod account_balance;
mod account_statement;
mod account_transactions;
mod compare;
mod customer_order_history;
mod daily_revenue;
mod dashboard;
mod order_details;
mod order_list_view;
mod order_search;
mod order_summary;
mod product_search;
mod product_stats;
mod report;
mod stores;

pub(crate) use report::{Report, Verdict};

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use futures::future::BoxFuture;
use sqlx::{PgPool, postgres::PgPoolOptions, types::Json};

use compare::{Document, Documents, compare};
use stores::Stores;

const ROUND_EVERY: Duration = Duration::from_millis(500);

/// What `audit` may be asked for.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuditArgs {
    /// Seconds to wait for a projector that is catching up, before a difference counts
    #[arg(long, env = "AUDIT_WAIT_S", default_value_t = 30, value_name = "SECONDS")]
    pub(crate) wait: u64,
    /// Differences to list of each read model
    #[arg(long, env = "AUDIT_FIRST", default_value_t = 10, value_name = "N")]
    pub(crate) first: usize,
}

/// A read model as the audit sees it: two ways to the same documents.
///
/// `expected` and `actual` must yield the same keys and fields in the same spelling (a Redis hash holds texts only,
/// so its `expected` yields texts too).
trait ReadModel: Sync {
    fn name(&self) -> &'static str;
    fn store(&self) -> &'static str;
    /// From the write database.
    fn expected<'a>(&'a self, write_side: &'a PgPool) -> BoxFuture<'a, Result<Documents>>;
    /// From the read store, without hidden or deleted documents.
    fn actual<'a>(&'a self, stores: &'a Stores) -> BoxFuture<'a, Result<Documents>>;
}

const READ_MODELS: [&dyn ReadModel; 13] = [
    &order_summary::OrderSummary,
    &customer_order_history::CustomerOrderHistory,
    &daily_revenue::Facts,
    &daily_revenue::Days,
    &order_list_view::OrderListView,
    &order_details::OrderDetails,
    &order_search::OrderSearch,
    &product_search::ProductSearch,
    &product_stats::ProductStats,
    &dashboard::Dashboard,
    &account_balance::AccountBalance,
    &account_transactions::AccountTransactions,
    &account_statement::AccountStatement,
];

/// Compares every read model of the instance whose environment is `env` (see `./dev env`).
///
/// # Errors
/// When the write database doesn't answer, or a store can't be connected to. Differences, and stores that refuse to be
/// read, are no error: see [`Report::agrees`].
pub(crate) async fn run(env: &BTreeMap<String, String>, args: &AuditArgs) -> Result<Report> {
    let var = |key: &str| env.get(key).with_context(|| format!("{key} is not set"));
    let write_side = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(5))
        .connect(var("WRITE_DATABASE_URL")?)
        .await
        .context("can't connect to the write database")?;
    let stores = Stores::connect(
        var("REDIS_URL")?,
        var("ELASTICSEARCH_URL")?,
        var("CLICKHOUSE_URL")?,
        var("CLICKHOUSE_DATABASE")?,
        var("READ_DATABASE_URL")?,
    )
    .await?;

    let deadline = Instant::now() + Duration::from_secs(args.wait);
    let mut verdicts = Vec::new();
    for model in READ_MODELS {
        verdicts.push(patiently(model, &write_side, &stores, deadline, args.first).await?);
    }
    Ok(Report::new(verdicts))
}

async fn patiently(
    model: &dyn ReadModel,
    write_side: &PgPool,
    stores: &Stores,
    deadline: Instant,
    first: usize,
) -> Result<Verdict> {
    loop {
        // the actual side first: what is committed in between is missing there, and waited for
        let actual = model.actual(stores).await;
        let expected = model
            .expected(write_side)
            .await
            .with_context(|| format!("can't recompute {} from the write database", model.name()))?;
        let late = Instant::now() >= deadline;
        match actual {
            Ok(actual) => {
                let verdict = Verdict::new(model.name(), model.store(), compare(&expected, &actual, first));
                if verdict.agrees() || late {
                    return Ok(verdict);
                }
            }
            // a store that has no index or table yet may get it while we wait
            Err(error) if late => return Ok(Verdict::unreadable(model.name(), model.store(), &error)),
            Err(_) => {}
        }
        tokio::time::sleep(ROUND_EVERY).await;
    }
}

/// The rows of a query that yields `key text, document jsonb`.
async fn write_side_rows(write_side: &PgPool, sql: &'static str) -> Result<Vec<(String, Document)>> {
    let rows: Vec<(String, Json<Document>)> = sqlx::query_as(sql).fetch_all(write_side).await?;
    Ok(rows.into_iter().map(|(key, Json(document))| (key, document)).collect())
}

async fn write_side_documents(write_side: &PgPool, sql: &'static str) -> Result<Documents> {
    Ok(write_side_rows(write_side, sql).await?.into_iter().collect())
}
