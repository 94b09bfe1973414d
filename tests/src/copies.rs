//! Orders faster than commands can place them: copies of one that was placed, written straight to the write database. Each has
//! rows in the state tables, an event and an outbox row, as command-api would write them, so the audit knows it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sqlx::PgPool;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::write_side::WriteSide;

/// A transaction every so often.
const EVERY: Duration = Duration::from_millis(100);

/// Copies of the order $1, in one transaction. The epoch is that of the columns' defaults, asked for once.
const COPY: &str = "
with life as materialized (
    select outbox_epoch() as epoch
), copies as (
    select * from unnest($2::uuid[], $3::uuid[], $4::bytea[], $5::text[]) as c(order_id, event_id, payload, data)
), lines as (
    select * from unnest($6::uuid[], $7::uuid[], $8::uuid[]) as l(order_id, item_id, sample_id)
), placed as (
    insert into orders
    select r.* from orders o cross join copies c
    cross join lateral jsonb_populate_record(o, jsonb_build_object('order_id', c.order_id)) as r
    where o.order_id = $1
), listed as (
    insert into order_items
    select r.* from lines l join order_items i on i.item_id = l.sample_id
    cross join lateral jsonb_populate_record(i, jsonb_build_object('order_id', l.order_id, 'item_id', l.item_id)) as r
), sample as (
    select * from events where aggregate_type = 'order' and aggregate_id = $1::text and stream_position = 1
), stored as (
    insert into events (stream_id, stream_position, event_id, aggregate_type, aggregate_id, event_type, schema_version,
                        data, payload, metadata, epoch, created_at)
    select 'order-' || c.order_id, 1, c.event_id, 'order', c.order_id::text, s.event_type, s.schema_version,
           c.data::jsonb, c.payload, s.metadata, life.epoch, s.created_at
    from sample s cross join copies c cross join life
)
insert into outbox (outbox_id, aggregate_type, aggregate_id, sequence, event_type, schema_version, payload, occurred_at, metadata,
                    epoch)
select c.event_id, 'order', c.order_id::text, 1, s.event_type, s.schema_version, c.payload, s.created_at, s.metadata, life.epoch
from sample s cross join copies c cross join life";

/// What is copied: an order as it was placed, and nothing since.
#[derive(Debug)]
pub struct Copies {
    pool: PgPool,
    order_id: Uuid,
    items: Vec<Uuid>,
    payload: Vec<u8>,
    data: String,
}

impl Copies {
    /// Reads the order that is to be copied.
    ///
    /// # Errors
    /// When it isn't there, or more than its placing happened to it.
    pub async fn of(write_side: &WriteSide, order_id: &str) -> Result<Self> {
        let pool = write_side.pool().clone();
        let order_id: Uuid = order_id.parse()?;
        let events: Vec<(Vec<u8>, String)> = sqlx::query_as(
            "select payload, data::text from events where aggregate_type = 'order' and aggregate_id = $1",
        )
        .bind(order_id.to_string())
        .fetch_all(&pool)
        .await?;
        ensure!(events.len() == 1, "{} events of order {order_id}: only a placed one can be copied", events.len());
        let (payload, data) = events.into_iter().next().context("no event")?;
        let items = sqlx::query_scalar("select item_id from order_items where order_id = $1");
        let items = items.bind(order_id).fetch_all(&pool).await?;
        Ok(Self { pool, order_id, items, payload, data })
    }

    /// Writes so many copies, at most `rate` a second: a slow machine takes longer for them.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn write(&self, rate: usize, total: usize) -> Result<()> {
        let each = rate * usize::try_from(EVERY.as_millis())? / 1_000;
        let mut slots = tokio::time::interval(EVERY);
        // what a slow moment missed is made up for
        slots.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut left = total;
        while left > 0 {
            slots.tick().await;
            self.write_some(each.min(left)).await?;
            left -= each.min(left);
        }
        Ok(())
    }

    async fn write_some(&self, count: usize) -> Result<()> {
        let (mut orders, mut events, mut payloads, mut datas) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut line_orders, mut line_items, mut line_samples) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let order_id = Uuid::now_v7();
            let mut changes = vec![(self.order_id, order_id)];
            for item in &self.items {
                let copy = Uuid::now_v7();
                changes.push((*item, copy));
                line_orders.push(order_id);
                line_items.push(copy);
                line_samples.push(*item);
            }
            let mut data = self.data.clone();
            changes.iter().for_each(|(from, to)| data = data.replace(&from.to_string(), &to.to_string()));
            orders.push(order_id);
            events.push(Uuid::now_v7());
            payloads.push(with_other_ids(&self.payload, &changes));
            datas.push(data);
        }
        sqlx::query(COPY)
            .bind(self.order_id)
            .bind(orders)
            .bind(events)
            .bind(payloads)
            .bind(datas)
            .bind(line_orders)
            .bind(line_items)
            .bind(line_samples)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Ids are text of one length in Avro too, so the bytes around them stay what they are.
fn with_other_ids(payload: &[u8], changes: &[(Uuid, Uuid)]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    for (from, to) in changes {
        let (from, to) = (from.to_string().into_bytes(), to.to_string().into_bytes());
        let mut at = 0;
        while at + from.len() <= payload.len() {
            if payload[at..at + from.len()] == from[..] {
                payload[at..at + to.len()].copy_from_slice(&to);
                at += to.len();
            } else {
                at += 1;
            }
        }
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_replaced_wherever_they_stand() {
        let (a, b, c) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        let payload = format!("\u{0}H{a}H{b}x{a}");
        let copied = with_other_ids(payload.as_bytes(), &[(a, c)]);
        assert_eq!(copied, format!("\u{0}H{c}H{b}x{c}").into_bytes());
    }
}
