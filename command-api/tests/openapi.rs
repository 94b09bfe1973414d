//! The description of the endpoints, held against the service itself: first without a database, then with random requests.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use command_api::http::{Consistency, router};
use command_api::store::{Codec, Options, Store};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use support::Service;
use uuid::Uuid;

/// Method, path and operation of all endpoints.
async fn operations(url: &str) -> Vec<(Method, String, Value)> {
    let document: Value = Client::new().get(format!("{url}/openapi.json")).send().await.unwrap().json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut all = vec![];
    for (path, verbs) in document["paths"].as_object().unwrap() {
        for (verb, operation) in verbs.as_object().unwrap() {
            all.push((verb.to_uppercase().parse().unwrap(), path.clone(), operation.clone()));
        }
    }
    all
}

fn body_schema(operation: &Value) -> Option<&Value> {
    operation["requestBody"]["content"]["application/json"].get("schema")
}

async fn send(url: &str, method: &Method, path: &str, body: &Value) -> (u16, Value) {
    let answer = Client::new().request(method.clone(), format!("{url}{path}")).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// A request that is well-formed gets as far as the database, which is nowhere: 503. Others get 400 and the field.
#[tokio::test]
async fn bodies_are_read_as_they_are_described() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let pool =
        PgPoolOptions::new().acquire_timeout(Duration::from_millis(50)).connect_lazy("postgres://x@127.0.0.1:9/x");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let store = Store::new(pool.unwrap(), Codec::default(), Options::default());
    tokio::spawn(axum::serve(listener, router(store, Consistency::none())).into_future());

    let all = operations(&url).await;
    assert!(all.len() > 20, "{}", all.len());
    let mut bodies = 0;
    for (method, path, operation) in &all {
        let Some(schema) = body_schema(operation) else { continue };
        bodies += 1;
        let path = path.replace("{id}", &Uuid::nil().to_string());
        let example = &schema["examples"][0];
        let (status, answer) = send(&url, method, &path, example).await;
        assert_eq!(status, 503, "{path}: the example is refused: {answer}");
        for required in schema["required"].as_array().unwrap() {
            let mut body = example.clone();
            body.as_object_mut().unwrap().remove(required.as_str().unwrap());
            let (status, answer) = send(&url, method, &path, &body).await;
            // a part of the body that is missing is named by what it should have had
            let named = answer["field"].as_str().unwrap_or_default().split('.').next();
            assert_eq!((status, named), (400, required.as_str()), "{path}: {answer}");
        }
        for name in schema["properties"].as_object().unwrap().keys() {
            let mut body = example.clone();
            body[name] = json!([[1]]);
            let (status, answer) = send(&url, method, &path, &body).await;
            let unknown = answer["detail"].as_str().unwrap_or_default().contains("unknown field");
            assert!(status == 400 && !unknown, "{path} {name}: {status} {answer}");
        }
        let mut body = example.clone();
        body["surely_not"] = json!(1);
        assert_eq!(send(&url, method, &path, &body).await.0, 400, "{path}");
    }
    assert!(bodies >= 17, "{bodies}");
    let page = Client::new().get(format!("{url}/api/docs")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("/v1/commands/accounts/transfer") && page.contains("Place an order"));
}

/// Numbers that depend on the seed alone.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }

    fn one(&mut self, of: &[Value]) -> Value {
        of[self.below(of.len())].clone()
    }

    /// Something that fits the schema, or nearly, or not at all. `ids` are things that exist.
    fn value(&mut self, schema: &Value, ids: &[Value]) -> Value {
        let kind = schema["type"].as_str().or(schema["type"][0].as_str()).unwrap_or("string");
        if self.below(25) == 0 {
            return self.one(&[
                Value::Null,
                json!(-1),
                json!(1.5),
                json!("\0"),
                json!([]),
                json!({}),
                json!(true),
                json!(u64::MAX),
            ]);
        }
        match kind {
            "integer" => {
                let edges = [&schema["minimum"], &schema["maximum"]].map(|edge| edge.as_i64().unwrap_or(0));
                let near = [
                    json!(edges[0]),
                    json!(edges[1]),
                    json!(edges[0].wrapping_sub(1)),
                    json!(edges[1].wrapping_add(1)),
                ];
                if self.below(3) == 0 { self.one(&near) } else { json!(self.below(5_000)) }
            }
            "array" => (0..self.below(4)).map(|_| self.value(&schema["items"], ids)).collect(),
            "object" => self.object(schema, ids),
            "boolean" => json!(self.below(2) == 0),
            _ if schema.get("const").is_some() => schema["const"].clone(),
            _ if schema.get("enum").is_some() => self.one(schema["enum"].as_array().unwrap()),
            _ if schema["pattern"].is_string() => self.one(&[json!("USD"), json!("USD"), json!("EUR"), json!("usd")]),
            _ if schema["format"] == "date-time" => self.one(&[
                json!("2026-05-23T10:00:00.123Z"),
                json!("+262142-01-01T00:00:00Z"),
                json!("-0001-01-01T00:00:00Z"),
                json!("x"),
            ]),
            _ => {
                let texts = [
                    json!("a@b"),
                    json!(""),
                    json!("x".repeat(3_000)),
                    json!("Ünïcødé 🦀 \u{202e}"),
                    json!("' or 1=1 --"),
                    json!("a\u{0}b"),
                ];
                if self.below(4) == 0 { self.one(&texts) } else { self.one(ids) }
            }
        }
    }

    fn object(&mut self, schema: &Value, ids: &[Value]) -> Value {
        let mut object = json!({});
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, schema) in schema["properties"].as_object().unwrap() {
            let needed = required.iter().any(|required| required == name);
            if self.below(30) > 0 && (needed || self.below(2) == 0) {
                object[name] = self.value(schema, ids);
            }
        }
        object
    }
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn no_request_is_answered_with_a_server_error() {
    let service = Service::start().await;
    let (customer, product) = (service.customer(None).await, service.product(1_250, 1_000_000).await);
    service.account("acc-1").await;
    service.account("acc-2").await;
    let placed = service.ok("/orders", &support::order(&customer, &product, 2)).await;
    let order = placed["order_id"].as_str().unwrap();
    let mut ids: Vec<Value> = [&*customer, &*product, order, "acc-1", "acc-2"].map(|id| json!(id)).to_vec();
    let all = operations(&service.url).await;
    let mut chance = Chance(0x5eed_1234_5678);
    let (mut accepted, mut refused) = (0, 0);
    let names: Vec<String> =
        vec![customer.clone(), product.clone(), order.to_owned(), "nonsense".into(), "%00".into(), "a%2Fb".into()];
    for round in 0..60 {
        for (method, path, operation) in &all {
            let stream = ["order-", "product-", "account-", ""][chance.below(4)];
            let id =
                format!("{}{}", if path.contains("streams") { stream } else { "" }, names[chance.below(names.len())]);
            let mut target = path.replace("{id}", &id).replace("{item_id}", &Uuid::new_v4().to_string());
            if path.contains("streams") {
                let queries = [
                    "",
                    "?at=1",
                    "?at=-1",
                    "?at=%2B262142-01-01T00:00:00Z",
                    "?at=0001-01-01T00:00:00Z",
                    "?limit=9999999999999999999",
                    "?after=x",
                    "?what=1",
                    "?after=%00",
                    "?limit=3",
                ];
                target.push_str(queries[chance.below(queries.len())]);
            }
            let body = body_schema(operation).map_or(Value::Null, |schema| {
                // as described, but for one field, or altogether at random
                if chance.below(2) == 0 {
                    chance.object(schema, &ids)
                } else {
                    let mut body = schema["examples"][0].clone();
                    let fields: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
                    let name = fields[chance.below(fields.len())];
                    body[name] = chance.value(&schema["properties"][name], &ids);
                    for (name, id) in [("customer_id", &customer), ("product_id", &product)] {
                        if body.get(name).is_some_and(|id| id.as_str() != Some("")) {
                            body[name] = json!(id);
                        }
                    }
                    if body.get("command_id").is_some() {
                        body["command_id"] = json!(format!("c{round}-{path}"));
                        body["aggregate_id"] = json!("acc-1");
                    }
                    body
                }
            });
            let key = format!("k{}", chance.below(200));
            let header = if chance.below(3) == 0 { ("idempotency-key", key.as_str()) } else { ("if-match", "*") };
            let (status, answer) = service.with_header(method.clone(), &target, header, &body).await;
            assert!(status < 500, "{method} {target} {body}: {status} {answer}");
            if status < 300 {
                accepted += 1
            } else {
                refused += 1
            }
            if let Some(id) = answer.get("order_id").filter(|_| ids.len() < 40) {
                ids.push(id.clone());
            }
        }
    }
    println!("{accepted} requests accepted, {refused} refused");
    assert!(accepted > 100 && refused > 100);
    service.assert_sound().await;
    service.stop().await;
}
