//! Revenue in ClickHouse, twice: the facts row by row against the event store, and what the facts add up to, day by
//! day, against the state tables. The second doesn't trust the events either.

use anyhow::{Context, Result};
use futures::{FutureExt, future::BoxFuture};
use serde_json::Value;
use sqlx::PgPool;

use super::{
    ReadModel, Stores,
    compare::{Document, Documents},
    write_side_documents, write_side_rows,
};

pub(super) struct Facts;
pub(super) struct Days;

const FACTS: &str = "select * from daily_revenue";
const DAYS: &str = "select concat(toString(day), ' ', currency) as key, day, currency, \
    sumIf(amount_cents, entry in ('placed', 'items')) as gross_cents, \
    -sumIf(amount_cents, entry = 'cancelled') as cancelled_cents, \
    -sumIf(amount_cents, entry = 'refunded') as refunded_cents, \
    sum(amount_cents) as net_cents, sum(orders) as orders \
    from daily_revenue group by day, currency";

impl ReadModel for Facts {
    fn name(&self) -> &'static str {
        "daily_revenue"
    }

    fn store(&self) -> &'static str {
        "clickhouse"
    }

    fn expected<'a>(&'a self, write_side: &'a PgPool) -> BoxFuture<'a, Result<Documents>> {
        async move {
            let rows = write_side_rows(write_side, include_str!("daily_revenue.sql")).await?;
            Ok(by_key(rows.into_iter().map(|(_, row)| row).collect()))
        }
        .boxed()
    }

    fn actual<'a>(&'a self, stores: &'a Stores) -> BoxFuture<'a, Result<Documents>> {
        async move {
            let mut rows = stores.clickhouse_rows(FACTS).await?;
            for row in &mut rows {
                if let Some(Value::String(time)) = row.get_mut("recorded_at") {
                    *time = rfc3339(time);
                }
            }
            Ok(by_key(rows))
        }
        .boxed()
    }
}

impl ReadModel for Days {
    fn name(&self) -> &'static str {
        "daily_revenue, by day"
    }

    fn store(&self) -> &'static str {
        "clickhouse"
    }

    fn expected<'a>(&'a self, write_side: &'a PgPool) -> BoxFuture<'a, Result<Documents>> {
        Box::pin(write_side_documents(write_side, include_str!("daily_revenue_days.sql")))
    }

    fn actual<'a>(&'a self, stores: &'a Stores) -> BoxFuture<'a, Result<Documents>> {
        async move {
            let rows = stores.clickhouse_rows(DAYS).await?;
            rows.into_iter()
                .map(|mut row| {
                    let key = row.remove("key");
                    let key = key.as_ref().and_then(Value::as_str).context("a row without a key")?;
                    Ok((key.to_owned(), row))
                })
                .collect()
        }
        .boxed()
    }
}

/// `2026-11-21 04:53:31.123456` → `2026-11-21T04:53:31.123456Z`
fn rfc3339(clickhouse: &str) -> String {
    format!("{}Z", clickhouse.replacen(' ', "T", 1))
}

/// A fact has no key of its own that both sides know: order, entry and time tell facts apart, and equal ones (a fact
/// that was doubled) are numbered.
fn by_key(mut rows: Vec<Document>) -> Documents {
    rows.sort_by_cached_key(|row| format!("{row:?}"));
    let mut documents = Documents::new();
    for row in rows {
        let field = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or("?");
        let key = format!("{} {} {}", field("order_id"), field("entry"), field("recorded_at"));
        let mut numbered = key.clone();
        let mut number = 1;
        while documents.contains_key(&numbered) {
            number += 1;
            numbered = format!("{key} #{number}");
        }
        documents.insert(numbered, row);
    }
    documents
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_doubled_fact_is_an_extra_document() {
        let fact: Document = serde_json::from_value(json!({
            "order_id": "o1", "entry": "placed", "recorded_at": "t", "amount_cents": 5
        }))
        .unwrap();
        let keys: Vec<_> = by_key(vec![fact.clone(), fact]).into_keys().collect();
        assert_eq!(keys, ["o1 placed t", "o1 placed t #2"]);
    }

    #[test]
    fn times_are_spelt_as_the_write_side_spells_them() {
        assert_eq!(rfc3339("2026-11-21 04:53:31.123456"), "2026-11-21T04:53:31.123456Z");
    }
}
