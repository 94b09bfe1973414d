//! The place as a whole: browsed, looked into, removed.

use super::super::{Page, SinkError, Stored};
use super::ClickhouseSink;
use super::config::{broken, quoted, text};
use super::sink::PROGRESS;
use crate::expr::{Kind, json};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::sync::Arc;

impl ClickhouseSink {
    /// In the table's order; the last row's place in it is the cursor.
    pub(super) async fn page(&self, cursor: Option<&str>, limit: usize) -> Result<Page, SinkError> {
        let above = match cursor.map(|cursor| cursor.split('/').collect::<Vec<_>>()) {
            Some(place) => match place[..] {
                [day, event, row] => format!(
                    "WHERE ({}, _event_id, _row) > (toDate({}), toUUID({}), toUInt16({}))",
                    quoted(&self.day),
                    text(day),
                    text(event),
                    text(row)
                ),
                _ => return Err(broken("no cursor".to_owned())),
            },
            None => String::new(),
        };
        let rows = self.some(&format!("{above} ORDER BY {}, _event_id, _row LIMIT {limit}", quoted(&self.day))).await?;
        let next = rows.last().filter(|_| rows.len() == limit).map(|(key, day, _)| format!("{day}/{key}"));
        Ok(Page { documents: rows.into_iter().map(|(key, _, stored)| (key, stored)).collect(), next })
    }

    pub(super) async fn rows_of(&self, keys: &[String]) -> Result<Vec<Option<Stored>>, SinkError> {
        let ids: Vec<_> = keys
            .iter()
            .filter_map(|key| key.split_once('/'))
            .map(|(event, row)| format!("(toUUID({}), toUInt16({}))", text(event), text(row)))
            .collect();
        if ids.is_empty() {
            return Ok(vec![None; keys.len()]);
        }
        let found = self.some(&format!("WHERE (_event_id, _row) IN ({})", ids.join(", "))).await?;
        let mut found: HashMap<_, _> = found.into_iter().map(|(key, _, stored)| (key, stored)).collect();
        Ok(keys.iter().map(|key| found.remove(key)).collect())
    }

    /// Rows with their ids and days.
    async fn some(&self, rest: &str) -> Result<Vec<(String, String, Stored)>, SinkError> {
        let columns: Vec<_> = self.columns.iter().map(|(name, _)| quoted(name)).collect();
        let sql = format!(
            "SELECT concat(toString(_event_id), '/', toString(_row)) AS `_id`, toString({}) AS `_day`, {} FROM {} FINAL {rest}",
            quoted(&self.day),
            columns.join(", "),
            self.qualified(&self.table)
        );
        let row = |row: Json| {
            let Json::Object(mut fields) = row else { return None };
            let (id, day) = (fields.shift_remove("_id")?, fields.shift_remove("_day")?);
            let fields = Some(Arc::new(json::object_from_json(fields, &Kind::any())));
            Some((id.as_str()?.to_owned(), day.as_str()?.to_owned(), Stored { fields, ..Stored::default() }))
        };
        Ok(self.client.rows(&sql).await?.into_iter().filter_map(row).collect())
    }

    pub(super) async fn remove_place(&self) -> Result<(), SinkError> {
        let tables =
            format!("SELECT name, engine, as_select FROM system.tables WHERE database = {}", text(&self.database));
        let tables = self.client.rows(&tables).await?;
        let view = tables.iter().find(|t| t["name"] == self.view.as_str() && t["engine"] == "View");
        let shows =
            |select: &str| select.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == self.table);
        if view.and_then(|view| view["as_select"].as_str()).is_some_and(shows) {
            self.client.execute(&format!("DROP VIEW IF EXISTS {} SYNC", self.qualified(&self.view))).await?;
        }
        if self.owner().await?.as_deref() == Some(self.generation.as_str()) {
            self.client.execute(&format!("DROP TABLE IF EXISTS {} SYNC", self.qualified(&self.table))).await?;
        }
        if tables.iter().any(|t| t["name"] == PROGRESS) {
            let sql = format!("DELETE FROM {} WHERE generation = {}", self.qualified(PROGRESS), text(&self.generation));
            self.client.execute(&sql).await?;
        }
        Ok(())
    }
}
