//! What requests ask for: load (locking in one order: customer, order, products by rising id; accounts by rising key), let the domain decide,
//! write the state tables, record the events.

pub mod accounts;
pub mod customers;
pub mod orders;
pub mod products;

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::domain::{Product, ProductEvent, Violation};
use crate::store::{CommandError, UnitOfWork};
use crate::tables;

/// What happens to the stock of some products, by product.
type Quantities = BTreeMap<Uuid, i64>;

/// Lets locked products reserve or release, and writes them.
async fn move_stock(
    unit: &mut UnitOfWork<'_>,
    products: Vec<Product>,
    quantities: &Quantities,
    decide: impl Fn(&Product, i64) -> Result<ProductEvent, Violation>,
) -> Result<(), CommandError> {
    let mut after = Vec::with_capacity(quantities.len());
    for product in products {
        let Some(quantity) = quantities.get(&product.product_id) else { continue };
        let event = decide(&product, *quantity)?;
        after.push(unit.record(product, &[event])?);
    }
    tables::products::update(unit.connection(), &after).await
}
