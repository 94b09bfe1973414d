//! The write database, asked and tampered with directly.

use anyhow::{Context, Result};
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
