//! The closed-loop phase: customers and products, of which every order needs the ids.

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::{
    client::{self, CommandApi, Outcome},
    progress::Progress,
    tpch::Input,
};

const CONCURRENCY: usize = 8;

/// The ids, in the order of the input.
#[derive(Debug)]
pub(super) struct Catalogue {
    pub(super) customer_ids: Vec<String>,
    pub(super) product_ids: Vec<String>,
}

pub(super) async fn create(api: &CommandApi, input: &Input, progress: &Progress) -> Result<Catalogue> {
    let customers = input.customers.iter().map(client::customer).collect();
    let products = input.products.iter().map(client::product).collect();
    Ok(Catalogue {
        customer_ids: create_all(api, "/customers", customers, "customer_id", progress).await?,
        product_ids: create_all(api, "/products", products, "product_id", progress).await?,
    })
}

async fn create_all(
    api: &CommandApi,
    path: &'static str,
    bodies: Vec<Value>,
    id_field: &'static str,
    progress: &Progress,
) -> Result<Vec<String>> {
    stream::iter(bodies)
        .map(|body| async move {
            let id = match api.post(path, &body).await {
                Outcome::Accepted(answer) => answer[id_field]
                    .as_str()
                    .map(str::to_owned)
                    .with_context(|| format!("POST {path} answered without {id_field}: {answer}"))?,
                Outcome::Refused { problem, detail } => {
                    bail!("POST {path} was refused, {problem}: {detail}; sent: {body}")
                }
                Outcome::Failed(reason) => bail!("POST {path} failed: {reason}"),
            };
            progress.advance();
            Ok(id)
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await
}
