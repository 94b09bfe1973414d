//! `account_transactions` in the search engine, a document a movement of money.

use anyhow::Result;
use futures::future::BoxFuture;
use sqlx::PgPool;

use super::{ReadModel, Stores, compare::Documents, write_side_documents};

pub(super) struct AccountTransactions;

impl ReadModel for AccountTransactions {
    fn name(&self) -> &'static str {
        "account_transactions"
    }

    fn store(&self) -> &'static str {
        "elasticsearch"
    }

    fn expected<'a>(&'a self, write_side: &'a PgPool) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(write_side_documents(write_side, include_str!("account_transactions.sql")))
    }

    fn actual<'a>(&'a self, stores: &'a Stores) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(stores.search_documents("account_transactions"))
    }
}
