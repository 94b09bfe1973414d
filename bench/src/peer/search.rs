//! Orders to be searched: a scripted update an event, in bulk requests.

use super::event::Event;
use super::{INDEX, Store};
use anyhow::{Result, ensure};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use std::time::Duration;

const TRIES_MAX: u64 = 10;
const GUARD: &str = include_str!("guard.painless");

pub(super) struct Search {
    client: reqwest::Client,
    bulk: String,
}

impl Search {
    pub(super) fn new(url: &str) -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        // Of the answers, only what went wrong.
        Ok(Self { client, bulk: format!("{url}/{INDEX}/_bulk?filter_path=errors,items.*.error") })
    }
}

impl Search {
    async fn send(&self, body: Bytes) -> Result<()> {
        let request = self.client.post(&self.bulk).header("content-type", "application/x-ndjson").body(body);
        let answer: Json = request.send().await?.error_for_status()?.json().await?;
        ensure!(answer["errors"] == false, "_bulk: {}", answer["items"]);
        Ok(())
    }
}

impl Store for Search {
    async fn write(&mut self, events: &[Event]) -> Result<()> {
        let mut body = String::with_capacity(events.len() * 1_024);
        for event in events {
            let update = json!({
                "scripted_upsert": true, "upsert": {},
                "script": { "lang": "painless", "source": GUARD, "params": changes(event) }
            });
            body.push_str(&format!("{}\n{update}\n", json!({"update": {"_id": event.order_id}})));
        }
        let (body, mut tries) = (Bytes::from(body), 0);
        loop {
            tries += 1;
            match self.send(body.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) if tries == TRIES_MAX => return Err(error),
                // It may be busy, or only a part was refused: by the guard, sending all of it again changes nothing twice.
                Err(error) => eprintln!("again, since {error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(100 * tries)).await;
        }
    }
}

/// What the script is told of an event.
fn changes(event: &Event) -> Json {
    let data = &event.data;
    let set = |fields: Json| json!({"seq": event.sequence, "set": fields});
    let status = |status: &str| set(json!({"status": status}));
    let names = |field: &str| -> Json {
        data["items"].as_array().into_iter().flatten().map(|item| item[field].clone()).collect::<Vec<_>>().into()
    };
    match event.event_type.as_str() {
        "OrderPlaced" => set(json!({
            "order_id": data["order_id"], "customer_id": data["customer_id"], "customer_name": data["customer_name"],
            "status": "pending", "currency": data["currency"], "total_amount_cents": data["total_amount_cents"],
            "products": names("product_name"), "item_ids": names("item_id"), "placed_at": data["placed_at"],
        })),
        "ItemAdded" => {
            let mut changes = set(json!({"total_amount_cents": data["total_amount_cents"]}));
            changes["add"] = data["item"].clone();
            changes
        }
        "ItemRemoved" => {
            let mut changes = set(json!({"total_amount_cents": data["total_amount_cents"]}));
            changes["remove"] = data["item_id"].clone();
            changes
        }
        "PaymentConfirmed" | "PaymentRefunded" => set(json!({"status": data["order_status"]})),
        "OrderShipped" => status("shipped"),
        "OrderDelivered" => status("delivered"),
        "OrderCancelled" => status("cancelled"),
        _ => set(json!({})),
    }
}
