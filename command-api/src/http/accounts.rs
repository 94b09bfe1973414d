//! `POST /v1/commands/accounts/{open|deposit|withdraw|transfer|lock|unlock|close}`.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::answer::{answer, reply};
use super::problem::Problem;
use super::request::{Ask, currency, from_json, maybe_text, text_at_most};
use crate::commands::accounts::{AccountCommand, Action};
use crate::domain::Time;
use crate::domain::account::Movement;
use crate::store::{Key, Store};

pub(super) const ID_CHARS_MAX: usize = 64;

/// What all commands on accounts have in common.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Envelope {
    command_id: String,
    command_type: String,
    aggregate_id: String,
    #[serde(default)]
    payload: Json,
    created_at: Time,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Opening {
    currency: String,
    owner_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Money {
    amount_cents: i64,
    currency: String,
    description: Option<String>,
    reference: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Transferred {
    to_account_id: String,
    amount_cents: i64,
    currency: String,
    description: Option<String>,
    reference: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    reason: Option<String>,
}

/// The last part of the path with the type that must be in the body.
pub(super) const VERBS: [(&str, &str); 7] = [
    ("open", "OPEN_ACCOUNT"),
    ("deposit", "DEPOSIT_FUNDS"),
    ("withdraw", "WITHDRAW_FUNDS"),
    ("transfer", "TRANSFER_FUNDS"),
    ("lock", "LOCK_ACCOUNT"),
    ("unlock", "UNLOCK_ACCOUNT"),
    ("close", "CLOSE_ACCOUNT"),
];

/// For people.
pub(super) fn summary(verb: &str) -> &'static str {
    match verb {
        "open" => "Open an account",
        "deposit" => "Put money on an account",
        "withdraw" => "Take money from an account",
        "transfer" => "Move money to another account",
        "lock" => "Let no money move",
        "unlock" => "Let money move again",
        _ => "Close an empty account",
    }
}

/// What all paths do; `expected` is the type that belongs to the path.
pub(super) async fn command(
    store: &Store,
    verb: &str,
    expected: &str,
    ask: Ask<Envelope>,
) -> Result<Response, Problem> {
    let Ask { body, mut request, fingerprint } = ask;
    if body.command_type != expected {
        return Err(Problem::malformed("command_type", format!("must be {expected} on the path …/{verb}")));
    }
    let command_id = id("command_id", body.command_id)?;
    let account_id = id("aggregate_id", body.aggregate_id)?;
    request.key = Some(Key { id: format!("command/{command_id}"), fingerprint });
    request.metadata["command_id"] = json!(command_id);
    request.metadata["command_created_at"] = json!(body.created_at);

    let action = action(verb, command_id, body.payload)?;
    let transfer_id = match &action {
        Action::Transfer { transfer_id, .. } => Some(*transfer_id),
        _ => None,
    };
    let status = if verb == "open" { StatusCode::CREATED } else { StatusCode::OK };
    let command = AccountCommand { account_id, action };
    let done = store.execute(&command, &request, |account| {
        let mut body = json!({"aggregate_id": account.account_id, "last_updated_sequence": account.version});
        if let Some(transfer_id) = transfer_id {
            body["transfer_id"] = json!(transfer_id);
        }
        reply(status, body, account.version)
    });
    Ok(answer(&done.await?))
}

fn action(verb: &str, command_id: String, payload: Json) -> Result<Action, Problem> {
    Ok(match verb {
        "open" => {
            let Opening { currency: code, owner_name } = read(payload)?;
            let owner_name = maybe_text("payload.owner_name", owner_name)?;
            Action::Open { command_id, owner_name, currency: currency("payload.currency", code)? }
        }
        "deposit" => Action::Deposit(movement(command_id, read(payload)?)?),
        "withdraw" => Action::Withdraw(movement(command_id, read(payload)?)?),
        "transfer" => {
            let Transferred { to_account_id, amount_cents, currency, description, reference } = read(payload)?;
            let money = Money { amount_cents, currency, description, reference };
            Action::Transfer {
                to_account_id: id("payload.to_account_id", to_account_id)?,
                // The caller's retry has the answer of the first try, so the id may be a new one each time.
                transfer_id: Uuid::now_v7(),
                movement: movement(command_id, money)?,
            }
        }
        "lock" => Action::Lock { command_id, reason: reason(payload)? },
        "unlock" => Action::Unlock { command_id, reason: reason(payload)? },
        _ => Action::Close { command_id, reason: reason(payload)? },
    })
}

fn movement(command_id: String, money: Money) -> Result<Movement, Problem> {
    Ok(Movement {
        command_id,
        amount_cents: money.amount_cents,
        currency: currency("payload.currency", money.currency)?,
        description: maybe_text("payload.description", money.description)?,
        reference: maybe_text("payload.reference", money.reference)?,
    })
}

fn reason(payload: Json) -> Result<Option<String>, Problem> {
    maybe_text("payload.reason", read::<Reason>(payload)?.reason)
}

fn read<T: DeserializeOwned>(payload: Json) -> Result<T, Problem> {
    let payload = if payload.is_null() { json!({}) } else { payload };
    from_json("payload", payload)
}

/// An id that the caller chose.
fn id(field: &str, value: String) -> Result<String, Problem> {
    let value = text_at_most(field, value, ID_CHARS_MAX)?;
    if value.chars().any(char::is_control) {
        return Err(Problem::malformed(field, "must not contain control characters"));
    }
    Ok(value)
}
