//! A document an order in the search engine.

use anyhow::Result;
use futures::future::BoxFuture;
use sqlx::PgPool;

use super::{ReadModel, Stores, compare::Documents, write_side_documents};

pub(super) struct CustomerOrderHistory;

impl ReadModel for CustomerOrderHistory {
    fn name(&self) -> &'static str {
        "customer_order_history"
    }

    fn store(&self) -> &'static str {
        "elasticsearch"
    }

    fn expected<'a>(&'a self, write_side: &'a PgPool) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(write_side_documents(write_side, include_str!("customer_order_history.sql")))
    }

    fn actual<'a>(&'a self, stores: &'a Stores) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(stores.search_documents("customer_order_history"))
    }
}
