//! `product_stats:<id>` in Redis, a hash a product: what all orders add up to.

use anyhow::Result;
use futures::future::BoxFuture;
use sqlx::PgPool;

use super::{ReadModel, Stores, compare::Documents, write_side_documents};

/// The logical database that the projection names.
const DATABASE: u8 = 3;

pub(super) struct ProductStats;

impl ReadModel for ProductStats {
    fn name(&self) -> &'static str {
        "product_stats"
    }

    fn store(&self) -> &'static str {
        "redis"
    }

    fn expected<'a>(&'a self, write_side: &'a PgPool) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(write_side_documents(write_side, include_str!("product_stats.sql")))
    }

    fn actual<'a>(&'a self, stores: &'a Stores) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(stores.redis_hashes(DATABASE, "product_stats:*"))
    }
}
