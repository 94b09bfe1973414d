//! A table or view that isn't ours, read by key: for lookups.

use super::config::{Client, broken, quoted};
use crate::expr::{Kind, Object, json};
use crate::sink::{SinkError, StoreUrls};
use sqlx::{AssertSqlSafe, Row};
use std::collections::HashMap;

/// A table or view in the database of the read models.
pub struct PostgresTable {
    client: Client,
    sql: String,
}

impl PostgresTable {
    /// `column` holds the key, compared as text.
    ///
    /// # Errors
    /// When the address can't be used.
    pub fn open(schema: &str, table: &str, column: &str, urls: &StoreUrls) -> Result<Self, SinkError> {
        let (schema, table, column) = (quoted(schema), quoted(table), quoted(column));
        // Of several rows under one key, always the same one.
        let sql = format!(
            "SELECT DISTINCT ON (1) t.{column}::text, row_to_json(t)::text FROM {schema}.{table} AS t
             WHERE t.{column}::text = ANY($1) ORDER BY 1, 2"
        );
        Ok(Self { client: Client::new(urls)?, sql })
    }

    /// The rows of `keys`, in that order. `kind`: what their fields are read as.
    ///
    /// # Errors
    /// [`SinkError`].
    pub async fn rows(&self, keys: &[String], kind: &Kind) -> Result<Vec<Option<Object>>, SinkError> {
        let asked: Vec<&str> = keys.iter().map(String::as_str).filter(|key| !key.contains('\0')).collect();
        let rows = self.client.rows(sqlx::query(AssertSqlSafe(self.sql.as_str())).bind(asked)).await?;
        let mut found: HashMap<String, Object> = HashMap::new();
        for row in rows {
            let unreadable = |error: String| broken(format!("a row that can't be read: {error}"));
            let key: String = row.try_get(0).map_err(|e| unreadable(e.to_string()))?;
            let text: String = row.try_get(1).map_err(|e| unreadable(e.to_string()))?;
            let fields = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
            found.insert(key, json::object_from_json(fields, kind));
        }
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }
}
