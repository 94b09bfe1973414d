//! `order:<id>` in Redis, a hash an order.

use anyhow::Result;
use futures::future::BoxFuture;
use sqlx::PgPool;

use super::{ReadModel, Stores, compare::Documents, write_side_documents};

pub(super) struct OrderSummary;

impl ReadModel for OrderSummary {
    fn name(&self) -> &'static str {
        "order_summary"
    }

    fn store(&self) -> &'static str {
        "redis"
    }

    fn expected<'a>(&'a self, write_side: &'a PgPool) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(write_side_documents(write_side, include_str!("order_summary.sql")))
    }

    fn actual<'a>(&'a self, stores: &'a Stores) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(stores.redis_hashes(0, "order:*"))
    }
}
