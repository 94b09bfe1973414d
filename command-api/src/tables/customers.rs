//! `customers`.

use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::decode;
use crate::domain::Customer;
use crate::store::CommandError;

/// Loads and locks a customer: orders of one customer are placed one after the other, because of the credit limit.
pub(crate) async fn lock(connection: &mut PgConnection, id: Uuid) -> Result<Option<Customer>, CommandError> {
    let row = sqlx::query("select to_jsonb(c) from customers c where customer_id = $1 for no key update")
        .bind(id)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(decode).transpose()
}

pub(crate) async fn exists(connection: &mut PgConnection, id: Uuid) -> Result<bool, CommandError> {
    let sql = "select exists (select from customers where customer_id = $1)";
    Ok(sqlx::query_scalar(sql).bind(id).fetch_one(connection).await?)
}

/// What a customer owes for orders that are not paid yet. Only exact while the customer is locked.
pub(crate) async fn unpaid_cents(connection: &mut PgConnection, id: Uuid) -> Result<i64, CommandError> {
    let sql = "select least(coalesce(sum(total_amount_cents - paid_cents), 0), 9223372036854775807)::bigint from orders
               where customer_id = $1 and status = 'pending'";
    Ok(sqlx::query_scalar(sql).bind(id).fetch_one(connection).await?)
}

pub(crate) async fn insert(connection: &mut PgConnection, customer: &Customer) -> Result<(), CommandError> {
    let sql = "insert into customers select * from jsonb_populate_record(null::customers, $1)";
    sqlx::query(sql).bind(Json(customer)).execute(connection).await?;
    Ok(())
}

pub(crate) async fn update(connection: &mut PgConnection, customer: &Customer) -> Result<(), CommandError> {
    let sql = "update customers c set
                   first_name = n.first_name, last_name = n.last_name, name = n.name, email = n.email,
                   active = n.active, credit_limit_cents = n.credit_limit_cents, version = n.version,
                   updated_at = n.updated_at, deactivated_at = n.deactivated_at
               from jsonb_populate_record(null::customers, $1) n where c.customer_id = n.customer_id";
    sqlx::query(sql).bind(Json(customer)).execute(connection).await?;
    Ok(())
}
