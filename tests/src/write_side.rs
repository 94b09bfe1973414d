//! The write database, asked and tampered with directly.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sqlx::{PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

use crate::var;

/// An event and its outbox row in one statement, hence one transaction: epoch, txid and tx_min are computed by the
/// columns' defaults, which say what command-api's store says.
const APPEND: &str = "
with stored as (
    insert into events (stream_id, stream_position, event_id, aggregate_type, aggregate_id, event_type, schema_version,
                        data, payload, created_at)
    values ('order-' || $1, $2, $3, 'order', $1, $4, $5, '{}', $6, now())
)
insert into outbox (outbox_id, aggregate_type, aggregate_id, sequence, event_type, schema_version, payload, occurred_at)
values ($3, 'order', $1, $2, $4, $5, $6, now())";

/// A connection to the write database.
#[derive(Clone, Debug)]
pub struct WriteSide(PgPool);

/// An event that was written before, to be written again by [`WriteSide::append`] as another one.
#[derive(Clone, Debug)]
pub struct Sample {
    event_type: &'static str,
    schema_version: i32,
    /// In the wire format: a zero, four bytes of schema id, the datum.
    pub payload: Vec<u8>,
}

impl WriteSide {
    /// Connects by the environment.
    ///
    /// # Errors
    /// When Postgres doesn't answer.
    pub async fn connect() -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(1).connect(&var("WRITE_DATABASE_URL")?).await?;
        Ok(Self(pool))
    }

    /// Its connections, for statements of others.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.0
    }

    /// How many events there are.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn events(&self) -> Result<i64> {
        Ok(sqlx::query_scalar("select count(*) from events").fetch_one(&self.0).await?)
    }

    /// The newest event of this type.
    ///
    /// # Errors
    /// When there is none.
    pub async fn sample(&self, event_type: &'static str) -> Result<Sample> {
        let row: Option<(i32, Vec<u8>)> = sqlx::query_as(
            "select schema_version, payload from events where event_type = $1 order by global_position desc limit 1",
        )
        .bind(event_type)
        .fetch_optional(&self.0)
        .await?;
        let (schema_version, payload) = row.with_context(|| format!("there is no {event_type} yet"))?;
        Ok(Sample { event_type, schema_version, payload })
    }

    /// Writes an event of an order that no state table knows. Returns the event's id.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn append(&self, order_id: Uuid, sequence: i64, event: &Sample) -> Result<Uuid> {
        let event_id = Uuid::now_v7();
        sqlx::query(APPEND)
            .bind(order_id.to_string())
            .bind(sequence)
            .bind(event_id)
            .bind(event.event_type)
            .bind(event.schema_version)
            .bind(&event.payload)
            .execute(&self.0)
            .await?;
        Ok(event_id)
    }

    /// Whether this event of an aggregate is there.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn has(&self, aggregate_type: &str, id: &str, sequence: i64) -> Result<bool> {
        let sql = "select exists (select from events where stream_id = $1 || '-' || $2 and stream_position = $3)";
        Ok(sqlx::query_scalar(sql).bind(aggregate_type).bind(id).bind(sequence).fetch_one(&self.0).await?)
    }

    /// How many orders this customer placed, by the events and by the tables, which must agree.
    ///
    /// # Errors
    /// When Postgres refuses, or they differ.
    pub async fn orders_of(&self, customer_id: &str) -> Result<i64> {
        let events = "select count(*) from events where event_type = 'OrderPlaced' and data ->> 'customer_id' = $1";
        let events: i64 = sqlx::query_scalar(events).bind(customer_id).fetch_one(&self.0).await?;
        let rows = "select count(*) from orders where customer_id = $1::uuid";
        let rows: i64 = sqlx::query_scalar(rows).bind(customer_id).fetch_one(&self.0).await?;
        ensure!(events == rows, "{events} orders by the events, {rows} by the tables");
        Ok(rows)
    }

    /// How many transfers these commands made, and how many of them aren't three events of one transaction.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn transfers(&self, command_ids: &[String]) -> Result<(i64, i64)> {
        let sql = "with transfers as (
                select data ->> 'transfer_id' as id, count(*) as events, count(distinct txid) as transactions
                from events where data ->> 'transfer_id' in (
                    select data ->> 'transfer_id' from events where data ->> 'command_id' = any($1))
                group by 1)
            select count(*), count(*) filter (where events <> 3 or transactions <> 1) from transfers";
        Ok(sqlx::query_as(sql).bind(command_ids).fetch_one(&self.0).await?)
    }

    /// Events of these aggregates without an outbox row that says the same.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn apart_from_outbox(&self, ids: &[String]) -> Result<i64> {
        let sql = "select count(*) from events e left join outbox o on o.outbox_id = e.event_id
            where e.aggregate_id = any($1) and (e.payload, e.txid, e.tx_min, e.epoch, e.stream_position, e.event_type)
                is distinct from (o.payload, o.txid, o.tx_min, o.epoch, o.sequence, o.event_type)";
        Ok(sqlx::query_scalar(sql).bind(ids).fetch_one(&self.0).await?)
    }

    /// What these accounts hold together, by their last events.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn balances(&self, accounts: &[String]) -> Result<i64> {
        let sql = "select sum((data ->> 'balance_after_cents')::bigint)::bigint from (
                select distinct on (stream_id) data from events
                where aggregate_type = 'account' and aggregate_id = any($1) and data ? 'balance_after_cents'
                order by stream_id, stream_position desc) last";
        Ok(sqlx::query_scalar(sql).bind(accounts).fetch_one(&self.0).await?)
    }

    /// An order as the state tables have it, its lines as `items`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn order(&self, order_id: &str) -> Result<Value> {
        let sql = "select to_jsonb(o) || jsonb_build_object('items',
                (select jsonb_agg(to_jsonb(i) order by position) from order_items i where i.order_id = o.order_id))
            from orders o where order_id = $1::uuid";
        Ok(sqlx::query_scalar(sql).bind(order_id).fetch_one(&self.0).await?)
    }

    /// Forgets the events of an order, as if they had never been; what was sent is sent.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn forget(&self, order_id: Uuid) -> Result<()> {
        let tables = [
            "delete from events where aggregate_type = 'order' and aggregate_id = $1",
            "delete from outbox where aggregate_type = 'order' and aggregate_id = $1",
        ];
        for delete in tables {
            sqlx::query(delete).bind(order_id.to_string()).execute(&self.0).await?;
        }
        Ok(())
    }
}
