//! A service as the load sees it: send a request, tell ok, refused and failed apart.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};

use super::tpch::{Address, CURRENCY, Customer, Line, Name, Product};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const READY_WITHIN: Duration = Duration::from_secs(15);
/// Enough that neither limit is ever the reason of a refusal.
const CREDIT_LIMIT_CENTS: i64 = 1_000_000_000_000;
const STOCK: i64 = 10_000_000;

/// command-api, or the query service.
#[derive(Debug, Clone)]
pub(super) struct Service {
    http: reqwest::Client,
    base: String,
}

/// A command, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Value,
    /// Where the sender keeps the trace.
    pub(super) trace: Option<Trace>,
}

impl Request {
    pub(super) fn new(method: Method, path: impl Into<String>, body: Value) -> Self {
        Self { method, path: path.into(), body, trace: None }
    }

    pub(super) fn post(path: impl Into<String>, body: Value) -> Self {
        Self::new(Method::POST, path, body)
    }
}

/// A trace that the sender began and keeps, as `traceparent` says it (W3C Trace Context).
#[derive(Debug, Clone)]
pub(super) struct Trace(String);

impl Trace {
    pub(super) fn begin() -> Self {
        let (trace, span) = (uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple().to_string());
        Self(format!("00-{trace}-{}-01", &span[..16]))
    }
}

/// How a request ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Accepted(Answer),
    /// A 4xx, by the last segment of its problem type.
    Refused {
        problem: String,
        detail: String,
    },
    /// A 5xx, no answer, or an answer that isn't JSON.
    Failed(String),
}

/// A success.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Value,
    /// How long the service says its events took to be appended and committed.
    pub(super) append: Option<Duration>,
}

impl Service {
    pub(super) fn new(url: &str) -> Result<Self> {
        Self::with_timeout(url, REQUEST_TIMEOUT)
    }

    pub(super) fn with_timeout(url: &str, timeout: Duration) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(timeout)
            // loopback: small requests must not wait for each other's acknowledgements
            .tcp_nodelay(true)
            .build()
            .context("can't set up the HTTP client")?;
        Ok(Self { http, base: url.trim_end_matches('/').to_owned() })
    }

    #[cfg(test)]
    pub(super) fn timing_out_after(self, timeout: Duration) -> Result<Self> {
        Self::with_timeout(&self.base, timeout)
    }

    pub(super) async fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let last = match self.http.get(format!("{}/health/ready", self.base)).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => format!("{}/health/ready answers {}", self.base, answer.status()),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() >= deadline {
                bail!(last);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Sends a command.
    pub(super) async fn send(&self, request: &Request) -> Outcome {
        let Request { method, path, body, trace } = request;
        outcome(self.http.request(method.clone(), format!("{}{path}", self.base)).json(body), trace.as_ref()).await
    }

    /// Asks a query.
    pub(super) async fn get(&self, path: &str, parameters: &[(&str, String)], trace: Option<&Trace>) -> Outcome {
        outcome(self.http.get(format!("{}{path}", self.base)).query(parameters), trace).await
    }
}

async fn outcome(mut request: reqwest::RequestBuilder, trace: Option<&Trace>) -> Outcome {
    if let Some(Trace(parent)) = trace {
        request = request.header("traceparent", parent);
    }
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) if error.is_timeout() => return Outcome::Failed("timed out".to_owned()),
        Err(error) => return Outcome::Failed(format!("{:#}", anyhow::Error::from(error.without_url()))),
    };
    let status = answer.status();
    let append = answer.headers().get("server-timing").and_then(|value| append(value.to_str().ok()?));
    let body: Value = match answer.json().await {
        Ok(body) => body,
        Err(_) => return Outcome::Failed(format!("{status} without a JSON body")),
    };
    if status.is_success() {
        return Outcome::Accepted(Answer { body, append });
    }
    let problem = body["type"].as_str().unwrap_or("about:blank");
    let problem = problem.rsplit('/').next().unwrap_or(problem).to_owned();
    if status.is_client_error() {
        let detail = body["detail"].as_str().unwrap_or_default().to_owned();
        Outcome::Refused { problem, detail }
    } else {
        // Without the detail: errors are counted by their reason.
        Outcome::Failed(format!("{} {problem}", status.as_u16()))
    }
}

/// `append;dur=1.234` of a `Server-Timing` header.
fn append(header: &str) -> Option<Duration> {
    let ms = header.split(',').find_map(|metric| metric.trim().strip_prefix("append;dur="))?;
    ms.parse::<f64>().ok().and_then(|ms| Duration::try_from_secs_f64(ms / 1_000.0).ok())
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

pub(super) fn order(customer_id: &str, lines: &[Line], product_ids: &[String], address: &Address) -> Request {
    let items: Vec<_> =
        lines.iter().map(|line| json!({"product_id": product_ids[line.product], "quantity": line.quantity})).collect();
    let body = json!({
        "customer_id": customer_id,
        "items": items,
        "shipping_address": {
            "street": address.street,
            "city": address.city,
            "zip": address.zip,
            "country": address.country,
        },
    });
    Request::post("/orders", body)
}

pub(super) fn payment(order_id: &str, amount_cents: i64, status: &str) -> Request {
    let body = json!({"order_id": order_id, "amount_cents": amount_cents, "currency": CURRENCY, "status": status});
    Request::post("/payments", body)
}

/// Money that comes, goes or changes hands; `payload` is what the verb needs beside the currency.
pub(super) fn account(verb: &str, account_id: &str, mut payload: Value) -> Request {
    let what = if verb == "open" { "ACCOUNT" } else { "FUNDS" };
    payload["currency"] = json!(CURRENCY);
    let body = json!({
        "command_id": uuid::Uuid::new_v4(),
        "command_type": format!("{}_{what}", verb.to_uppercase()),
        "aggregate_id": account_id,
        "payload": payload,
        "created_at": "2026-05-23T10:00:00.123Z",
    });
    Request::post(format!("/v1/commands/accounts/{verb}"), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_append_is_read() {
        assert_eq!(append("append;dur=1.250"), Some(Duration::from_micros(1_250)));
        assert_eq!(append("db;dur=9, append;dur=2"), Some(Duration::from_millis(2)));
        assert_eq!(append("append;dur=x").or_else(|| append("total;dur=1")), None);
    }
}
