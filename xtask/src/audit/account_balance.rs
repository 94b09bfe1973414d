//! `account_balance:<id>` in Redis, a hash an account.

use anyhow::Result;
use futures::future::BoxFuture;
use sqlx::PgPool;

use super::{ReadModel, Stores, compare::Documents, write_side_documents};

pub(super) struct AccountBalance;

impl ReadModel for AccountBalance {
    fn name(&self) -> &'static str {
        "account_balance"
    }

    fn store(&self) -> &'static str {
        "redis"
    }

    fn expected<'a>(&'a self, write_side: &'a PgPool) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(write_side_documents(write_side, include_str!("account_balance.sql")))
    }

    fn actual<'a>(&'a self, stores: &'a Stores) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(stores.redis_hashes(6, "account_balance:*"))
    }
}
