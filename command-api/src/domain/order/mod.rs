//! Orders with their items and payments. Payments are events of the order, so that none overtakes its order.
//!
//! Status: pending → confirmed (paid) → shipped → delivered; pending or confirmed → cancelled.
//!
//! Money: the order's total is the sum of its lines. What is paid counts confirmed payments; a refund gives money back
//! without opening the order for payment again. Revenue is booked with the order, and reversed once at most: by refunds,
//! or for what these left by the cancellation.

mod event;
mod items;
mod payment;
mod state;
#[cfg(test)]
mod tests;

use chrono::TimeDelta;
use uuid::Uuid;

pub use event::OrderEvent;
pub use items::{NewItem, check_items};
pub use payment::{NewPayment, PaymentOutcome};
pub use state::{Item, Line, Order, Payment, PaymentStatus, ShippingAddress, Status};

use super::{Customer, Product, Time, Violation};

/// Smaller orders don't pay for their parcel.
pub const TOTAL_CENTS_MIN: i64 = 1_000;
const DELIVERY_DAYS: i64 = 5;

/// What a customer wants to order.
#[derive(Clone, Debug)]
pub struct PlaceOrder {
    /// Minted by us.
    pub order_id: Uuid,
    /// At least one.
    pub items: Vec<NewItem>,
    /// Where to.
    pub shipping_address: ShippingAddress,
}

/// Places an order. `products` are those of the items that exist; `unpaid_cents` is what the customer owes already.
/// Stock is reserved by the products themselves.
///
/// # Errors
/// The first rule that forbids it.
pub fn place(
    command: PlaceOrder,
    customer: &Customer,
    unpaid_cents: i64,
    products: &[Product],
    now: Time,
) -> Result<OrderEvent, Violation> {
    check_items(&command.items)?;
    let items = command.items.iter().map(|item| item.priced(products)).collect::<Result<Vec<_>, _>>()?;
    let currency = items::currency(&command.items, products)?;
    let total_amount_cents = items::total(&items)?;
    check_total(total_amount_cents)?;
    customer.check_order(unpaid_cents, total_amount_cents)?;
    Ok(OrderEvent::OrderPlaced {
        order_id: command.order_id,
        customer_id: customer.customer_id,
        customer_name: customer.name.clone(),
        customer_email: customer.email.clone(),
        item_count: items::count(items.len()),
        items,
        total_amount_cents,
        currency,
        shipping_address: command.shipping_address,
        estimated_delivery: now + TimeDelta::days(DELIVERY_DAYS),
        placed_at: now,
    })
}

fn check_total(total_cents: i64) -> Result<(), Violation> {
    let minimum_cents = TOTAL_CENTS_MIN;
    if total_cents < minimum_cents { Err(Violation::TotalBelowMinimum { total_cents, minimum_cents }) } else { Ok(()) }
}

impl Order {
    /// Hands the order to the carrier.
    ///
    /// # Errors
    /// It isn't paid, is shipped already, or cancelled.
    pub fn ship(&self, tracking_number: String, now: Time) -> Result<OrderEvent, Violation> {
        self.must_be(&[Status::Confirmed], "shipped")?;
        Ok(OrderEvent::OrderShipped { order_id: self.order_id, tracking_number, shipped_at: now })
    }

    /// The customer has it.
    ///
    /// # Errors
    /// It isn't on its way.
    pub fn deliver(&self, now: Time) -> Result<OrderEvent, Violation> {
        self.must_be(&[Status::Shipped], "delivered")?;
        Ok(OrderEvent::OrderDelivered { order_id: self.order_id, delivered_at: now })
    }

    /// Calls the order off. Its goods are released by the products themselves.
    ///
    /// # Errors
    /// It is shipped or cancelled already.
    pub fn cancel(&self, reason: String, now: Time) -> Result<OrderEvent, Violation> {
        self.must_be(&[Status::Pending, Status::Confirmed], "cancelled")?;
        Ok(OrderEvent::OrderCancelled {
            order_id: self.order_id,
            reason,
            placed_at: self.placed_at,
            total_amount_cents: self.total_amount_cents,
            revenue_reversed_cents: self.total_amount_cents - self.revenue_reversed_cents,
            currency: self.currency.clone(),
            cancelled_at: now,
        })
    }

    fn must_be(&self, allowed: &[Status], action: &'static str) -> Result<(), Violation> {
        if allowed.contains(&self.status) {
            return Ok(());
        }
        Err(Violation::OrderStatus { status: self.status.name(), action })
    }
}
