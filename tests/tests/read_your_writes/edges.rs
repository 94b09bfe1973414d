//! Tokens that can't be met, documents that aren't there yet, and who prefers something to nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{
    ALONE, eventually,
    processes::{Process, log},
    shop::Shop,
    stores::Stores,
    var,
    write_side::WriteSide,
};
use uuid::Uuid;

use super::poison::Poison;

/// A token as command-api writes it, made by Postgres.
async fn token_of(write_side: &WriteSide, parts: &Value) -> Result<String> {
    let sql = "select translate(encode(convert_to($1, 'UTF8'), 'base64'), E'+/=\\n', '-_')";
    Ok(sqlx::query_scalar(sql).bind(parts.to_string()).fetch_one(write_side.pool()).await?)
}

/// Epoch and transaction of an order's event.
async fn written(write_side: &WriteSide, order_id: &str, sequence: i64) -> Result<(String, i64)> {
    let sql = "select epoch, txid from events where stream_id = 'order-' || $1 and stream_position = $2";
    Ok(sqlx::query_as(sql).bind(order_id).bind(sequence).fetch_one(write_side.pool()).await?)
}

async fn ask(path: &str, headers: &[(&str, &str)]) -> Result<(u16, reqwest::header::HeaderMap, Value)> {
    let request = reqwest::Client::new().get(format!("{}{path}", var("QUERY_URL")?));
    let answer = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Ok((status, headers, serde_json::from_str(&answer.text().await?).unwrap_or(Value::Null)))
}

/// Queries of every read model that takes orders.
fn of_orders(shop: &Shop, order_id: &str) -> Vec<String> {
    let (customer, product) = (&shop.customer_id, &shop.product_id);
    [
        format!("/orders/{order_id}?"),
        format!("/orders/{order_id}/details?"),
        format!("/customers/{customer}/orders?"),
        "/orders?".into(),
        "/orders/search?".into(),
        "/orders/suggest?q=kettle&".into(),
        format!("/products/{product}/stats?"),
        "/reports/revenue?".into(),
        "/dashboard?".into(),
    ]
    .into()
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn a_token_of_a_dead_letter_is_never_answered_with_success() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (shop, write_side, stores) = (Shop::open().await?, WriteSide::connect().await?, Stores::connect().await?);
    let order_id = Uuid::now_v7();
    let poison = Poison::plant(order_id, &shop, &write_side).await?;
    let found = async {
        let id = order_id.to_string();
        let good = shop.place().await?.token;
        let mut problems = Vec::new();
        for sequence in [1, 2] {
            let (epoch, txid) = written(&write_side, &id, sequence).await?;
            let streams = json!([["order", id, sequence]]);
            let token =
                token_of(&write_side, &json!({"v": 1, "epoch": epoch, "txid": txid, "streams": streams})).await?;
            for query in of_orders(&shop, &id) {
                for tokens in [token.clone(), format!("{good},{token}")] {
                    for prefer in ["", "stale-ok"] {
                        let path = format!("{query}consistency_token={tokens}");
                        let (status, _, body) = ask(&path, &[("prefer", prefer)]).await?;
                        if (status, &body["type"]) != (503, &json!("/problems/parked")) {
                            problems.push(format!("{path}: {status} {body}"));
                        }
                    }
                }
            }
        }
        for path in [
            format!("/orders/{id}?min_seq=2"),
            format!("/orders/{id}/details?min_seq=2"),
            format!("/orders/{id}?consistency=strong"),
        ] {
            let (status, _, body) = ask(&path, &[]).await?;
            if (status, &body["type"]) != (503, &json!("/problems/parked")) {
                problems.push(format!("{path}: {status} {body}"));
            }
        }
        Ok::<_, anyhow::Error>(problems)
    }
    .await;
    poison.skip(&stores).await?;
    poison.forget(&stores, &write_side).await?;
    let problems = found?;
    ensure!(problems.is_empty(), "a dead letter was passed over: {problems:#?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn tokens_that_cannot_be_met_are_clear_errors() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (shop, write_side) = (Shop::open().await?, WriteSide::connect().await?);
    let order = shop.place().await?;
    let (epoch, txid) = written(&write_side, &order.order_id, 1).await?;
    shop.get(&format!("/orders/{}", order.order_id), &[("consistency_token", &order.token), ("wait_ms", "5000")])
        .await?;
    let id = order.order_id.as_str();
    let future = json!({"v": 1, "epoch": epoch, "txid": txid + 1_000_000_000, "streams": [["order", id, 9_000]]});
    let restored = json!({"v": 1, "epoch": "7.00000009", "txid": 5, "streams": [["order", id, 1]]});
    let cases = [
        (token_of(&write_side, &future).await?, 409, "unknown-event"),
        (token_of(&write_side, &restored).await?, 409, "unknown-epoch"),
        ("garbled!".to_owned(), 400, "invalid-token"),
        (order.token[..order.token.len() / 2].to_owned(), 400, "invalid-token"),
    ];
    for (token, status, name) in &cases {
        for query in of_orders(&shop, id) {
            let begin = Instant::now();
            let path = format!("{query}wait_ms=300&consistency_token={token}");
            let (found, _, body) = ask(&path, &[]).await?;
            assert_eq!((found, &body["type"]), (*status, &json!(format!("/problems/{name}"))), "{path}: {body}");
            assert!(begin.elapsed() < Duration::from_secs(3), "{path}: took {:?}", begin.elapsed());
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn what_is_not_there_yet_comes_from_the_write_database_and_says_so() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let projector = Process::running("projector-run")?;
    let held = projector.hold()?;
    let order = shop.place().await?;
    let id = &order.order_id;
    let mut stale = Vec::new();
    for path in
        [format!("/orders/{id}"), format!("/orders/{id}/details"), format!("/products/{}/stats", shop.product_id)]
    {
        stale.push((ask(&path, &[]).await?, path));
    }
    let behind = ask(&format!("/orders/{id}?wait_ms=200&consistency_token={}", order.token), &[]).await?;
    let preferred = ask(
        &format!("/customers/{}/orders?wait_ms=200&consistency_token={}", shop.customer_id, order.token),
        &[("prefer", "stale-ok")],
    )
    .await?;
    let nowhere = ask(&format!("/orders/{}", Uuid::now_v7()), &[]).await?;
    drop(held);
    for ((status, headers, body), path) in &stale {
        assert_eq!((*status, &body["freshness"]), (200, &json!("stale")), "{path}: {body}");
        assert_eq!(headers["read-model-freshness"], "stale", "{path}");
    }
    assert_eq!(stale[0].0.2["status"], "pending", "{:?}", stale[0]);
    assert_eq!(stale[1].0.2["items"][0]["product_name"], "Copper kettle", "{:?}", stale[1]);
    assert_eq!((behind.0, &behind.2["type"]), (503, &json!("/problems/read-model-behind")));
    assert_eq!((preferred.0, &preferred.2["freshness"]), (200, &json!("stale")), "{preferred:?}");
    assert_eq!(nowhere.0, 404, "{nowhere:?}");

    // An order that is nowhere but in the read model's past is asked for again: it is there, and it isn't stale any more.
    eventually(&format!("{id} in its read model, see {}", log("projector-run")), Duration::from_secs(20), || async {
        let (status, headers, _) = ask(&format!("/orders/{id}"), &[]).await?;
        Ok((status == 200 && !headers.contains_key("read-model-freshness")).then_some(()))
    })
    .await
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn an_answer_is_named_listed_and_streamed() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let order = shop.place().await?;
    let path = format!("/orders/{}?consistency=strong&wait_ms=5000", order.order_id);
    let (status, headers, body) = ask(&path, &[]).await?;
    assert_eq!((status, &body["version"]), (200, &json!(1)));
    let etag = headers["etag"].to_str()?;
    assert_eq!(ask(&path, &[("if-none-match", etag)]).await?.0, 304);

    let url = format!("{}/orders/{}", var("QUERY_URL")?, order.order_id);
    let mut stream = reqwest::Client::new().get(url).header("accept", "text/event-stream").send().await?;
    let first = String::from_utf8_lossy(&stream.chunk().await?.unwrap_or_default()).into_owned();
    assert!(first.starts_with("event: snapshot") && first.contains("pending"), "{first}");
    shop.pay(&order.order_id).await?;
    let next = tokio::time::timeout(Duration::from_secs(20), stream.chunk()).await??.unwrap_or_default();
    let next = String::from_utf8_lossy(&next).into_owned();
    assert!(next.starts_with("event: change") && next.contains("confirmed"), "{next}");

    // page by page, by the cursor, each order once
    for _ in 0..6 {
        shop.place().await?;
    }
    let last = shop.place().await?;
    for (query, list) in [
        (format!("/customers/{}/orders", shop.customer_id), "orders"),
        (format!("/orders?customer_id={}&sort=largest", shop.customer_id), "orders"),
    ] {
        let (mut seen, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let mut parameters = vec![("size", "3"), ("consistency_token", last.token.as_str()), ("wait_ms", "5000")];
            if let Some(cursor) = &cursor {
                parameters.push(("cursor", cursor));
            }
            let page = shop.get(&query, &parameters).await?;
            seen.extend(page[list].as_array().into_iter().flatten().map(|o| o["order_id"].to_string()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
            ensure!(seen.len() < 50, "{query}: no end: {seen:?}");
        }
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((all, seen.len()), (8, 8), "{query}");
    }
    let (status, headers, _) =
        ask(&format!("/customers/{}/orders", shop.customer_id), &[("accept", "text/csv")]).await?;
    assert_eq!((status, headers["content-type"].to_str()?), (200, "text/csv; charset=utf-8"));
    Ok(())
}
