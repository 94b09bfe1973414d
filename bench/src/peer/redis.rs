//! Orders at a glance, as hashes.

use super::event::Event;
use super::{REDIS_DATABASE, REDIS_PREFIX, Store};
use anyhow::Result;
use redis::aio::MultiplexedConnection;
use serde_json::Value as Json;

const GUARD: &str = include_str!("guard.lua");

pub(super) struct Redis {
    connection: MultiplexedConnection,
    guard: String,
}

impl Redis {
    pub(super) async fn connect(url: &str) -> Result<Self> {
        let client = redis::Client::open(format!("{url}/{REDIS_DATABASE}"))?;
        let settings = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
        let guard = redis::cmd("SCRIPT").arg("LOAD").arg(GUARD).query_async(&mut connection).await?;
        Ok(Self { connection, guard })
    }
}

impl Store for Redis {
    async fn write(&mut self, events: &[Event]) -> Result<()> {
        let mut pipeline = redis::Pipeline::with_capacity(events.len());
        for event in events {
            let command = pipeline.cmd("EVALSHA").arg(&self.guard).arg(1);
            command.arg(format!("{REDIS_PREFIX}{}", event.order_id)).arg(event.sequence);
            for (name, value) in changes(event) {
                command.arg(name).arg(value);
            }
            command.ignore();
        }
        pipeline.exec_async(&mut self.connection).await?;
        Ok(())
    }
}

/// The fields that an event sets.
fn changes(event: &Event) -> Vec<(&'static str, String)> {
    let text = |name: &'static str| {
        let value = match &event.data[name] {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        (name, value)
    };
    let status = |status: &str| vec![("status", status.to_owned())];
    let mut changes = match event.event_type.as_str() {
        "OrderPlaced" => {
            let copied = ["order_id", "customer_id", "customer_name", "item_count", "total_amount_cents", "currency"];
            let mut all: Vec<_> = copied.into_iter().map(text).collect();
            all.extend(status("pending"));
            all
        }
        "ItemAdded" | "ItemRemoved" => vec![text("item_count"), text("total_amount_cents")],
        "PaymentConfirmed" | "PaymentRefunded" => vec![("status", text("order_status").1)],
        "OrderShipped" => status("shipped"),
        "OrderDelivered" => status("delivered"),
        "OrderCancelled" => status("cancelled"),
        _ => Vec::new(),
    };
    changes.push(("updated_at", event.occurred_at.clone()));
    changes
}
