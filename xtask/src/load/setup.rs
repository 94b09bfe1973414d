//! The closed-loop phase: customers and products, of which every order needs the ids; and an account a customer, with
//! some money that comes, goes and changes hands.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::{
    client::{self, Outcome, Request, Service},
    progress::Progress,
    tpch::Input,
};

const CONCURRENCY: usize = 8;
const VISIBLE_WITHIN: Duration = Duration::from_secs(60);

/// The ids, in the order of the input.
#[derive(Debug)]
pub(super) struct Catalogue {
    pub(super) customer_ids: Vec<String>,
    pub(super) product_ids: Vec<String>,
}

pub(super) async fn create(api: &Service, input: &Input, progress: &Progress) -> Result<Catalogue> {
    let customers = input.customers.iter().map(client::customer).collect();
    let products = input.products.iter().map(client::product).collect();
    Ok(Catalogue {
        customer_ids: create_all(api, "/customers", customers, "customer_id", progress).await?,
        product_ids: create_all(api, "/products", products, "product_id", progress).await?,
    })
}

/// Opens an account for each customer, pays in and draws; then each third one pays the next one.
pub(super) async fn accounts(api: &Service, catalogue: &Catalogue, progress: &Progress) -> Result<()> {
    let ids: Vec<String> = catalogue.customer_ids.iter().map(|id| format!("acc-{id}")).collect();
    let opened = stream::iter(&ids).map(|id| async move {
        must(api, &client::account("open", id, json!({}))).await?;
        must(api, &client::account("deposit", id, json!({"amount_cents": 50_000, "reference": "Payroll deposit"})))
            .await?;
        must(api, &client::account("withdraw", id, json!({"amount_cents": 12_300, "description": "Rent"}))).await?;
        progress.advance();
        anyhow::Ok(())
    });
    let () = opened.buffered(CONCURRENCY).try_collect().await?;
    let transfers = stream::iter(ids.chunks_exact(3)).map(|three| async move {
        let payload = json!({"amount_cents": 4_500, "to_account_id": three[1], "reference": "Half of it"});
        must(api, &client::account("transfer", &three[0], payload)).await.map(drop)
    });
    transfers.buffered(CONCURRENCY).try_collect().await
}

/// Waits until the last account can be read: what was set up before it is there too, or will be a moment later.
pub(super) async fn visible(queries: &Service, catalogue: &Catalogue) -> Result<()> {
    let Some(customer) = catalogue.customer_ids.last() else { return Ok(()) };
    let path = format!("/v1/queries/accounts/acc-{customer}/balance");
    let deadline = Instant::now() + VISIBLE_WITHIN;
    loop {
        match queries.get(&path, &[], None).await {
            Outcome::Accepted(_) => return Ok(()),
            Outcome::Refused { problem, .. } if problem == "no-such-path" => return Ok(()),
            other if Instant::now() >= deadline => bail!("{path} still isn't there: {other:?}"),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// A command that has to be accepted.
async fn must(api: &Service, request: &Request) -> Result<Value> {
    let Request { method, path, body, .. } = request;
    match api.send(request).await {
        Outcome::Accepted(answer) => Ok(answer.body),
        Outcome::Refused { problem, detail } => bail!("{method} {path} was refused, {problem}: {detail}; sent: {body}"),
        Outcome::Failed(reason) => bail!("{method} {path} failed: {reason}"),
    }
}

async fn create_all(
    api: &Service,
    path: &'static str,
    bodies: Vec<Value>,
    id_field: &'static str,
    progress: &Progress,
) -> Result<Vec<String>> {
    stream::iter(bodies)
        .map(|body| async move {
            let answer = must(api, &Request::post(path, body)).await?;
            let id = answer[id_field].as_str().map(str::to_owned);
            progress.advance();
            id.with_context(|| format!("POST {path} answered without {id_field}: {answer}"))
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await
}
