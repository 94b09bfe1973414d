//! `POST /products`, `PATCH /products/{id}`, `POST /products/{id}/stock`, `/reviews`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::answer::{answer, reply};
use super::problem::Problem;
use super::request::{Ask, currency, id, maybe_text, not_negative, present, text};
use crate::commands::products::{AddReview, AdjustStock, Change, Create, ProductChange};
use crate::domain::Product;
use crate::domain::product::{Details, Review};
use crate::store::{Reply, Store};

pub(super) const TAGS_MAX: usize = 50;

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
    Ask { body, request, .. }: Ask<NewProduct>,
) -> Result<Response, Problem> {
    let command = Create {
        product_id: Uuid::now_v7(),
        details: Details {
            name: text("name", body.name)?,
            description: maybe_text("description", body.description)?,
            category: text("category", body.category)?,
            subcategory: maybe_text("subcategory", body.subcategory)?,
            tags: tags(body.tags)?,
            image_url: maybe_text("image_url", body.image_url)?,
        },
        price_cents: not_negative("price_cents", body.price_cents)?,
        currency: currency("currency", body.currency)?,
        on_hand: not_negative("stock", body.stock)?,
    };
    Ok(answer(&store.execute(&command, &request, |product| told(StatusCode::CREATED, product)).await?))
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
    Ask { body, request, .. }: Ask<ProductPatch>,
) -> Result<Response, Problem> {
    let maybe = |field: &str, value: Option<Option<String>>| value.map(|value| maybe_text(field, value)).transpose();
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
    Ok(answer(&store.execute(&command, &request, |product| told(StatusCode::OK, product)).await?))
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
    Ask { body, request, .. }: Ask<StockAdjustment>,
) -> Result<Response, Problem> {
    let command =
        AdjustStock { product_id: id("product", &product)?, delta: body.delta, reason: text("reason", body.reason)? };
    Ok(answer(&store.execute(&command, &request, |product| told(StatusCode::OK, product)).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewReview {
    customer_id: Uuid,
    rating: i64,
    text: Option<String>,
}

pub(super) async fn review(
    State(store): State<Store>,
    Path(product): Path<String>,
    Ask { body, request, .. }: Ask<NewReview>,
) -> Result<Response, Problem> {
    let review_id = Uuid::now_v7();
    let text = maybe_text("text", body.text)?;
    let review = Review { review_id, customer_id: body.customer_id, rating: body.rating, text };
    let command = AddReview { product_id: id("product", &product)?, review };
    let done = store.execute(&command, &request, |product| {
        let body = json!({
            "product_id": product.product_id,
            "review_id": review_id,
            "review_count": product.review_count,
        });
        reply(StatusCode::CREATED, body, product.version)
    });
    Ok(answer(&done.await?))
}

fn tags(tags: Vec<String>) -> Result<Vec<String>, Problem> {
    if tags.len() > TAGS_MAX {
        return Err(Problem::malformed("tags", format!("at most {TAGS_MAX}")));
    }
    tags.into_iter().enumerate().map(|(n, tag)| text(&format!("tags[{n}]"), tag)).collect()
}

fn told(status: StatusCode, product: &Product) -> Reply {
    let body = json!({
        "product_id": product.product_id,
        "price_cents": product.price_cents,
        "available": product.available(),
    });
    reply(status, body, product.version)
}
