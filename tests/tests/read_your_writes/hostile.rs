//! Texts that try to be more than values, in every parameter of every query that is served: none gets through, none breaks anything.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{ALONE, shop::Shop, var};

const HOSTILE: [&str; 24] = [
    "' or '1'='1",
    "'; drop table orders; --",
    "\" or 1=1 --",
    "') union select version(), null --",
    "\\'; select pg_sleep(9); --",
    "{id}",
    "{table}",
    "{limit:UInt64}",
    "$1",
    "%s",
    "\\N",
    "\\",
    "a\tb\nc\rd",
    "*",
    "_all",
    "order:*\r\nFLUSHALL\r\n",
    "{\"match_all\":{}}",
    "\"}}]}},\"query\":{\"match_all\":{}}",
    "a AND (b OR",
    "/.*/",
    "..%2f..%2f",
    "😀\u{202e}abc",
    "<script>alert(1)</script>",
    "${jndi:ldap://x}",
];

fn parameters(operation: &Value) -> Vec<(String, bool)> {
    let all = operation["parameters"].as_array().cloned().unwrap_or_default();
    let own = all.iter().filter(|p| p["$ref"].is_null());
    own.filter_map(|p| Some((p["name"].as_str()?.to_owned(), p["in"] == "path"))).collect()
}

#[tokio::test]
#[ignore = "needs the stack: ./dev test"]
async fn no_text_is_ever_more_than_a_value() -> Result<()> {
    let _alone = ALONE.lock().await;
    let shop = Shop::open().await?;
    let order = shop.place().await?;
    shop.get("/orders", &[("consistency_token", &order.token), ("wait_ms", "5000")]).await?;
    let before: Value = shop.get("/customers/00000000-0000-7000-8000-000000000000/orders", &[]).await?;
    assert_eq!(before["total"], 0, "{before}");

    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
    let base = reqwest::Url::parse(&var("QUERY_URL")?)?;
    let described: Value = client.get(base.join("openapi.json")?).send().await?.json().await?;
    let paths = described["paths"].as_object().context("no paths")?;
    assert!(paths.len() >= 14, "{:?}", paths.keys());
    let (mut asked, mut wrong) = (0, Vec::new());
    for (path, methods) in paths {
        let names = parameters(&methods["get"]);
        let freshness = ["consistency_token", "consistency", "min_seq", "wait_ms"].map(|name| (name.to_owned(), false));
        for (name, in_path) in names.iter().cloned().chain(freshness) {
            for text in HOSTILE {
                let mut url = base.clone();
                {
                    let mut segments = url.path_segments_mut().ok().context("no path")?;
                    segments.clear();
                    for part in path.split('/').skip(1) {
                        let parameter = part.strip_prefix('{').and_then(|p| p.strip_suffix('}'));
                        segments.push(match parameter {
                            Some(parameter) if in_path && parameter == name => text,
                            Some("id") if path.contains("accounts") => "acc-of-nobody",
                            Some(_) => "00000000-0000-7000-8000-000000000000",
                            None => part,
                        });
                    }
                }
                if !in_path {
                    url.query_pairs_mut().append_pair(&name, text);
                    if path.ends_with("suggest") && name != "q" {
                        url.query_pairs_mut().append_pair("q", "kettle");
                    }
                }
                asked += 1;
                let answer = client.get(url.clone()).send().await?;
                let status = answer.status().as_u16();
                let body = answer.text().await?;
                // A value that nothing is like finds nothing; of `q`, a word in it may be found.
                let body: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
                let found = body["total"].as_u64().unwrap_or(0) > 0 && (in_path || path.contains("{id}"));
                if !matches!(status, 200 | 400 | 404) || found {
                    wrong.push(format!("{url}: {status} {body}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked}: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    assert!(asked > 1_000, "only {asked}");
    // Nobody was flushed or dropped meanwhile.
    let again = shop.get(&format!("/orders/{}", order.order_id), &[]).await?;
    assert_eq!(again["version"], 1, "{again}");
    Ok(())
}
