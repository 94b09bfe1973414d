//! `dashboard:sales:<day>` in Redis: what each day sold, of today and yesterday.

use anyhow::Result;
use futures::future::BoxFuture;
use sqlx::PgPool;

use super::{ReadModel, Stores, compare::Documents, write_side_documents};

pub(super) struct Dashboard;

impl ReadModel for Dashboard {
    fn name(&self) -> &'static str {
        "dashboard"
    }

    fn store(&self) -> &'static str {
        "redis"
    }

    fn expected<'a>(&'a self, write_side: &'a PgPool) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(write_side_documents(write_side, include_str!("dashboard.sql")))
    }

    fn actual<'a>(&'a self, stores: &'a Stores) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(stores.redis_hashes(4, "dashboard:sales:*"))
    }
}
