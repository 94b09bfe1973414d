//! `orders` with `order_items` and `payments`.

use serde_json::{Value, json};
use sqlx::{PgConnection, Row, types::Json};
use uuid::Uuid;

use crate::domain::Order;
use crate::store::CommandError;

/// Whose order it is; that never changes, so it needs no lock.
pub(crate) async fn customer_of(connection: &mut PgConnection, id: Uuid) -> Result<Option<Uuid>, CommandError> {
    let sql = "select customer_id from orders where order_id = $1";
    Ok(sqlx::query_scalar(sql).bind(id).fetch_optional(connection).await?)
}

/// Loads and locks an order.
pub(crate) async fn lock(connection: &mut PgConnection, id: Uuid) -> Result<Option<Order>, CommandError> {
    let sql = "select to_jsonb(o) from orders o where order_id = $1 for no key update";
    let Some(row) = sqlx::query(sql).bind(id).fetch_optional(&mut *connection).await? else { return Ok(None) };
    let Json(mut order) = row.try_get::<Json<Value>, _>(0)?;
    let sql = "select (select coalesce(jsonb_agg(to_jsonb(i) - 'order_id' order by position), '[]')
                       from order_items i where order_id = $1),
                      (select coalesce(jsonb_agg(to_jsonb(p) - 'order_id' order by position), '[]')
                       from payments p where order_id = $1)";
    let row = sqlx::query(sql).bind(id).fetch_one(connection).await?;
    for (column, name) in ["items", "payments"].into_iter().enumerate() {
        order[name] = row.try_get::<Json<Value>, _>(column)?.0;
    }
    Ok(Some(serde_json::from_value(order)?))
}

/// The rows of an order's lines or payments, which name their order.
fn children(order: &Order, rows: &[impl serde::Serialize]) -> Result<Vec<Value>, serde_json::Error> {
    let with_order = |row| {
        let mut row = serde_json::to_value(row)?;
        row["order_id"] = json!(order.order_id);
        Ok(row)
    };
    rows.iter().map(with_order).collect()
}

pub(crate) async fn insert(connection: &mut PgConnection, order: &Order) -> Result<(), CommandError> {
    let sql = "with placed as (insert into orders select * from jsonb_populate_record(null::orders, $1))
               insert into order_items select * from jsonb_populate_recordset(null::order_items, $2)";
    let items = children(order, &order.items)?;
    sqlx::query(sql).bind(Json(order)).bind(Json(items)).execute(connection).await?;
    Ok(())
}

/// Writes what commands may change; lines and payments as they are now. Ids are parameters of their own: Postgres takes
/// a set made from JSON for large, and would read whole tables to join it.
pub(crate) async fn update(connection: &mut PgConnection, order: &Order) -> Result<(), CommandError> {
    let sql = "with changed as (
                   update orders o set
                       status = n.status, total_amount_cents = n.total_amount_cents, paid_cents = n.paid_cents,
                       revenue_reversed_cents = n.revenue_reversed_cents, tracking_number = n.tracking_number,
                       shipped_at = n.shipped_at, delivered_at = n.delivered_at, cancelled_at = n.cancelled_at,
                       cancellation_reason = n.cancellation_reason, version = n.version, updated_at = n.updated_at
                   from jsonb_populate_record(null::orders, $1) n where o.order_id = $5
               ), paid as (
                   -- An id that another order's payment took meanwhile is a unique violation, hence a lost race.
                   insert into payments select n.* from jsonb_populate_recordset(null::payments, $2) n
                   where not exists (select from payments p where p.payment_id = n.payment_id and p.order_id = $5)
               ), repaid as (
                   update payments p set
                       status = n.status, refunded_cents = n.refunded_cents,
                       revenue_reversed_cents = n.revenue_reversed_cents, processed_at = n.processed_at
                   from jsonb_populate_recordset(null::payments, $2) n
                   where p.order_id = $5 and p.payment_id = n.payment_id and p.refunded_cents <> n.refunded_cents
               ), removed as (
                   delete from order_items where order_id = $5 and item_id <> all($4)
               )
               insert into order_items select * from jsonb_populate_recordset(null::order_items, $3)
               on conflict (item_id) do nothing";
    let (payments, items) = (children(order, &order.payments)?, children(order, &order.items)?);
    let ids: Vec<Uuid> = order.items.iter().map(|line| line.item.item_id).collect();
    let query = sqlx::query(sql).bind(Json(order)).bind(Json(payments)).bind(Json(items)).bind(ids);
    query.bind(order.order_id).execute(connection).await?;
    Ok(())
}

/// Whether a payment's id is taken by another order.
pub(crate) async fn payment_elsewhere(
    connection: &mut PgConnection,
    id: Uuid,
    order: Uuid,
) -> Result<bool, CommandError> {
    let sql = "select exists (select from payments where payment_id = $1 and order_id <> $2)";
    Ok(sqlx::query_scalar(sql).bind(id).bind(order).fetch_one(connection).await?)
}
