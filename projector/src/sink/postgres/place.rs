//! The place as a whole: browsed, removed.

use super::super::{Page, SinkError};
use super::PostgresSink;
use super::columns::Column;
use super::convert::from_row;
use super::sink::PROGRESS;
use sqlx::AssertSqlSafe;

impl PostgresSink {
    /// In the order of keys; the last one is the cursor.
    pub(super) async fn page(&self, cursor: Option<&str>, limit: usize) -> Result<Page, SinkError> {
        let fields: Vec<_> = self.columns.iter().map(Column::read).collect();
        let sql = format!(
            "SELECT t._key, t._version, t._deleted, t._state, row_to_json(r)::text
             FROM {} AS t CROSS JOIN LATERAL (SELECT {}) AS r
             WHERE NOT t._deleted AND (t._expires IS NULL OR t._expires > now()) AND ($1::text IS NULL OR t._key > $1::text)
             ORDER BY t._key LIMIT $2",
            self.qualified(&self.table),
            fields.join(", ")
        );
        let bound = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.client.rows(sqlx::query(AssertSqlSafe(sql)).bind(cursor).bind(bound)).await?;
        let documents = rows.iter().map(|row| from_row(row, &self.document)).collect::<Result<Vec<_>, _>>()?;
        let next = documents.last().filter(|_| documents.len() == limit).map(|(key, _)| key.clone());
        Ok(Page { documents, next })
    }

    pub(super) async fn remove_place(&self) -> Result<(), SinkError> {
        if let Some((_, owner)) = self.relation(&self.table).await? {
            if owner != self.generation {
                return Ok(());
            }
            // What stands on it goes with it: the live view, if that still shows it.
            let table = self.qualified(&self.table);
            let sql = format!("DROP VIEW IF EXISTS {} CASCADE; DROP TABLE IF EXISTS {table} CASCADE", self.visible);
            self.client.define(&sql).await?;
        }
        if self.relation(PROGRESS).await?.is_some() {
            let sql = format!("DELETE FROM {} WHERE generation = $1", self.qualified(PROGRESS));
            self.client.rows(sqlx::query(AssertSqlSafe(sql)).bind(&self.generation)).await?;
        }
        Ok(())
    }
}
