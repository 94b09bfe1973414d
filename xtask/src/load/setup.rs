//! The closed-loop phase: customers and products, of which every order needs the ids; and an account a customer, with
//! some money that comes, goes and changes hands.

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::{
    client::{self, CommandApi, Outcome},
    progress::Progress,
    tpch::{CURRENCY, Input},
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

/// Opens an account for each customer, pays in and draws; then each third one pays the next one.
pub(super) async fn accounts(api: &CommandApi, catalogue: &Catalogue, progress: &Progress) -> Result<()> {
    let ids: Vec<String> = catalogue.customer_ids.iter().map(|id| format!("acc-{id}")).collect();
    let opened = stream::iter(&ids).map(|id| async move {
        account(api, "open", "OPEN_ACCOUNT", id, json!({"currency": CURRENCY})).await?;
        let deposit = json!({"amount_cents": 50_000, "currency": CURRENCY, "reference": "Payroll deposit"});
        account(api, "deposit", "DEPOSIT_FUNDS", id, deposit).await?;
        let rent = json!({"amount_cents": 12_300, "currency": CURRENCY, "description": "Rent"});
        account(api, "withdraw", "WITHDRAW_FUNDS", id, rent).await?;
        progress.advance();
        anyhow::Ok(())
    });
    let () = opened.buffered(CONCURRENCY).try_collect().await?;
    let transfers = stream::iter(ids.chunks_exact(3)).map(|three| async move {
        let to =
            json!({"amount_cents": 4_500, "currency": CURRENCY, "to_account_id": three[1], "reference": "Half of it"});
        account(api, "transfer", "TRANSFER_FUNDS", &three[0], to).await
    });
    transfers.buffered(CONCURRENCY).try_collect().await
}

async fn account(api: &CommandApi, verb: &str, command_type: &str, id: &str, payload: Value) -> Result<()> {
    let body = json!({
        "command_id": format!("{id}-{verb}"),
        "command_type": command_type,
        "aggregate_id": id,
        "payload": payload,
        "created_at": "2026-05-23T10:00:00.123Z",
    });
    match api.post(&format!("/v1/commands/accounts/{verb}"), &body).await {
        Outcome::Accepted(_) => Ok(()),
        Outcome::Refused { problem, detail } => bail!("{verb} of {id} was refused, {problem}: {detail}; sent: {body}"),
        Outcome::Failed(reason) => bail!("{verb} of {id} failed: {reason}"),
    }
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
