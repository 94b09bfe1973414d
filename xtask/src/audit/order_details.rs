//! `order_details` in Postgres, a row an order: all about it.

use anyhow::Result;
use futures::future::BoxFuture;
use sqlx::PgPool;

use super::{ReadModel, Stores, compare::Documents, write_side_documents};

pub(super) struct OrderDetails;

impl ReadModel for OrderDetails {
    fn name(&self) -> &'static str {
        "order_details"
    }

    fn store(&self) -> &'static str {
        "postgres"
    }

    fn expected<'a>(&'a self, write_side: &'a PgPool) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(write_side_documents(write_side, include_str!("order_details.sql")))
    }

    fn actual<'a>(&'a self, stores: &'a Stores) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(stores.postgres_rows("order_details", "order_id"))
    }
}
