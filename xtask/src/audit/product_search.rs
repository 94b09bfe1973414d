//! `product_search` in the search engine, a document a product.

use anyhow::Result;
use futures::future::BoxFuture;
use sqlx::PgPool;

use super::{ReadModel, Stores, compare::Documents, write_side_documents};

pub(super) struct ProductSearch;

impl ReadModel for ProductSearch {
    fn name(&self) -> &'static str {
        "product_search"
    }

    fn store(&self) -> &'static str {
        "elasticsearch"
    }

    fn expected<'a>(&'a self, write_side: &'a PgPool) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(write_side_documents(write_side, include_str!("product_search.sql")))
    }

    fn actual<'a>(&'a self, stores: &'a Stores) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(stores.search_documents("product_search"))
    }
}
