//! Commands on products.

use uuid::Uuid;

use crate::domain::product::{Details, Product, ProductEvent, Review};
use crate::domain::{Aggregate, Violation};
use crate::store::streams::stream_id;
use crate::store::{Command, CommandError, UnitOfWork};
use crate::tables::{customers, products};

/// A product joins the catalogue.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Create {
    pub product_id: Uuid,
    pub details: Details,
    pub price_cents: i64,
    pub currency: String,
    pub on_hand: i64,
}

impl Command for Create {
    type Answer = Product;

    fn streams(&self) -> Vec<String> {
        Vec::new()
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Product, CommandError> {
        let event = ProductEvent::Created {
            product_id: self.product_id,
            details: self.details.clone(),
            price_cents: self.price_cents,
            currency: self.currency.clone(),
            on_hand: self.on_hand,
            created_at: unit.now(),
        };
        let product = unit.begin_stream(&event)?;
        products::insert(unit.connection(), &product).await?;
        Ok(product)
    }
}

/// What may change about a product; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct ProductChange {
    pub name: Option<String>,
    pub description: Option<Option<String>>,
    pub category: Option<String>,
    pub subcategory: Option<Option<String>>,
    pub tags: Option<Vec<String>>,
    pub image_url: Option<Option<String>>,
    pub price_cents: Option<i64>,
}

impl ProductChange {
    fn details(&self, before: &Details) -> Details {
        Details {
            name: self.name.clone().unwrap_or_else(|| before.name.clone()),
            description: self.description.clone().unwrap_or_else(|| before.description.clone()),
            category: self.category.clone().unwrap_or_else(|| before.category.clone()),
            subcategory: self.subcategory.clone().unwrap_or_else(|| before.subcategory.clone()),
            tags: self.tags.clone().unwrap_or_else(|| before.tags.clone()),
            image_url: self.image_url.clone().unwrap_or_else(|| before.image_url.clone()),
        }
    }
}

/// Something about a product changes.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Change {
    pub product_id: Uuid,
    pub change: ProductChange,
}

impl Command for Change {
    type Answer = Product;

    fn streams(&self) -> Vec<String> {
        vec![stream_id(Product::TYPE, &self.product_id.to_string())]
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Product, CommandError> {
        let before = existing(unit, self.product_id).await?;
        let price_cents = self.change.price_cents.unwrap_or(before.price_cents);
        let events = before.change(self.change.details(&before.details), price_cents);
        write(unit, before, &events).await
    }
}

/// Pieces come in or go out.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct AdjustStock {
    pub product_id: Uuid,
    pub delta: i64,
    pub reason: String,
}

impl Command for AdjustStock {
    type Answer = Product;

    fn streams(&self) -> Vec<String> {
        vec![stream_id(Product::TYPE, &self.product_id.to_string())]
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Product, CommandError> {
        let before = existing(unit, self.product_id).await?;
        let event = before.adjust_stock(self.delta, self.reason.clone())?;
        write(unit, before, &[event]).await
    }
}

/// A customer says what they think of a product.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct AddReview {
    pub product_id: Uuid,
    pub review: Review,
}

impl Command for AddReview {
    type Answer = Product;

    fn streams(&self) -> Vec<String> {
        vec![stream_id(Product::TYPE, &self.product_id.to_string())]
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Product, CommandError> {
        let customer = self.review.customer_id;
        // Customers stay, so this one needs no lock.
        if !customers::exists(unit.connection(), customer).await? {
            return Err(Violation::UnknownCustomer(customer).into());
        }
        let before = existing(unit, self.product_id).await?;
        let event = before.review(self.review.clone(), unit.now())?;
        write(unit, before, &[event]).await
    }
}

async fn existing(unit: &mut UnitOfWork<'_>, id: Uuid) -> Result<Product, CommandError> {
    let found = products::lock(unit.connection(), &[id]).await?.pop();
    let product = found.ok_or(CommandError::NotFound { aggregate: "product", id })?;
    unit.check_expected(&product)?;
    Ok(product)
}

async fn write(unit: &mut UnitOfWork<'_>, before: Product, events: &[ProductEvent]) -> Result<Product, CommandError> {
    let after = unit.record(before, events)?;
    if !events.is_empty() {
        products::update(unit.connection(), std::slice::from_ref(&after)).await?;
    }
    Ok(after)
}
