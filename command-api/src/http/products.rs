//! `POST /products`, `PATCH /products/{id}`, `POST /products/{id}/stock`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::answer::answer;
use super::problem::Problem;
use super::request::{Body, Metadata, currency, id, not_negative, optional_text, present, text};
use crate::commands::products::{AdjustStock, Change, Create, ProductChange};
use crate::domain::Product;
use crate::domain::product::Details;
use crate::store::{Done, Store};

const TAGS_MAX: usize = 50;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewProduct {
    name: String,
    category: String,
    subcategory: Option<String>,
    description: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    price_cents: i64,
    currency: String,
    image_url: Option<String>,
    #[serde(default)]
    stock: i64,
}

pub(super) async fn create(
    State(store): State<Store>,
    Metadata(metadata): Metadata,
    Body(body): Body<NewProduct>,
) -> Result<Response, Problem> {
    let maybe = |field: &str, value: Option<String>| value.map(|value| optional_text(field, value)).transpose();
    let command = Create {
        product_id: Uuid::now_v7(),
        details: Details {
            name: text("name", body.name)?,
            description: maybe("description", body.description)?,
            category: text("category", body.category)?,
            subcategory: maybe("subcategory", body.subcategory)?,
            tags: tags(body.tags)?,
            image_url: maybe("image_url", body.image_url)?,
        },
        price_cents: not_negative("price_cents", body.price_cents)?,
        currency: currency("currency", body.currency)?,
        on_hand: not_negative("stock", body.stock)?,
    };
    Ok(answered(StatusCode::CREATED, &store.execute(&command, &metadata).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProductPatch {
    name: Option<String>,
    category: Option<String>,
    #[serde(default, deserialize_with = "present")]
    subcategory: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    description: Option<Option<String>>,
    tags: Option<Vec<String>>,
    price_cents: Option<i64>,
    #[serde(default, deserialize_with = "present")]
    image_url: Option<Option<String>>,
}

pub(super) async fn change(
    State(store): State<Store>,
    Path(product): Path<String>,
    Metadata(metadata): Metadata,
    Body(body): Body<ProductPatch>,
) -> Result<Response, Problem> {
    let maybe = |field: &str, value: Option<Option<String>>| {
        value.map(|value| value.map(|value| optional_text(field, value)).transpose()).transpose()
    };
    let change = ProductChange {
        name: body.name.map(|value| text("name", value)).transpose()?,
        description: maybe("description", body.description)?,
        category: body.category.map(|value| text("category", value)).transpose()?,
        subcategory: maybe("subcategory", body.subcategory)?,
        tags: body.tags.map(tags).transpose()?,
        image_url: maybe("image_url", body.image_url)?,
        price_cents: body.price_cents.map(|value| not_negative("price_cents", value)).transpose()?,
    };
    let command = Change { product_id: id("product", &product)?, change };
    Ok(answered(StatusCode::OK, &store.execute(&command, &metadata).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StockAdjustment {
    delta: i64,
    reason: String,
}

pub(super) async fn adjust_stock(
    State(store): State<Store>,
    Path(product): Path<String>,
    Metadata(metadata): Metadata,
    Body(body): Body<StockAdjustment>,
) -> Result<Response, Problem> {
    let command =
        AdjustStock { product_id: id("product", &product)?, delta: body.delta, reason: text("reason", body.reason)? };
    Ok(answered(StatusCode::OK, &store.execute(&command, &metadata).await?))
}

fn tags(tags: Vec<String>) -> Result<Vec<String>, Problem> {
    if tags.len() > TAGS_MAX {
        return Err(Problem::malformed("tags", format!("at most {TAGS_MAX}")));
    }
    tags.into_iter().enumerate().map(|(n, tag)| text(&format!("tags[{n}]"), tag)).collect()
}

fn answered(status: StatusCode, done: &Done<Product>) -> Response {
    let product = &done.answer;
    let body = json!({
        "product_id": product.product_id,
        "price_cents": product.price_cents,
        "available": product.available(),
    });
    answer(status, body, product.version, &done.receipt)
}
