//! `POST /orders` and what follows it, payments included.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::answer::{answer, reply};
use super::problem::Problem;
use super::request::{Ask, currency, id, maybe_text, text};
use crate::commands::orders::{AddItem, Cancel, Deliver, Paid, Pay, Place, RemoveItem, Ship};
use crate::domain::Order;
use crate::domain::order::{NewItem, NewPayment, PaymentOutcome, PlaceOrder, ShippingAddress};
use crate::store::{Command, Reply, Request, Store};

pub(super) const ITEMS_MAX: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOrder {
    customer_id: Uuid,
    items: Vec<OrderedItem>,
    shipping_address: ShippingAddress,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderedItem {
    product_id: Uuid,
    quantity: i64,
    price_cents: Option<i64>,
}

impl OrderedItem {
    fn minted(self) -> NewItem {
        let Self { product_id, quantity, price_cents } = self;
        NewItem { item_id: Uuid::now_v7(), product_id, quantity, price_cents }
    }
}

pub(super) async fn place(
    State(store): State<Store>,
    Ask { body, request, .. }: Ask<NewOrder>,
) -> Result<Response, Problem> {
    if body.items.len() > ITEMS_MAX {
        return Err(Problem::malformed("items", format!("at most {ITEMS_MAX}")));
    }
    let order = PlaceOrder {
        order_id: Uuid::now_v7(),
        items: body.items.into_iter().map(OrderedItem::minted).collect(),
        shipping_address: address(body.shipping_address)?,
    };
    let command = Place { customer_id: body.customer_id, order };
    Ok(answer(&store.execute(&command, &request, |order| told(StatusCode::CREATED, order)).await?))
}

fn address(address: ShippingAddress) -> Result<ShippingAddress, Problem> {
    Ok(ShippingAddress {
        street: maybe_text("shipping_address.street", address.street)?,
        city: text("shipping_address.city", address.city)?,
        zip: text("shipping_address.zip", address.zip)?,
        country: maybe_text("shipping_address.country", address.country)?,
    })
}

pub(super) async fn add_item(
    State(store): State<Store>,
    Path(order): Path<String>,
    Ask { body, request, .. }: Ask<OrderedItem>,
) -> Result<Response, Problem> {
    let command = AddItem { order_id: id("order", &order)?, item: body.minted() };
    let done = store.execute(&command, &request, |order| {
        let mut body = summary(order);
        body["item_id"] = json!(command.item.item_id);
        reply(StatusCode::CREATED, body, order.version)
    });
    Ok(answer(&done.await?))
}

pub(super) async fn remove_item(
    State(store): State<Store>,
    Path((order, item)): Path<(String, String)>,
    Ask { body: Nothing {}, request, .. }: Ask<Nothing>,
) -> Result<Response, Problem> {
    run(&store, RemoveItem { order_id: id("order", &order)?, item_id: id("item", &item)? }, &request).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cancellation {
    reason: String,
}

pub(super) async fn cancel(
    State(store): State<Store>,
    Path(order): Path<String>,
    Ask { body, request, .. }: Ask<Cancellation>,
) -> Result<Response, Problem> {
    let order_id = id("order", &order)?;
    run(&store, Cancel { order_id, reason: text("reason", body.reason)? }, &request).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shipment {
    tracking_number: String,
}

pub(super) async fn ship(
    State(store): State<Store>,
    Path(order): Path<String>,
    Ask { body, request, .. }: Ask<Shipment>,
) -> Result<Response, Problem> {
    let order_id = id("order", &order)?;
    let tracking_number = text("tracking_number", body.tracking_number)?;
    run(&store, Ship { order_id, tracking_number }, &request).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

pub(super) async fn deliver(
    State(store): State<Store>,
    Path(order): Path<String>,
    Ask { body: Nothing {}, request, .. }: Ask<Nothing>,
) -> Result<Response, Problem> {
    run(&store, Deliver { order_id: id("order", &order)? }, &request).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    #[default]
    Confirmed,
    Failed,
    Refunded,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PaymentReport {
    order_id: Uuid,
    amount_cents: i64,
    currency: String,
    #[serde(default)]
    status: Status,
    payment_id: Option<Uuid>,
    /// Why it failed.
    reason: Option<String>,
}

pub(super) async fn pay(
    State(store): State<Store>,
    Ask { body, request, .. }: Ask<PaymentReport>,
) -> Result<Response, Problem> {
    let reason = maybe_text("reason", body.reason)?;
    let (outcome, status) = match body.status {
        Status::Confirmed => (PaymentOutcome::Confirmed, "confirmed"),
        Status::Failed => (PaymentOutcome::Failed(reason), "failed"),
        Status::Refunded => (PaymentOutcome::Refunded, "refunded"),
    };
    let payment = NewPayment {
        payment_id: body.payment_id,
        amount_cents: body.amount_cents,
        currency: currency("currency", body.currency)?,
        outcome,
    };
    let command = Pay { order_id: body.order_id, payment, minted: Uuid::now_v7() };
    let done = store.execute(&command, &request, |Paid { payment_id, order }| {
        let body = json!({
            "payment_id": payment_id,
            "order_id": order.order_id,
            "status": status,
            "order_status": order.status,
            "paid_cents": order.paid_cents,
        });
        reply(StatusCode::CREATED, body, order.version)
    });
    Ok(answer(&done.await?))
}

async fn run(store: &Store, command: impl Command<Answer = Order>, request: &Request) -> Result<Response, Problem> {
    Ok(answer(&store.execute(&command, request, |order| told(StatusCode::OK, order)).await?))
}

fn summary(order: &Order) -> Json {
    json!({
        "order_id": order.order_id,
        "status": order.status,
        "item_count": order.items.len(),
        "total_amount_cents": order.total_amount_cents,
        "currency": order.currency,
    })
}

fn told(status: StatusCode, order: &Order) -> Reply {
    reply(status, summary(order), order.version)
}
