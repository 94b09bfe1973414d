//! What readers ask of each read model, and the number in the answer that must never fall.

use serde_json::Value;
use tests::shop::Shop;

/// One question.
pub(crate) struct Probe {
    /// The read model that answers it.
    pub(crate) read_model: &'static str,
    /// What it is about, to compare answers by.
    pub(crate) about: String,
    pub(crate) path: String,
    pub(crate) parameters: Vec<(&'static str, String)>,
    /// What only grows.
    pub(crate) grows: fn(&Value) -> Option<i64>,
}

fn rows_sum(rows: &Value, field: &str) -> Option<i64> {
    Some(rows.as_array()?.iter().filter_map(|row| row[field].as_i64()).sum())
}

/// A question for each read model, about this order where it is about one.
pub(crate) fn probes(shop: &Shop, order: &str) -> Vec<Probe> {
    let account = format!("acc-{}", shop.customer_id);
    let probe = |read_model, path: String, parameters: &[(&'static str, &str)], grows| Probe {
        read_model,
        about: format!("{path} of {read_model}"),
        path,
        parameters: parameters.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        grows,
    };
    let product = &shop.product_id;
    vec![
        probe("order_summary", format!("/orders/{order}"), &[], |a| a["version"].as_i64()),
        probe("order_details", format!("/orders/{order}/details"), &[], |a| a["version"].as_i64()),
        probe("order_list_view", "/orders".into(), &[("customer_id", &shop.customer_id), ("size", "100")], |a| {
            i64::try_from(a["orders"].as_array()?.len()).ok()
        }),
        probe("customer_order_history", format!("/customers/{}/orders", shop.customer_id), &[("size", "5")], |a| {
            a["total"].as_i64()
        }),
        probe("order_search", "/orders/search".into(), &[("q", "kettle"), ("size", "5")], |a| a["total"].as_i64()),
        probe("product_search", "/products/search".into(), &[("q", "kettle"), ("size", "5")], |a| a["total"].as_i64()),
        probe("product_stats", format!("/products/{product}/stats"), &[], |a| a["purchase_count"].as_i64()),
        probe("daily_revenue", "/reports/revenue".into(), &[("granularity", "month")], |a| {
            rows_sum(&a["rows"], "orders")
        }),
        // Of one day: at midnight another one begins.
        probe("dashboard", "/dashboard".into(), &[], |a| {
            let day: i64 = a["date"].as_str()?.replace('-', "").parse().ok()?;
            Some(day * 1_000_000_000 + a["total_orders"].as_i64()?)
        }),
        probe("account_balance", format!("/v1/queries/accounts/{account}/balance"), &[], |a| {
            a["last_updated_sequence"].as_i64()
        }),
        probe("account_transactions", format!("/v1/queries/accounts/{account}/transactions"), &[("size", "5")], |a| {
            a["total"].as_i64()
        }),
        probe("account_statement", format!("/v1/queries/accounts/{account}/statement"), &[], |a| {
            rows_sum(&a["months"], "transactions")
        }),
    ]
}
