//! An order as it is now: the fold of its events, and the rows of `orders`, `order_items` and `payments`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::OrderEvent;
use crate::domain::{Aggregate, Time};

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Status {
    Pending,
    Confirmed,
    Shipped,
    Delivered,
    Cancelled,
}

impl Status {
    /// As it is written everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where to send an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ShippingAddress {
    pub street: Option<String>,
    pub city: String,
    pub zip: String,
    pub country: Option<String>,
}

/// A line of an order, as events carry it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Item {
    pub item_id: Uuid,
    pub product_id: Uuid,
    pub product_name: String,
    pub image_url: Option<String>,
    pub quantity: i32,
    pub unit_price_cents: i64,
    pub line_total_cents: i64,
}

/// A line in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Rises; a removed line leaves a gap.
    pub position: i32,
    /// The line.
    #[serde(flatten)]
    pub item: Item,
}

/// What came of a payment in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum PaymentStatus {
    Confirmed,
    Failed,
    Refunded,
}

/// A payment of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Payment {
    pub payment_id: Uuid,
    pub position: i32,
    pub amount_cents: i64,
    pub currency: String,
    pub status: PaymentStatus,
    pub refunded_cents: i64,
    pub revenue_reversed_cents: i64,
    pub processed_at: Time,
}

impl Payment {
    /// What can still be given back.
    #[must_use]
    pub fn left_cents(&self) -> i64 {
        if self.status == PaymentStatus::Failed { 0 } else { self.amount_cents - self.refunded_cents }
    }
}

/// An order as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the columns of `orders`
pub struct Order {
    pub order_id: Uuid,
    pub customer_id: Uuid,
    pub customer_name: String,
    pub customer_email: String,
    pub status: Status,
    pub currency: String,
    pub total_amount_cents: i64,
    pub paid_cents: i64,
    /// What refunds and the cancellation took off the order's revenue, at most the total.
    pub revenue_reversed_cents: i64,
    pub shipping_address: ShippingAddress,
    pub estimated_delivery: Time,
    pub tracking_number: Option<String>,
    pub placed_at: Time,
    pub shipped_at: Option<Time>,
    pub delivered_at: Option<Time>,
    pub cancelled_at: Option<Time>,
    pub cancellation_reason: Option<String>,
    pub version: i64,
    pub created_at: Time,
    pub updated_at: Time,
    pub items: Vec<Line>,
    /// In the order in which they came.
    pub payments: Vec<Payment>,
}

impl Order {
    fn placed(event: &OrderEvent, at: Time) -> Option<Self> {
        let OrderEvent::OrderPlaced {
            order_id,
            customer_id,
            customer_name,
            customer_email,
            items,
            item_count: _,
            total_amount_cents,
            currency,
            shipping_address,
            estimated_delivery,
            placed_at,
        } = event
        else {
            return None;
        };
        Some(Self {
            order_id: *order_id,
            customer_id: *customer_id,
            customer_name: customer_name.clone(),
            customer_email: customer_email.clone(),
            status: Status::Pending,
            currency: currency.clone(),
            total_amount_cents: *total_amount_cents,
            paid_cents: 0,
            revenue_reversed_cents: 0,
            shipping_address: shipping_address.clone(),
            estimated_delivery: *estimated_delivery,
            tracking_number: None,
            placed_at: *placed_at,
            shipped_at: None,
            delivered_at: None,
            cancelled_at: None,
            cancellation_reason: None,
            version: 1,
            created_at: at,
            updated_at: at,
            items: (1..).zip(items).map(|(position, item)| Line { position, item: item.clone() }).collect(),
            payments: Vec::new(),
        })
    }

    fn record_payment(&mut self, payment_id: Uuid, amount_cents: i64, status: PaymentStatus, processed_at: Time) {
        self.payments.push(Payment {
            payment_id,
            position: self.payments.last().map_or(1, |last| last.position + 1),
            amount_cents,
            currency: self.currency.clone(),
            status,
            refunded_cents: 0,
            revenue_reversed_cents: 0,
            processed_at,
        });
    }

    fn apply(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::OrderPlaced { .. } => {}
            OrderEvent::ItemAdded { item, total_amount_cents, .. } => {
                let position = self.items.last().map_or(1, |line| line.position + 1);
                self.items.push(Line { position, item: item.clone() });
                self.total_amount_cents = *total_amount_cents;
            }
            OrderEvent::ItemRemoved { item_id, total_amount_cents, .. } => {
                self.items.retain(|line| line.item.item_id != *item_id);
                self.total_amount_cents = *total_amount_cents;
            }
            OrderEvent::PaymentConfirmed {
                payment_id, amount_cents, paid_cents, order_status, processed_at, ..
            } => {
                self.record_payment(*payment_id, *amount_cents, PaymentStatus::Confirmed, *processed_at);
                self.paid_cents = *paid_cents;
                self.status = *order_status;
            }
            OrderEvent::PaymentFailed { payment_id, amount_cents, processed_at, .. } => {
                self.record_payment(*payment_id, *amount_cents, PaymentStatus::Failed, *processed_at);
            }
            OrderEvent::PaymentRefunded {
                payment_id,
                amount_cents,
                revenue_reversed_cents,
                order_status,
                processed_at,
                ..
            } => {
                if let Some(payment) = self.payments.iter_mut().find(|payment| payment.payment_id == *payment_id) {
                    payment.refunded_cents += amount_cents;
                    payment.revenue_reversed_cents += revenue_reversed_cents;
                    payment.processed_at = *processed_at;
                    if payment.left_cents() == 0 {
                        payment.status = PaymentStatus::Refunded;
                    }
                }
                self.revenue_reversed_cents += revenue_reversed_cents;
                self.status = *order_status;
            }
            OrderEvent::OrderShipped { tracking_number, shipped_at, .. } => {
                self.status = Status::Shipped;
                self.tracking_number = Some(tracking_number.clone());
                self.shipped_at = Some(*shipped_at);
            }
            OrderEvent::OrderDelivered { delivered_at, .. } => {
                self.status = Status::Delivered;
                self.delivered_at = Some(*delivered_at);
            }
            OrderEvent::OrderCancelled { reason, revenue_reversed_cents, cancelled_at, .. } => {
                self.status = Status::Cancelled;
                self.revenue_reversed_cents += revenue_reversed_cents;
                self.cancellation_reason = Some(reason.clone());
                self.cancelled_at = Some(*cancelled_at);
            }
        }
    }
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Event = OrderEvent;

    fn evolve(state: Option<Self>, event: &OrderEvent, at: Time) -> Option<Self> {
        let Some(mut next) = state else { return Self::placed(event, at) };
        next.apply(event);
        next.version += 1;
        next.updated_at = at;
        Some(next)
    }

    fn id(&self) -> String {
        self.order_id.to_string()
    }

    fn version(&self) -> i64 {
        self.version
    }
}
