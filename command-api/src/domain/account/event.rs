//! The events of `events.account`; their fields are documented in `schemas/account/`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::Time;

/// What can happen to an account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data")]
#[allow(missing_docs)]
pub enum AccountEvent {
    AccountOpened {
        account_id: String,
        command_id: String,
        owner_name: Option<String>,
        currency: String,
        balance_after_cents: i64,
        opened_at: Time,
    },
    FundsDeposited {
        account_id: String,
        command_id: String,
        amount_cents: i64,
        currency: String,
        description: Option<String>,
        reference: Option<String>,
        transfer_id: Option<Uuid>,
        counterparty_account_id: Option<String>,
        balance_after_cents: i64,
        deposited_at: Time,
    },
    FundsWithdrawn {
        account_id: String,
        command_id: String,
        amount_cents: i64,
        currency: String,
        description: Option<String>,
        reference: Option<String>,
        transfer_id: Option<Uuid>,
        counterparty_account_id: Option<String>,
        balance_after_cents: i64,
        withdrawn_at: Time,
    },
    TransferCompleted {
        account_id: String,
        command_id: String,
        transfer_id: Uuid,
        from_account_id: String,
        to_account_id: String,
        amount_cents: i64,
        currency: String,
        description: Option<String>,
        reference: Option<String>,
        completed_at: Time,
    },
    AccountLocked {
        account_id: String,
        command_id: String,
        reason: Option<String>,
        locked_at: Time,
    },
    AccountUnlocked {
        account_id: String,
        command_id: String,
        reason: Option<String>,
        unlocked_at: Time,
    },
    AccountClosed {
        account_id: String,
        command_id: String,
        reason: Option<String>,
        currency: String,
        closed_at: Time,
    },
}
