//! The state tables. A row is the aggregate's serialized form: Postgres itself turns JSON into rows and back, so that
//! columns are named once, in the domain's types.
//!
//! Loading locks the row. What belongs to it (an order's lines, a customer's debt) is read by a statement of its own
//! after that: a statement that waited for a lock still sees everything else as it was before the wait.

pub(crate) mod customers;
pub(crate) mod orders;
pub(crate) mod products;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use sqlx::postgres::PgRow;
use sqlx::{Row, types::Json as Jsonb};

use crate::store::CommandError;

/// A row's one column of JSON.
fn decode<T: DeserializeOwned>(row: &PgRow) -> Result<T, CommandError> {
    let Jsonb(json) = row.try_get::<Jsonb<Json>, _>(0)?;
    Ok(serde_json::from_value(json)?)
}
