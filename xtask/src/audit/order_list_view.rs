//! `order_list_view` in Postgres, a row an order: of the order, its customer and its products.

use anyhow::Result;
use futures::future::BoxFuture;
use sqlx::PgPool;

use super::{ReadModel, Stores, compare::Documents, write_side_documents};

pub(super) struct OrderListView;

impl ReadModel for OrderListView {
    fn name(&self) -> &'static str {
        "order_list_view"
    }

    fn store(&self) -> &'static str {
        "postgres"
    }

    fn expected<'a>(&'a self, write_side: &'a PgPool) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(write_side_documents(write_side, include_str!("order_list_view.sql")))
    }

    fn actual<'a>(&'a self, stores: &'a Stores) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(stores.postgres_rows("order_list_view", "order_id"))
    }
}
