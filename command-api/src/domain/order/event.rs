//! The events of `events.order`; their fields are documented in `schemas/order/`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Item, ShippingAddress, Status};
use crate::domain::Time;

/// What can happen to an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data")]
#[allow(missing_docs)]
pub enum OrderEvent {
    OrderPlaced {
        order_id: Uuid,
        customer_id: Uuid,
        customer_name: String,
        customer_email: String,
        items: Vec<Item>,
        item_count: i32,
        total_amount_cents: i64,
        currency: String,
        shipping_address: ShippingAddress,
        estimated_delivery: Time,
        placed_at: Time,
    },
    ItemAdded {
        order_id: Uuid,
        item: Item,
        item_count: i32,
        total_amount_cents: i64,
        currency: String,
        placed_at: Time,
    },
    ItemRemoved {
        order_id: Uuid,
        item_id: Uuid,
        product_id: Uuid,
        line_total_cents: i64,
        item_count: i32,
        total_amount_cents: i64,
        currency: String,
        placed_at: Time,
    },
    PaymentConfirmed {
        order_id: Uuid,
        payment_id: Uuid,
        amount_cents: i64,
        currency: String,
        paid_cents: i64,
        order_status: Status,
        processed_at: Time,
    },
    PaymentFailed {
        order_id: Uuid,
        payment_id: Uuid,
        amount_cents: i64,
        currency: String,
        reason: Option<String>,
        processed_at: Time,
    },
    PaymentRefunded {
        order_id: Uuid,
        payment_id: Uuid,
        amount_cents: i64,
        currency: String,
        revenue_reversed_cents: i64,
        order_status: Status,
        placed_at: Time,
        processed_at: Time,
    },
    OrderShipped {
        order_id: Uuid,
        tracking_number: String,
        shipped_at: Time,
    },
    OrderDelivered {
        order_id: Uuid,
        delivered_at: Time,
    },
    OrderCancelled {
        order_id: Uuid,
        reason: String,
        placed_at: Time,
        total_amount_cents: i64,
        revenue_reversed_cents: i64,
        currency: String,
        cancelled_at: Time,
    },
}
