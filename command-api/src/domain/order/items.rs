//! The lines of an order: priced from the catalogue, changed only while the order is pending.

use uuid::Uuid;

use super::{Item, Order, OrderEvent, Status, check_total};
use crate::domain::{Customer, Product, Violation};

/// A line as it is asked for.
#[derive(Clone, Debug)]
pub struct NewItem {
    /// Minted by us.
    pub item_id: Uuid,
    /// The product.
    pub product_id: Uuid,
    /// Pieces.
    pub quantity: i64,
    /// The price that the customer saw, if they say so.
    pub price_cents: Option<i64>,
}

impl NewItem {
    pub(super) fn priced(&self, products: &[Product]) -> Result<Item, Violation> {
        let product = find(products, self.product_id)?;
        if let Some(sent_cents) = self.price_cents.filter(|sent| *sent != product.price_cents) {
            let (product_id, actual_cents) = (self.product_id, product.price_cents);
            return Err(Violation::PriceChanged { product_id, sent_cents, actual_cents });
        }
        Ok(Item {
            item_id: self.item_id,
            product_id: self.product_id,
            product_name: product.details.name.clone(),
            image_url: product.details.image_url.clone(),
            quantity: i32::try_from(self.quantity).map_err(|_| Violation::AmountTooLarge)?,
            unit_price_cents: product.price_cents,
            line_total_cents: product.price_cents.checked_mul(self.quantity).ok_or(Violation::AmountTooLarge)?,
        })
    }
}

/// What is wrong with the lines themselves, whatever the catalogue says.
///
/// # Errors
/// No lines, or a quantity that is not above 0.
pub fn check_items(items: &[NewItem]) -> Result<(), Violation> {
    if items.is_empty() {
        return Err(Violation::NoItems);
    }
    match items.iter().find(|item| item.quantity <= 0) {
        Some(item) => Err(Violation::QuantityNotPositive(item.quantity)),
        None => Ok(()),
    }
}

pub(super) fn find(products: &[Product], product_id: Uuid) -> Result<&Product, Violation> {
    products.iter().find(|product| product.product_id == product_id).ok_or(Violation::UnknownProduct(product_id))
}

pub(super) fn total(items: &[Item]) -> Result<i64, Violation> {
    let sum = items.iter().try_fold(0_i64, |sum, item| sum.checked_add(item.line_total_cents));
    sum.ok_or(Violation::AmountTooLarge)
}

/// The one currency of all lines.
pub(super) fn currency(items: &[NewItem], products: &[Product]) -> Result<String, Violation> {
    let mut currencies = items.iter().map(|item| find(products, item.product_id).map(|product| &product.currency));
    let first = currencies.next().ok_or(Violation::NoItems)??;
    for other in currencies {
        let other = other?;
        if other != first {
            return Err(Violation::MixedCurrencies(first.clone(), other.clone()));
        }
    }
    Ok(first.clone())
}

/// Lines are bounded far below this by the size of a request.
pub(super) fn count(lines: usize) -> i32 {
    i32::try_from(lines).unwrap_or(i32::MAX)
}

impl Order {
    /// Adds a line at the end. Stock is reserved by the product itself.
    ///
    /// # Errors
    /// The first rule that forbids it.
    pub fn add_item(
        &self,
        item: &NewItem,
        customer: &Customer,
        unpaid_cents: i64,
        products: &[Product],
    ) -> Result<OrderEvent, Violation> {
        self.must_be(&[Status::Pending], "changed")?;
        check_items(std::slice::from_ref(item))?;
        let priced = item.priced(products)?;
        let product = find(products, item.product_id)?;
        if product.currency != self.currency {
            return Err(Violation::MixedCurrencies(self.currency.clone(), product.currency.clone()));
        }
        customer.check_order(unpaid_cents, priced.line_total_cents)?;
        Ok(OrderEvent::ItemAdded {
            order_id: self.order_id,
            item_count: count(self.items.len() + 1),
            total_amount_cents: self
                .total_amount_cents
                .checked_add(priced.line_total_cents)
                .ok_or(Violation::AmountTooLarge)?,
            item: priced,
            currency: self.currency.clone(),
            placed_at: self.placed_at,
        })
    }

    /// Takes a line out. Its goods are released by the product itself.
    ///
    /// # Errors
    /// The first rule that forbids it.
    pub fn remove_item(&self, item_id: Uuid) -> Result<OrderEvent, Violation> {
        self.must_be(&[Status::Pending], "changed")?;
        let line = self.items.iter().find(|line| line.item.item_id == item_id);
        let item = &line.ok_or(Violation::UnknownItem(item_id))?.item;
        if self.items.len() == 1 {
            return Err(Violation::NoItems);
        }
        let total_amount_cents = self.total_amount_cents - item.line_total_cents;
        check_total(total_amount_cents)?;
        if self.paid_cents > 0 && self.paid_cents >= total_amount_cents {
            return Err(Violation::PaidForItems);
        }
        Ok(OrderEvent::ItemRemoved {
            order_id: self.order_id,
            item_id,
            product_id: item.product_id,
            line_total_cents: item.line_total_cents,
            item_count: count(self.items.len() - 1),
            total_amount_cents,
            currency: self.currency.clone(),
            placed_at: self.placed_at,
        })
    }

    /// Pieces of each product that the order holds, by product.
    #[must_use]
    pub fn quantities(&self) -> std::collections::BTreeMap<Uuid, i64> {
        let mut quantities = std::collections::BTreeMap::new();
        for line in &self.items {
            *quantities.entry(line.item.product_id).or_default() += i64::from(line.item.quantity);
        }
        quantities
    }
}
