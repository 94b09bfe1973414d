//! Products and their stock. What is available is what is on hand less what orders have reserved.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Aggregate, Time, Violation};

/// A product with its stock as they are now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the columns of `products` and `inventory`
pub struct Product {
    pub product_id: Uuid,
    #[serde(flatten)]
    pub details: Details,
    pub price_cents: i64,
    pub currency: String,
    pub on_hand: i64,
    pub reserved: i64,
    pub review_count: i64,
    pub rating_sum: i64,
    pub version: i64,
    pub created_at: Time,
    pub updated_at: Time,
}

/// How a product is described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Details {
    pub name: String,
    pub description: Option<String>,
    pub category: String,
    pub subcategory: Option<String>,
    pub tags: Vec<String>,
    pub image_url: Option<String>,
}

/// The events of `events.product`; their fields are documented in `schemas/product/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data")]
#[allow(missing_docs)]
pub enum ProductEvent {
    #[serde(rename = "ProductCreated")]
    Created {
        product_id: Uuid,
        #[serde(flatten)]
        details: Details,
        price_cents: i64,
        currency: String,
        on_hand: i64,
        created_at: Time,
    },
    #[serde(rename = "ProductDetailsChanged")]
    DetailsChanged {
        product_id: Uuid,
        #[serde(flatten)]
        details: Details,
    },
    PriceChanged {
        product_id: Uuid,
        price_cents: i64,
        previous_price_cents: i64,
        currency: String,
    },
    StockAdjusted {
        product_id: Uuid,
        delta: i64,
        reason: String,
        on_hand: i64,
        reserved: i64,
        available: i64,
    },
    InventoryReserved {
        product_id: Uuid,
        order_id: Uuid,
        quantity: i64,
        on_hand: i64,
        reserved: i64,
        available: i64,
    },
    InventoryReleased {
        product_id: Uuid,
        order_id: Uuid,
        quantity: i64,
        on_hand: i64,
        reserved: i64,
        available: i64,
    },
    ReviewAdded {
        product_id: Uuid,
        review_id: Uuid,
        customer_id: Uuid,
        rating: i64,
        text: Option<String>,
        review_count: i64,
        rating_sum: i64,
        reviewed_at: Time,
    },
}

/// What a customer says about a product.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Review {
    pub review_id: Uuid,
    pub customer_id: Uuid,
    /// 1 to 5.
    pub rating: i64,
    pub text: Option<String>,
}

impl Product {
    /// Pieces that may be ordered.
    #[must_use]
    pub fn available(&self) -> i64 {
        self.on_hand - self.reserved
    }

    /// An event for each thing that is another than before.
    #[must_use]
    pub fn change(&self, details: Details, price_cents: i64) -> Vec<ProductEvent> {
        let product_id = self.product_id;
        let mut events = Vec::new();
        if details != self.details {
            events.push(ProductEvent::DetailsChanged { product_id, details });
        }
        if price_cents != self.price_cents {
            let (previous_price_cents, currency) = (self.price_cents, self.currency.clone());
            events.push(ProductEvent::PriceChanged { product_id, price_cents, previous_price_cents, currency });
        }
        events
    }

    /// Pieces come in (above 0) or go out.
    ///
    /// # Errors
    /// Fewer would be on hand than are reserved.
    pub fn adjust_stock(&self, delta: i64, reason: String) -> Result<ProductEvent, Violation> {
        let on_hand = self.on_hand.checked_add(delta).ok_or(Violation::AmountTooLarge)?;
        let reserved = self.reserved;
        if on_hand < reserved {
            return Err(Violation::StockBelowReserved { delta, on_hand, reserved });
        }
        let product_id = self.product_id;
        Ok(ProductEvent::StockAdjusted { product_id, delta, reason, on_hand, reserved, available: on_hand - reserved })
    }

    /// An order takes pieces.
    ///
    /// # Errors
    /// Fewer are available.
    pub fn reserve(&self, order_id: Uuid, quantity: i64) -> Result<ProductEvent, Violation> {
        let (product_id, on_hand, available) = (self.product_id, self.on_hand, self.available());
        if quantity > available {
            return Err(Violation::InsufficientStock { product_id, available, wanted: quantity });
        }
        let (reserved, available) = (self.reserved + quantity, available - quantity);
        Ok(ProductEvent::InventoryReserved { product_id, order_id, quantity, on_hand, reserved, available })
    }

    /// A customer says what they think of it.
    ///
    /// # Errors
    /// The rating isn't from 1 to 5.
    pub fn review(&self, review: Review, now: Time) -> Result<ProductEvent, Violation> {
        let Review { review_id, customer_id, rating, text } = review;
        if !(1..=5).contains(&rating) {
            return Err(Violation::RatingOutOfRange(rating));
        }
        Ok(ProductEvent::ReviewAdded {
            product_id: self.product_id,
            review_id,
            customer_id,
            rating,
            text,
            review_count: self.review_count + 1,
            rating_sum: self.rating_sum + rating,
            reviewed_at: now,
        })
    }

    /// An order gives pieces back.
    #[must_use]
    pub fn release(&self, order_id: Uuid, quantity: i64) -> ProductEvent {
        let (product_id, on_hand, reserved) = (self.product_id, self.on_hand, self.reserved - quantity);
        ProductEvent::InventoryReleased {
            product_id,
            order_id,
            quantity,
            on_hand,
            reserved,
            available: on_hand - reserved,
        }
    }
}

impl Aggregate for Product {
    const TYPE: &'static str = "product";
    type Event = ProductEvent;

    fn evolve(state: Option<Self>, event: &ProductEvent, at: Time) -> Option<Self> {
        if let ProductEvent::Created { product_id, details, price_cents, currency, on_hand, .. } = event {
            return Some(Self {
                product_id: *product_id,
                details: details.clone(),
                price_cents: *price_cents,
                currency: currency.clone(),
                on_hand: *on_hand,
                reserved: 0,
                review_count: 0,
                rating_sum: 0,
                version: 1,
                created_at: at,
                updated_at: at,
            });
        }
        let mut next = state?;
        match event {
            ProductEvent::Created { .. } => {}
            ProductEvent::DetailsChanged { details, .. } => next.details = details.clone(),
            ProductEvent::PriceChanged { price_cents, .. } => next.price_cents = *price_cents,
            ProductEvent::StockAdjusted { on_hand, reserved, .. }
            | ProductEvent::InventoryReserved { on_hand, reserved, .. }
            | ProductEvent::InventoryReleased { on_hand, reserved, .. } => {
                (next.on_hand, next.reserved) = (*on_hand, *reserved);
            }
            ProductEvent::ReviewAdded { review_count, rating_sum, .. } => {
                (next.review_count, next.rating_sum) = (*review_count, *rating_sum);
            }
        }
        next.version += 1;
        next.updated_at = at;
        Some(next)
    }

    fn id(&self) -> String {
        self.product_id.to_string()
    }

    fn version(&self) -> i64 {
        self.version
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::domain) fn product(id: u128, price_cents: i64, on_hand: i64) -> Product {
        let details = Details {
            name: format!("product {id}"),
            description: None,
            category: "things".to_owned(),
            subcategory: None,
            tags: vec![],
            image_url: None,
        };
        let product_id = Uuid::from_u128(id);
        let (currency, created_at) = ("USD".to_owned(), Time::UNIX_EPOCH);
        let created = ProductEvent::Created { product_id, details, price_cents, currency, on_hand, created_at };
        Product::evolve(None, &created, created_at).unwrap()
    }

    fn then(state: Product, event: &ProductEvent) -> Product {
        Product::evolve(Some(state), event, Time::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn reserving_takes_from_what_is_available_only() {
        let product = product(1, 100, 5);
        let product = then(product.clone(), &product.reserve(Uuid::nil(), 4).unwrap());
        assert_eq!((product.on_hand, product.reserved, product.available(), product.version), (5, 4, 1, 2));
        let broken = Violation::InsufficientStock { product_id: Uuid::from_u128(1), available: 1, wanted: 2 };
        assert_eq!(product.reserve(Uuid::nil(), 2), Err(broken));
        let product = then(product.clone(), &product.release(Uuid::nil(), 4));
        assert_eq!((product.on_hand, product.reserved), (5, 0));
    }

    #[test]
    fn reserved_pieces_cannot_be_counted_away() {
        let product = product(1, 100, 5);
        let product = then(product.clone(), &product.reserve(Uuid::nil(), 4).unwrap());
        let broken = Violation::StockBelowReserved { delta: -2, on_hand: 3, reserved: 4 };
        assert_eq!(product.adjust_stock(-2, "lost".to_owned()), Err(broken));
        assert_eq!(then(product.clone(), &product.adjust_stock(-1, "lost".to_owned()).unwrap()).available(), 0);
    }

    #[test]
    fn only_what_changes_gives_an_event() {
        let product = product(1, 100, 5);
        assert_eq!(product.change(product.details.clone(), 100), vec![]);
        let events = product.change(Details { name: "new".to_owned(), ..product.details.clone() }, 120);
        let after = events.iter().fold(product, then);
        assert_eq!((after.details.name.as_str(), after.price_cents, after.version), ("new", 120, 3));
    }

    #[test]
    fn reviews_are_counted_and_summed_up() {
        let product = product(1, 100, 5);
        let review = |rating| Review { review_id: Uuid::nil(), customer_id: Uuid::nil(), rating, text: None };
        for rating in [0, 6, -1] {
            let broken = Violation::RatingOutOfRange(rating);
            assert_eq!(product.review(review(rating), Time::UNIX_EPOCH), Err(broken));
        }
        let product = then(product.clone(), &product.review(review(5), Time::UNIX_EPOCH).unwrap());
        let product = then(product.clone(), &product.review(review(2), Time::UNIX_EPOCH).unwrap());
        assert_eq!((product.review_count, product.rating_sum, product.version), (2, 7, 3));
    }

    proptest! {
        #[test]
        fn stock_is_never_negative(steps in prop::collection::vec((0..3u8, -20..20i64), 0..50)) {
            let mut product = product(1, 100, 10);
            let mut held = 0;
            for (what, n) in steps {
                let event = match what {
                    0 => product.adjust_stock(n, String::new()).ok(),
                    1 if n > 0 => product.reserve(Uuid::nil(), n).ok().inspect(|_| held += n),
                    2 if n > 0 && n <= held => { held -= n; Some(product.release(Uuid::nil(), n)) }
                    _ => None,
                };
                if let Some(event) = event { product = then(product, &event); }
                prop_assert!(product.available() >= 0 && product.reserved == held);
            }
        }
    }
}
