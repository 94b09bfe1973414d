//! `products` with `inventory`.

use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::decode;
use crate::domain::Product;
use crate::store::CommandError;

/// Loads and locks products by rising id, which is the one order that keeps two commands from waiting for each other.
/// Those that don't exist are left out.
pub(crate) async fn lock(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Product>, CommandError> {
    let sql = "select to_jsonb(p) || jsonb_build_object('on_hand', i.on_hand, 'reserved', i.reserved)
               from products p join inventory i using (product_id)
               where product_id = any($1) order by product_id for no key update";
    let rows = sqlx::query(sql).bind(ids).fetch_all(connection).await?;
    rows.iter().map(decode).collect()
}

pub(crate) async fn insert(connection: &mut PgConnection, product: &Product) -> Result<(), CommandError> {
    let sql = "with product as (insert into products select * from jsonb_populate_record(null::products, $1))
               insert into inventory select * from jsonb_populate_record(null::inventory, $1)";
    sqlx::query(sql).bind(Json(product)).execute(connection).await?;
    Ok(())
}

pub(crate) async fn update(connection: &mut PgConnection, products: &[Product]) -> Result<(), CommandError> {
    let sql = "with product as (
                   update products p set
                       name = n.name, description = n.description, category = n.category, subcategory = n.subcategory,
                       tags = n.tags, price_cents = n.price_cents, image_url = n.image_url, review_count = n.review_count,
                       rating_sum = n.rating_sum, version = n.version,
                       updated_at = n.updated_at
                   from jsonb_populate_recordset(null::products, $1) n
                   where p.product_id = any($2) and p.product_id = n.product_id)
               update inventory i set on_hand = n.on_hand, reserved = n.reserved
               from jsonb_populate_recordset(null::inventory, $1) n
               where i.product_id = any($2) and i.product_id = n.product_id";
    // A parameter of its own: Postgres takes a set made from JSON for large, and would read whole tables to join it.
    let ids: Vec<Uuid> = products.iter().map(|product| product.product_id).collect();
    sqlx::query(sql).bind(Json(products)).bind(ids).execute(connection).await?;
    Ok(())
}
