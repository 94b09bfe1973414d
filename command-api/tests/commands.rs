//! Commands against the real Postgres: one transaction each, and races.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Row;
use support::replay::replay_gives_the_tables;
use support::{Service, order, problem};

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn placing_writes_state_events_and_outbox_in_one_transaction() {
    let service = Service::start().await;
    let (customer, product) = (service.customer(None).await, service.product(1_250, 10).await);
    let placed = service.ok("/api/orders", &order(&customer, &product, 2)).await;
    assert_eq!((&placed["status"], &placed["sequence_number"]), (&json!("pending"), &json!(1)));

    let token = URL_SAFE_NO_PAD.decode(placed["consistency_token"].as_str().unwrap()).unwrap();
    let token: Value = serde_json::from_slice(&token).unwrap();
    assert_eq!(token["streams"], json!([["order", placed["order_id"], 1], ["product", product, 2]]));
    let rows = sqlx::query("select event_type, txid, epoch, created_at, payload, schema_version from events where txid = $1 order by global_position")
        .bind(token["txid"].as_i64().unwrap())
        .fetch_all(&service.pool)
        .await
        .unwrap();
    let types: Vec<String> = rows.iter().map(|row| row.get("event_type")).collect();
    assert_eq!(types, ["OrderPlaced", "InventoryReserved"]);
    assert_eq!(rows[0].get::<String, _>("epoch"), token["epoch"].as_str().unwrap());
    assert_eq!(rows[0].get::<Vec<u8>, _>("payload")[0], 0);
    // the row versions say which transaction wrote them
    let tables = "select count(distinct x) from (
        select xmin::text x from orders union all select xmin::text from order_items union all select xmin::text from inventory
        union all select xmin::text from outbox where aggregate_type = 'order'
        union all select xmin::text from events where aggregate_type = 'order') rows";
    assert_eq!(service.number(tables).await, 1);
    assert_eq!(service.number("select reserved from inventory").await, 2);
    let same = "select count(*) from orders o join events e on e.aggregate_id = o.order_id::text
                where o.created_at = e.created_at and o.updated_at = e.created_at and o.placed_at = e.created_at and o.version = e.stream_position";
    assert_eq!(service.number(same).await, 1);
    service.assert_sound().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_refused_command_leaves_nothing_behind() {
    let service = Service::start().await;
    let (customer, product) = (service.customer(None).await, service.product(1_250, 3).await);
    let nobody = uuid::Uuid::now_v7().to_string();
    let mut dearer = order(&customer, &product, 1);
    dearer["items"][0]["price_cents"] = json!(1_249);
    for (body, rule) in [
        (order(&nobody, &product, 1), "unknown-customer"),
        (order(&customer, &nobody, 1), "unknown-product"),
        (order(&customer, &product, 4), "insufficient-stock"),
        (order(&customer, &product, 0), "quantity-not-positive"),
        (dearer, "price-changed"),
    ] {
        let (status, answer) = service.post("/orders", &body).await;
        assert_eq!((status, problem(&answer)), (422, &*format!("/problems/{rule}")), "{answer}");
    }
    let (_, answer) = service.post("/orders", &order(&nobody, &product, 1)).await;
    assert!(answer["detail"].as_str().unwrap().contains(&nobody));
    assert_eq!(service.number("select count(*) from orders").await, 0);
    assert_eq!(service.number("select count(*) from events").await, 2);
    let payment = json!({"order_id": nobody, "amount_cents": 1, "currency": "USD"});
    assert_eq!(problem(&service.post("/payments", &payment).await.1), "/problems/unknown-order");
    let (status, _) = service.post(&format!("/orders/{nobody}/deliver"), &json!({})).await;
    assert_eq!(status, 404);
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn of_two_hundred_orders_for_the_last_unit_one_wins() {
    let service = Service::start().await;
    let product = service.product(1_250, 1).await;
    let customers = join_all((0..5).map(|_| service.customer(None))).await;
    let bodies: Vec<Value> = (0..200).map(|n| order(&customers[n % 5], &product, 1)).collect();
    let answers = join_all(bodies.iter().map(|body| service.post("/orders", body))).await;
    let won = answers.iter().filter(|(status, _)| *status == 201).count();
    assert_eq!(won, 1);
    for (status, answer) in answers.iter().filter(|(status, _)| *status != 201) {
        assert_eq!((*status, problem(answer)), (422, "/problems/insufficient-stock"), "{answer}");
    }
    assert_eq!(service.number("select reserved from inventory").await, 1);
    service.assert_sound().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn the_credit_limit_holds_under_a_race() {
    let service = Service::start().await;
    let (customer, product) = (service.customer(Some(5_500)).await, service.product(1_000, 1_000).await);
    let body = order(&customer, &product, 1);
    let answers = join_all((0..40).map(|_| service.post("/orders", &body))).await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 201).count(), 5);
    let refused = answers.iter().filter(|(_, answer)| problem(answer) == "/problems/credit-limit-exceeded").count();
    assert_eq!(refused, 35);
    // what is paid is no longer owed
    let id = answers.iter().find(|(status, _)| *status == 201).unwrap().1["order_id"].clone();
    service.ok("/payments", &json!({"order_id": id, "amount_cents": 1_000, "currency": "USD"})).await;
    service.ok("/orders", &body).await;
    service.assert_sound().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn crossing_orders_of_many_products_do_not_deadlock() {
    let service = Service::start().await;
    let products = join_all((0..4).map(|_| service.product(1_000, 10_000))).await;
    let customers = join_all((0..4).map(|_| service.customer(None))).await;
    let bodies = (0..120).map(|n| {
        let mut body = order(&customers[n % 4], &products[0], 1);
        let rotated = (0..4).map(|k| json!({"product_id": products[(n + k * (1 + n % 3)) % 4], "quantity": 1}));
        body["items"] = rotated.collect();
        body
    });
    let bodies: Vec<Value> = bodies.collect();
    let answers = join_all(bodies.iter().map(|body| service.post("/orders", body))).await;
    assert!(
        answers.iter().all(|(status, _)| *status == 201),
        "{:?}",
        answers.iter().find(|(status, _)| *status != 201)
    );
    assert_eq!(service.number("select sum(reserved)::bigint from inventory").await, 480);
    service.assert_sound().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn replaying_the_events_gives_every_state_table() {
    let service = Service::start().await;
    let (customer, kettle, cup) =
        (service.customer(None).await, service.product(1_250, 100).await, service.product(400, 100).await);
    service.ok("/customers", &json!({"name": "Bob B. Old", "email": "bob@example.com"})).await;
    let change = json!({"name": "Ada King", "email": "king@example.com", "credit_limit_cents": 1_000_000});
    assert_eq!(service.send(Method::PATCH, &format!("/customers/{customer}"), &change).await.0, 200);
    let change = json!({"price_cents": 1_300, "tags": ["new"], "description": "copper"});
    assert_eq!(service.send(Method::PATCH, &format!("/products/{kettle}"), &change).await.1["sequence_number"], 3);
    service.ok(&format!("/products/{cup}/stock"), &json!({"delta": -7, "reason": "broken"})).await;
    for rating in [5, 2] {
        let review = json!({"customer_id": customer, "rating": rating, "text": "boils"});
        service.ok(&format!("/products/{kettle}/reviews"), &review).await;
    }

    let pay = async |id: &Value, cents: i64, status: &str| {
        service
            .ok("/payments", &json!({"order_id": id, "amount_cents": cents, "currency": "USD", "status": status}))
            .await
    };
    for (n, end) in ["pending", "cancelled", "delivered", "refunded", "cancelled then refunded"].into_iter().enumerate()
    {
        let id = service.ok("/orders", &order(&customer, &kettle, 1)).await["order_id"].clone();
        let path = |verb: &str| format!("/orders/{}/{verb}", id.as_str().unwrap());
        let added = service.ok(&path("items"), &json!({"product_id": cup, "quantity": 2})).await;
        assert_eq!(added["total_amount_cents"], 2_100);
        if n % 2 == 0 {
            let item = format!("/orders/{}/items/{}", id.as_str().unwrap(), added["item_id"].as_str().unwrap());
            assert_eq!(service.send(Method::DELETE, &item, &json!({})).await.0, 200);
        }
        let total = if n % 2 == 0 { 1_300 } else { 2_100 };
        match end {
            "cancelled" => _ = service.ok(&path("cancel"), &json!({"reason": "no"})).await,
            "delivered" => {
                pay(&id, total, "failed").await;
                pay(&id, total - 1_000, "confirmed").await;
                assert_eq!(pay(&id, 1_000, "confirmed").await["order_status"], "confirmed");
                service.ok(&path("ship"), &json!({"tracking_number": "T"})).await;
                assert_eq!(service.ok(&path("deliver"), &json!({})).await["status"], "delivered");
            }
            "refunded" => {
                pay(&id, total, "confirmed").await;
                pay(&id, 500, "refunded").await;
            }
            "cancelled then refunded" => {
                pay(&id, total, "confirmed").await;
                service.ok(&path("cancel"), &json!({"reason": "no"})).await;
                pay(&id, total, "refunded").await;
            }
            _ => {}
        }
    }
    assert_eq!(replay_gives_the_tables(&service.pool).await, [2, 2, 5]);
    service.assert_sound().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn one_payment_id_pays_one_order_also_under_a_race() {
    let service = Service::start().await;
    let (customer, product) = (service.customer(None).await, service.product(1_000, 100).await);
    let body = order(&customer, &product, 1);
    let orders = join_all((0..12).map(|_| service.ok("/orders", &body))).await;
    let payment_id = uuid::Uuid::now_v7();
    let pay = async |order: &Value| {
        let body =
            json!({"order_id": order["order_id"], "amount_cents": 1_000, "currency": "USD", "payment_id": payment_id});
        service.post("/payments", &body).await
    };
    let answers = join_all(orders.iter().map(pay)).await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 201).count(), 1);
    assert_eq!(answers.iter().filter(|(_, answer)| problem(answer) == "/problems/payment-exists").count(), 11);
    assert_eq!(service.number("select count(*) from orders where status = 'confirmed'").await, 1);
    service.assert_sound().await;
    service.stop().await;
}
