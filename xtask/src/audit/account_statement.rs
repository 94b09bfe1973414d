//! `account_statement` in Postgres, a row an account, month and currency.

use anyhow::Result;
use futures::future::BoxFuture;
use sqlx::PgPool;

use super::{ReadModel, Stores, compare::Documents, write_side_documents};

pub(super) struct AccountStatement;

impl ReadModel for AccountStatement {
    fn name(&self) -> &'static str {
        "account_statement"
    }

    fn store(&self) -> &'static str {
        "postgres"
    }

    fn expected<'a>(&'a self, write_side: &'a PgPool) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(write_side_documents(write_side, include_str!("account_statement.sql")))
    }

    fn actual<'a>(&'a self, stores: &'a Stores) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(stores.postgres_rows("account_statement", "account_id || ':' || month || ':' || currency"))
    }
}
