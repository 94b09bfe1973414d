//! The shop over HTTP: commands to command-api, queries to the query service.

use anyhow::{Context, Result, ensure};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::var;

/// A client of both services, with a customer and two products of its own.
#[derive(Debug, Clone)]
pub struct Shop {
    http: reqwest::Client,
    commands: String,
    queries: String,
    /// Who places the orders.
    pub customer_id: String,
    /// Costs 1,250 cents.
    pub product_id: String,
    /// Costs 990 cents, has no image.
    pub other_product_id: String,
}

/// The answer to a command on an order.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The order.
    pub order_id: String,
    /// Its sequence after the command.
    pub sequence_number: u64,
    /// Covers all that the command touched.
    pub token: String,
}

/// Total of every order that [`Shop::place`] places.
pub const TOTAL_CENTS: i64 = 2 * 1_250 + 990;
const CURRENCY: &str = "USD";

impl Shop {
    /// Registers the customer and creates the products.
    ///
    /// # Errors
    /// When a service doesn't answer or refuses.
    pub async fn open() -> Result<Self> {
        crate::tools::services_up().await?;
        let mut shop = Self {
            http: reqwest::Client::new(),
            commands: var("COMMAND_API_URL")?,
            queries: var("QUERY_URL")?,
            customer_id: String::new(),
            product_id: String::new(),
            other_product_id: String::new(),
        };
        let email = format!("{}@example.com", uuid::Uuid::new_v4());
        let customer = json!({"first_name": "Ada", "last_name": "Lamport", "email": email, "credit_limit_cents": 1_000_000_000_i64});
        shop.customer_id = text(&shop.post("/customers", &customer).await?, "customer_id")?;
        let product = json!({"name": "Copper kettle", "category": "Kitchen", "price_cents": 1_250, "currency": CURRENCY,
            "stock": 1_000_000, "image_url": "https://images.example.com/kettle.webp"});
        shop.product_id = text(&shop.post("/products", &product).await?, "product_id")?;
        let product = json!({"name": "Tin whistle", "category": "Music", "price_cents": 990, "currency": CURRENCY, "stock": 1_000_000});
        shop.other_product_id = text(&shop.post("/products", &product).await?, "product_id")?;
        shop.open_account().await?;
        Ok(shop)
    }

    /// So that no read model of accounts is empty, which the audit would call a difference.
    async fn open_account(&self) -> Result<()> {
        let id = format!("acc-{}", self.customer_id);
        for (verb, command_type, payload) in [
            ("open", "OPEN_ACCOUNT", json!({"currency": CURRENCY})),
            ("deposit", "DEPOSIT_FUNDS", json!({"amount_cents": 5_000, "currency": CURRENCY})),
        ] {
            let body = json!({"command_id": format!("{id}-{verb}"), "command_type": command_type, "aggregate_id": id,
                "payload": payload, "created_at": "2026-05-23T10:00:00Z"});
            self.post(&format!("/v1/commands/accounts/{verb}"), &body).await?;
        }
        Ok(())
    }

    /// Places an order of two lines, [`TOTAL_CENTS`] in all.
    ///
    /// # Errors
    /// When it isn't accepted.
    pub async fn place(&self) -> Result<Placed> {
        placed(&self.post("/orders", &self.order()).await?)
    }

    /// What [`Self::place`] sends.
    #[must_use]
    pub fn order(&self) -> Value {
        json!({
            "customer_id": self.customer_id,
            "items": [{"product_id": self.product_id, "quantity": 2}, {"product_id": self.other_product_id, "quantity": 1}],
            "shipping_address": {"street": "1 Main Street", "city": "Zurich", "zip": "8001", "country": "CH"},
        })
    }

    /// Pays the whole of an order of [`Shop::place`].
    ///
    /// # Errors
    /// When it isn't accepted.
    pub async fn pay(&self, order_id: &str) -> Result<Placed> {
        let body =
            json!({"order_id": order_id, "amount_cents": TOTAL_CENTS, "currency": CURRENCY, "status": "confirmed"});
        placed(&self.post("/payments", &body).await?)
    }

    /// `POST /orders/{id}/{verb}`: ship, deliver, cancel.
    ///
    /// # Errors
    /// When it isn't accepted.
    pub async fn act(&self, order_id: &str, verb: &str, body: &Value) -> Result<Placed> {
        placed(&self.post(&format!("/orders/{order_id}/{verb}"), body).await?)
    }

    /// A command that must be accepted.
    ///
    /// # Errors
    /// When it isn't, with the problem.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let answer = self.http.post(format!("{}{path}", self.commands)).json(body).send().await?;
        success(answer).await.with_context(|| format!("POST {path} {body}"))
    }

    /// A change that must be accepted.
    ///
    /// # Errors
    /// When it isn't, with the problem.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        let answer = self.http.patch(format!("{}{path}", self.commands)).json(body).send().await?;
        success(answer).await.with_context(|| format!("PATCH {path} {body}"))
    }

    /// A query that must be answered.
    ///
    /// # Errors
    /// When it isn't, with the problem.
    pub async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        success(self.get_raw(path, parameters).await?).await.with_context(|| format!("GET {path} {parameters:?}"))
    }

    /// A query, whatever comes of it.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get_raw(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Response> {
        Ok(self.http.get(format!("{}{path}", self.queries)).query(parameters).send().await?)
    }
}

async fn success(answer: Response) -> Result<Value> {
    let status = answer.status();
    let body = answer.text().await?;
    ensure!(matches!(status, StatusCode::OK | StatusCode::CREATED), "{status}: {body}");
    serde_json::from_str(&body).with_context(|| format!("not JSON: {body}"))
}

fn placed(answer: &Value) -> Result<Placed> {
    Ok(Placed {
        order_id: text(answer, "order_id")?,
        sequence_number: answer["sequence_number"]
            .as_u64()
            .with_context(|| format!("no sequence_number in {answer}"))?,
        token: text(answer, "consistency_token")?,
    })
}

/// A text field of an answer.
///
/// # Errors
/// When it isn't there.
pub fn text(answer: &Value, field: &str) -> Result<String> {
    answer[field].as_str().map(str::to_owned).with_context(|| format!("no {field} in {answer}"))
}
