//! `POST /orders` and what follows it, payments included.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::answer::answer;
use super::problem::Problem;
use super::request::{Body, Metadata, currency, id, optional_text, text};
use crate::commands::orders::{AddItem, Cancel, Deliver, Pay, Place, RemoveItem, Ship};
use crate::domain::Order;
use crate::domain::order::{NewItem, NewPayment, PaymentOutcome, PlaceOrder, ShippingAddress};
use crate::store::{Command, Done, Store};

const ITEMS_MAX: usize = 100;

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
    Metadata(metadata): Metadata,
    Body(body): Body<NewOrder>,
) -> Result<Response, Problem> {
    if body.items.len() > ITEMS_MAX {
        return Err(Problem::malformed("items", format!("at most {ITEMS_MAX}")));
    }
    let order = PlaceOrder {
        order_id: Uuid::now_v7(),
        items: body.items.into_iter().map(OrderedItem::minted).collect(),
        shipping_address: address(body.shipping_address)?,
    };
    let done = store.execute(&Place { customer_id: body.customer_id, order }, &metadata).await?;
    Ok(answered(StatusCode::CREATED, &done))
}

fn address(address: ShippingAddress) -> Result<ShippingAddress, Problem> {
    let maybe = |field: &str, value: Option<String>| value.map(|value| optional_text(field, value)).transpose();
    Ok(ShippingAddress {
        street: maybe("shipping_address.street", address.street)?,
        city: text("shipping_address.city", address.city)?,
        zip: text("shipping_address.zip", address.zip)?,
        country: maybe("shipping_address.country", address.country)?,
    })
}

pub(super) async fn add_item(
    State(store): State<Store>,
    Path(order): Path<String>,
    Metadata(metadata): Metadata,
    Body(body): Body<OrderedItem>,
) -> Result<Response, Problem> {
    let command = AddItem { order_id: id("order", &order)?, item: body.minted() };
    let done = store.execute(&command, &metadata).await?;
    let mut body = summary(&done.answer);
    body["item_id"] = json!(command.item.item_id);
    Ok(answer(StatusCode::CREATED, body, done.answer.version, &done.receipt))
}

pub(super) async fn remove_item(
    State(store): State<Store>,
    Path((order, item)): Path<(String, String)>,
    Metadata(metadata): Metadata,
) -> Result<Response, Problem> {
    run(&store, RemoveItem { order_id: id("order", &order)?, item_id: id("item", &item)? }, &metadata).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cancellation {
    reason: String,
}

pub(super) async fn cancel(
    State(store): State<Store>,
    Path(order): Path<String>,
    Metadata(metadata): Metadata,
    Body(body): Body<Cancellation>,
) -> Result<Response, Problem> {
    let order_id = id("order", &order)?;
    run(&store, Cancel { order_id, reason: text("reason", body.reason)? }, &metadata).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shipment {
    tracking_number: String,
}

pub(super) async fn ship(
    State(store): State<Store>,
    Path(order): Path<String>,
    Metadata(metadata): Metadata,
    Body(body): Body<Shipment>,
) -> Result<Response, Problem> {
    let order_id = id("order", &order)?;
    let tracking_number = text("tracking_number", body.tracking_number)?;
    run(&store, Ship { order_id, tracking_number }, &metadata).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

pub(super) async fn deliver(
    State(store): State<Store>,
    Path(order): Path<String>,
    Metadata(metadata): Metadata,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Response, Problem> {
    run(&store, Deliver { order_id: id("order", &order)? }, &metadata).await
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
    Metadata(metadata): Metadata,
    Body(body): Body<PaymentReport>,
) -> Result<Response, Problem> {
    let reason = body.reason.map(|reason| optional_text("reason", reason)).transpose()?;
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
    let done = store.execute(&Pay { order_id: body.order_id, payment, minted: Uuid::now_v7() }, &metadata).await?;
    let order = &done.answer.order;
    let body = json!({
        "payment_id": done.answer.payment_id,
        "order_id": order.order_id,
        "status": status,
        "order_status": order.status,
        "paid_cents": order.paid_cents,
    });
    Ok(answer(StatusCode::CREATED, body, order.version, &done.receipt))
}

async fn run(store: &Store, command: impl Command<Answer = Order>, metadata: &Json) -> Result<Response, Problem> {
    Ok(answered(StatusCode::OK, &store.execute(&command, metadata).await?))
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

fn answered(status: StatusCode, done: &Done<Order>) -> Response {
    answer(status, summary(&done.answer), done.answer.version, &done.receipt)
}
