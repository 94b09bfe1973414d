//! What each store must hold in the end, said of the orders themselves and not of their events: written apart from all that
//! folds, so that it can't share a fault with it.

use crate::data::{Change, Data, Line, Order};
use crate::stores::Store;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;

/// A document's fields.
pub(crate) type Document = Map<String, Json>;

/// All documents (rows), by their keys.
pub(crate) fn expected(store: Store, data: Data) -> HashMap<String, Document> {
    data.all().flat_map(|order| of(store, &order)).collect()
}

/// The documents that one order comes to, with their keys.
pub(crate) fn of(store: Store, order: &Order) -> Vec<(String, Document)> {
    let one = |document: Json| vec![(order.id.to_string(), object(document))];
    match store {
        Store::Redis => one(summary(order)),
        Store::Search => one(search(order)),
        Store::Postgres => one(details(order)),
        Store::Clickhouse => revenue(order),
    }
}

fn summary(order: &Order) -> Json {
    let lines = lines(order);
    json!({
        "order_id": order.id, "customer_id": order.customer_id, "customer_name": order.customer_name,
        "item_count": lines.len(), "total_amount_cents": total(&lines), "currency": order.currency,
        "status": status(order), "version": order.happened, "updated_at": time(order.at(order.happened - 1)),
    })
}

fn search(order: &Order) -> Json {
    let lines = lines(order);
    json!({
        "order_id": order.id, "customer_id": order.customer_id, "customer_name": order.customer_name,
        "status": status(order), "currency": order.currency, "total_amount_cents": total(&lines),
        "products": lines.iter().map(|line| line.product_name.as_str()).collect::<Vec<_>>(),
        "item_ids": lines.iter().map(|line| line.item_id).collect::<Vec<_>>(), "placed_at": time(order.at(0)),
    })
}

fn details(order: &Order) -> Json {
    let lines = lines(order);
    let (shipped, cancelled) = (order.has(Change::Shipped), order.has(Change::Cancelled));
    let shown = |show: bool, value: Json| if show { value } else { Json::Null };
    json!({
        "order_id": order.id, "customer_id": order.customer_id, "customer_name": order.customer_name,
        "customer_email": email(order), "status": status(order), "items": lines.iter().map(line).collect::<Vec<_>>(),
        "item_count": lines.len(), "total_amount_cents": total(&lines), "currency": order.currency,
        "shipping_address": {"street": null, "city": order.city, "zip": "8001", "country": "CH"},
        "estimated_delivery": time(order.at(0) + chrono::TimeDelta::days(5)), "placed_at": time(order.at(0)),
        "shipped_at": shown(shipped, time(order.at(3)).into()),
        "tracking_number": shown(shipped, tracking_number(order).into()),
        "cancelled_at": shown(cancelled, time(order.at(3)).into()),
        "cancellation_reason": shown(cancelled, "changed my mind".into()), "version": order.happened,
    })
}

fn revenue(order: &Order) -> Vec<(String, Document)> {
    let total = total(&lines(order));
    let row = |place: usize, entry: &str, amount_cents: i64, orders: i64| {
        let row = json!({
            "day": order.at(0).format("%F").to_string(), "order_id": order.id, "currency": order.currency, "entry": entry,
            "amount_cents": amount_cents, "orders": orders, "recorded_at": time(order.at(place)),
        });
        (format!("{}/{entry}", order.id), object(row))
    };
    let mut rows = vec![row(0, "placed", order.placed_cents(), 1), row(1, "items", total - order.placed_cents(), 0)];
    if order.changes.contains(&Change::Cancelled) {
        // The cancellation takes all of it, so that nothing is left for the refund.
        rows.extend([row(3, "cancelled", -total, 0), row(4, "refunded", 0, 0)]);
    }
    rows
}

/// The lines in the end.
fn lines(order: &Order) -> Vec<&Line> {
    let removed = order.has(Change::Removed);
    let mut lines: Vec<&Line> =
        order.placed.iter().filter(|line| !removed || line.item_id != order.moved.item_id).collect();
    if order.has(Change::Added) {
        lines.push(&order.moved);
    }
    lines
}

fn total(lines: &[&Line]) -> i64 {
    lines.iter().map(|line| line.total_cents()).sum()
}

fn line(line: &&Line) -> Json {
    json!({
        "item_id": line.item_id, "product_id": line.product_id, "product_name": line.product_name, "image_url": null,
        "quantity": line.quantity, "unit_price_cents": line.unit_price_cents, "line_total_cents": line.total_cents(),
    })
}

fn status(order: &Order) -> &'static str {
    let changes = [
        (Change::Cancelled, "cancelled"),
        (Change::Delivered, "delivered"),
        (Change::Shipped, "shipped"),
        (Change::Paid, "confirmed"),
    ];
    changes.into_iter().find(|(change, _)| order.has(*change)).map_or("pending", |(_, status)| status)
}

/// The customer's address, which no other field gives.
pub(crate) fn email(order: &Order) -> String {
    format!("customer-{}@example.org", &order.customer_id.to_string()[..8])
}

/// The carrier's number.
pub(crate) fn tracking_number(order: &Order) -> String {
    format!("T-{}", order.number)
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn object(json: Json) -> Document {
    match json {
        Json::Object(fields) => fields,
        _ => Document::new(),
    }
}

/// What isn't as it should be.
#[derive(Debug)]
pub(crate) struct Differences {
    /// Documents that are missing, too many, or have another field.
    pub(crate) count: usize,
    /// One of them, in words.
    pub(crate) example: Option<String>,
}

/// Compares what is expected with what readers find.
pub(crate) fn differences(expected: &HashMap<String, Document>, mut found: HashMap<String, Document>) -> Differences {
    let mut wrong = Vec::new();
    for (key, expected) in expected {
        match found.remove(key) {
            None => wrong.push(format!("{key} is missing")),
            Some(found) => wrong.extend(difference(key, expected, &found)),
        }
    }
    wrong.extend(found.keys().map(|key| format!("{key} shouldn't be there")));
    Differences { count: wrong.len(), example: wrong.into_iter().min() }
}

fn difference(key: &str, expected: &Document, found: &Document) -> Option<String> {
    let names = expected.keys().chain(found.keys());
    let field = |of: &Document, name: &str| of.get(name).cloned().unwrap_or_default();
    let wrong = names.map(|name| (name, field(expected, name), field(found, name))).find(|(_, a, b)| !is_same(a, b))?;
    Some(format!("{key}: {} should be {}, is {}", wrong.0, wrong.1, wrong.2))
}

/// Times are compared as moments, and a number with its text, which is all that a hash keeps.
fn is_same(expected: &Json, found: &Json) -> bool {
    match (expected, found) {
        (Json::String(a), Json::String(b)) => {
            let moment = |text: &str| DateTime::parse_from_rfc3339(text).ok();
            a == b || moment(a).is_some_and(|at| moment(b) == Some(at))
        }
        (Json::Number(a), Json::String(b)) => a.to_string() == *b,
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_counted() {
        let expected = expected(Store::Redis, Data::usual(10));
        let texts = |document: &Document| -> Document {
            let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            document.iter().map(|(name, value)| (name.clone(), text(value).into())).collect()
        };
        let mut found: HashMap<_, _> = expected.iter().map(|(key, document)| (key.clone(), texts(document))).collect();
        assert_eq!(differences(&expected, found.clone()).count, 0);
        let keys: Vec<_> = found.keys().cloned().collect();
        found.remove(&keys[0]);
        if let Some(document) = found.get_mut(&keys[1]) {
            document.insert("status".into(), "lost".into());
        }
        if let Some(document) = found.get_mut(&keys[2]) {
            document.insert("more".into(), "1".into());
        }
        found.insert("stranger".into(), Document::new());
        assert_eq!(differences(&expected, found).count, 4);
    }
}
