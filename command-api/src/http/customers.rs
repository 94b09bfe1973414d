//! `POST /customers`, `PATCH /customers/{id}`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::answer::{answer, reply};
use super::problem::Problem;
use super::request::{Ask, email, id, not_negative, optional_text, present, text};
use crate::commands::customers::{Change, Register};
use crate::domain::Customer;
use crate::domain::customer::{CustomerChange, Name};
use crate::store::{Reply, Store};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCustomer {
    name: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    email: String,
    credit_limit_cents: Option<i64>,
}

pub(super) async fn register(
    State(store): State<Store>,
    Ask { body, request, .. }: Ask<NewCustomer>,
) -> Result<Response, Problem> {
    let name = name(body.name, body.first_name, body.last_name)?;
    let command = Register {
        customer_id: Uuid::now_v7(),
        name: name.ok_or_else(|| Problem::malformed("name", "either `name`, or `first_name` and `last_name`"))?,
        email: email("email", body.email)?,
        credit_limit_cents: body
            .credit_limit_cents
            .map(|limit| not_negative("credit_limit_cents", limit))
            .transpose()?,
    };
    Ok(answer(&store.execute(&command, &request, |customer| told(StatusCode::CREATED, customer)).await?))
}

/// `active` may only become false: nothing brings a customer back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CustomerPatch {
    name: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    email: Option<String>,
    #[serde(default, deserialize_with = "present")]
    credit_limit_cents: Option<Option<i64>>,
    active: Option<bool>,
    reason: Option<String>,
}

pub(super) async fn change(
    State(store): State<Store>,
    Path(customer): Path<String>,
    Ask { body, request, .. }: Ask<CustomerPatch>,
) -> Result<Response, Problem> {
    let limit =
        body.credit_limit_cents.map(|limit| limit.map(|limit| not_negative("credit_limit_cents", limit)).transpose());
    let reason = body.reason.map(|reason| optional_text("reason", reason)).transpose()?;
    let deactivate = match body.active {
        Some(true) => return Err(Problem::malformed("active", "can only be set to false")),
        Some(false) => Some(reason),
        None => None,
    };
    let change = CustomerChange {
        name: name(body.name, body.first_name, body.last_name)?,
        email: body.email.map(|value| email("email", value)).transpose()?,
        credit_limit_cents: limit.transpose()?,
        deactivate,
    };
    let command = Change { customer_id: id("customer", &customer)?, change };
    Ok(answer(&store.execute(&command, &request, |customer| told(StatusCode::OK, customer)).await?))
}

fn name(whole: Option<String>, first: Option<String>, last: Option<String>) -> Result<Option<Name>, Problem> {
    match (whole, first, last) {
        (None, None, None) => Ok(None),
        (Some(whole), None, None) => Ok(Some(Name::Whole(text("name", whole)?))),
        (None, Some(first), Some(last)) => {
            Ok(Some(Name::Parts(text("first_name", first)?, optional_text("last_name", last)?)))
        }
        (Some(_), _, _) => Err(Problem::malformed("name", "either `name`, or `first_name` and `last_name`")),
        (None, None, Some(_)) => Err(Problem::malformed("first_name", "is missing beside `last_name`")),
        (None, Some(_), None) => Err(Problem::malformed("last_name", "is missing beside `first_name`")),
    }
}

fn told(status: StatusCode, customer: &Customer) -> Reply {
    let body = json!({
        "customer_id": customer.customer_id,
        "name": customer.name,
        "active": customer.active,
    });
    reply(status, body, customer.version)
}
