//! The command-api as the load sees it: post a body, tell ok, refused and failed apart.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::tpch::{Address, CURRENCY, Customer, Line, Name, Product};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const READY_WITHIN: Duration = Duration::from_secs(15);
/// Enough that neither limit is ever the reason of a refusal.
const CREDIT_LIMIT_CENTS: i64 = 1_000_000_000_000;
const STOCK: i64 = 10_000_000;

#[derive(Debug, Clone)]
pub(super) struct CommandApi {
    http: reqwest::Client,
    base: String,
}

/// How a command ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Accepted(Value),
    /// A 4xx, by the last segment of its problem type.
    Refused {
        problem: String,
        detail: String,
    },
    /// A 5xx, no answer, or an answer that isn't JSON.
    Failed(String),
}

impl CommandApi {
    pub(super) fn new(url: &str) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            // loopback: small requests must not wait for each other's acknowledgements
            .tcp_nodelay(true)
            .build()
            .context("can't set up the HTTP client")?;
        Ok(Self { http, base: url.trim_end_matches('/').to_owned() })
    }

    pub(super) async fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let last = match self.http.get(format!("{}/health/ready", self.base)).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => format!("/health/ready answers {}", answer.status()),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() >= deadline {
                bail!(last);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Outcome {
        let answer = match self.http.post(format!("{}{path}", self.base)).json(body).send().await {
            Ok(answer) => answer,
            Err(error) if error.is_timeout() => return Outcome::Failed("timed out".to_owned()),
            Err(error) => return Outcome::Failed(format!("{:#}", anyhow::Error::from(error))),
        };
        let status = answer.status();
        let body: Value = match answer.json().await {
            Ok(body) => body,
            Err(_) => return Outcome::Failed(format!("{status} without a JSON body")),
        };
        if status.is_success() {
            return Outcome::Accepted(body);
        }
        let problem = body["type"].as_str().unwrap_or("about:blank");
        let problem = problem.rsplit('/').next().unwrap_or(problem).to_owned();
        let detail = body["detail"].as_str().unwrap_or_default().to_owned();
        if status.is_client_error() {
            Outcome::Refused { problem, detail }
        } else {
            Outcome::Failed(format!("{status} {problem}: {detail}"))
        }
    }
}

pub(super) fn customer(customer: &Customer) -> Value {
    let mut body = match &customer.name {
        Name::Whole(name) => json!({"name": name}),
        Name::Parts { first, last } => json!({"first_name": first, "last_name": last}),
    };
    body["email"] = json!(customer.email);
    body["credit_limit_cents"] = json!(CREDIT_LIMIT_CENTS);
    body
}

pub(super) fn product(product: &Product) -> Value {
    let mut body = json!({
        "name": product.name,
        "category": product.category,
        "subcategory": product.subcategory,
        "description": product.description,
        "tags": product.tags,
        "price_cents": product.price_cents,
        "currency": CURRENCY,
        "stock": STOCK,
    });
    if let Some(url) = &product.image_url {
        body["image_url"] = json!(url);
    }
    body
}

pub(super) fn order(customer_id: &str, lines: &[Line], product_ids: &[String], address: &Address) -> Value {
    let items: Vec<_> =
        lines.iter().map(|line| json!({"product_id": product_ids[line.product], "quantity": line.quantity})).collect();
    json!({
        "customer_id": customer_id,
        "items": items,
        "shipping_address": {
            "street": address.street,
            "city": address.city,
            "zip": address.zip,
            "country": address.country,
        },
    })
}

pub(super) fn payment(order_id: &str, amount_cents: i64, status: &str) -> Value {
    json!({
        "order_id": order_id,
        "amount_cents": amount_cents,
        "currency": CURRENCY,
        "status": status,
    })
}
