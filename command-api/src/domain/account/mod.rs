//! Bank accounts. Nothing but their events says what is on them: there is no state table.
//!
//! Status: open ⇄ locked; open → closed, once nothing is left. Money moves on open accounts only, in the account's one
//! currency, and never takes a balance below zero. A transfer is a withdrawal and a deposit that happen together.

mod event;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use event::AccountEvent;

use super::{Aggregate, Time, Violation};

/// Where an account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Status {
    Open,
    Locked,
    Closed,
}

/// An account as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Account {
    pub account_id: String,
    pub owner_name: Option<String>,
    pub currency: String,
    pub status: Status,
    pub balance_cents: i64,
    pub version: i64,
    pub opened_at: Time,
    pub updated_at: Time,
    pub closed_at: Option<Time>,
}

/// Money that comes or goes.
#[derive(Clone, Debug)]
pub struct Movement {
    /// Of the command, as the caller chose it.
    pub command_id: String,
    /// Above 0.
    pub amount_cents: i64,
    /// Must be the account's.
    pub currency: String,
    /// For people.
    pub description: Option<String>,
    /// For people and their machines.
    pub reference: Option<String>,
}

/// Which side of a transfer a movement is: the transfer, and the account at its other end.
type Side<'a> = Option<(Uuid, &'a str)>;

/// What a transfer does, on either account.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    /// The payer's first event; `completed` is the second.
    pub withdrawn: AccountEvent,
    /// The payee's.
    pub deposited: AccountEvent,
    /// Of the payer.
    pub completed: AccountEvent,
}

/// Opens an account with nothing on it.
#[must_use]
pub fn open(
    account_id: String,
    command_id: String,
    owner_name: Option<String>,
    currency: String,
    now: Time,
) -> AccountEvent {
    AccountEvent::AccountOpened { account_id, command_id, owner_name, currency, balance_after_cents: 0, opened_at: now }
}

/// Moves money from one account to another.
///
/// # Errors
/// The first rule that forbids either side.
pub fn transfer(
    from: &Account,
    to: &Account,
    transfer_id: Uuid,
    movement: &Movement,
    now: Time,
) -> Result<Transfer, Violation> {
    if from.account_id == to.account_id {
        return Err(Violation::TransferToItself);
    }
    let Movement { command_id, amount_cents, currency, description, reference } = movement.clone();
    Ok(Transfer {
        withdrawn: from.take(movement, Some((transfer_id, &to.account_id)), now)?,
        deposited: to.put(movement, Some((transfer_id, &from.account_id)), now)?,
        completed: AccountEvent::TransferCompleted {
            account_id: from.account_id.clone(),
            command_id,
            transfer_id,
            from_account_id: from.account_id.clone(),
            to_account_id: to.account_id.clone(),
            amount_cents,
            currency,
            description,
            reference,
            completed_at: now,
        },
    })
}

impl Account {
    /// Money comes in.
    ///
    /// # Errors
    /// The first rule that forbids it.
    pub fn deposit(&self, movement: &Movement, now: Time) -> Result<AccountEvent, Violation> {
        self.put(movement, None, now)
    }

    /// Money goes out.
    ///
    /// # Errors
    /// The first rule that forbids it.
    pub fn withdraw(&self, movement: &Movement, now: Time) -> Result<AccountEvent, Violation> {
        self.take(movement, None, now)
    }

    fn put(&self, movement: &Movement, side: Side<'_>, now: Time) -> Result<AccountEvent, Violation> {
        self.must_move(movement)?;
        let Movement { command_id, amount_cents, currency, description, reference } = movement.clone();
        Ok(AccountEvent::FundsDeposited {
            account_id: self.account_id.clone(),
            command_id,
            amount_cents,
            currency,
            description,
            reference,
            transfer_id: side.map(|(id, _)| id),
            counterparty_account_id: side.map(|(_, other)| other.to_owned()),
            balance_after_cents: self.balance_cents.checked_add(amount_cents).ok_or(Violation::AmountTooLarge)?,
            deposited_at: now,
        })
    }

    fn take(&self, movement: &Movement, side: Side<'_>, now: Time) -> Result<AccountEvent, Violation> {
        self.must_move(movement)?;
        let Movement { command_id, amount_cents, currency, description, reference } = movement.clone();
        if amount_cents > self.balance_cents {
            return Err(Violation::InsufficientFunds { amount_cents, balance_cents: self.balance_cents });
        }
        Ok(AccountEvent::FundsWithdrawn {
            account_id: self.account_id.clone(),
            command_id,
            amount_cents,
            currency,
            description,
            reference,
            transfer_id: side.map(|(id, _)| id),
            counterparty_account_id: side.map(|(_, other)| other.to_owned()),
            balance_after_cents: self.balance_cents - amount_cents,
            withdrawn_at: now,
        })
    }

    /// No money moves until it is unlocked.
    ///
    /// # Errors
    /// It is locked already, or closed.
    pub fn lock(&self, command_id: String, reason: Option<String>, now: Time) -> Result<AccountEvent, Violation> {
        self.must_be_open()?;
        Ok(AccountEvent::AccountLocked { account_id: self.account_id.clone(), command_id, reason, locked_at: now })
    }

    /// Money may move again.
    ///
    /// # Errors
    /// It isn't locked.
    pub fn unlock(&self, command_id: String, reason: Option<String>, now: Time) -> Result<AccountEvent, Violation> {
        match self.status {
            Status::Locked => {}
            Status::Open => return Err(Violation::AccountNotLocked(self.account_id.clone())),
            Status::Closed => return Err(Violation::AccountClosed(self.account_id.clone())),
        }
        Ok(AccountEvent::AccountUnlocked { account_id: self.account_id.clone(), command_id, reason, unlocked_at: now })
    }

    /// Ends the account.
    ///
    /// # Errors
    /// Something is left on it, or it is locked or closed.
    pub fn close(&self, command_id: String, reason: Option<String>, now: Time) -> Result<AccountEvent, Violation> {
        self.must_be_open()?;
        if self.balance_cents != 0 {
            return Err(Violation::BalanceNotZero { balance_cents: self.balance_cents });
        }
        let (account_id, currency) = (self.account_id.clone(), self.currency.clone());
        Ok(AccountEvent::AccountClosed { account_id, command_id, reason, currency, closed_at: now })
    }

    fn must_be_open(&self) -> Result<(), Violation> {
        match self.status {
            Status::Open => Ok(()),
            Status::Locked => Err(Violation::AccountLocked(self.account_id.clone())),
            Status::Closed => Err(Violation::AccountClosed(self.account_id.clone())),
        }
    }

    fn must_move(&self, movement: &Movement) -> Result<(), Violation> {
        self.must_be_open()?;
        if movement.amount_cents <= 0 {
            return Err(Violation::AmountNotPositive(movement.amount_cents));
        }
        if movement.currency != self.currency {
            let (account_id, account) = (self.account_id.clone(), self.currency.clone());
            return Err(Violation::AccountCurrency { account_id, account, sent: movement.currency.clone() });
        }
        Ok(())
    }
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Event = AccountEvent;

    fn evolve(state: Option<Self>, event: &AccountEvent, at: Time) -> Option<Self> {
        if let AccountEvent::AccountOpened {
            account_id, owner_name, currency, balance_after_cents, opened_at, ..
        } = event
        {
            // A stream begins once.
            return state.is_none().then(|| Self {
                account_id: account_id.clone(),
                owner_name: owner_name.clone(),
                currency: currency.clone(),
                status: Status::Open,
                balance_cents: *balance_after_cents,
                version: 1,
                opened_at: *opened_at,
                updated_at: at,
                closed_at: None,
            });
        }
        let mut next = state?;
        match event {
            AccountEvent::FundsDeposited { balance_after_cents, .. }
            | AccountEvent::FundsWithdrawn { balance_after_cents, .. } => next.balance_cents = *balance_after_cents,
            AccountEvent::AccountLocked { .. } => next.status = Status::Locked,
            AccountEvent::AccountUnlocked { .. } => next.status = Status::Open,
            AccountEvent::AccountClosed { closed_at, .. } => {
                next.status = Status::Closed;
                next.closed_at = Some(*closed_at);
            }
            AccountEvent::AccountOpened { .. } | AccountEvent::TransferCompleted { .. } => {}
        }
        next.version += 1;
        next.updated_at = at;
        Some(next)
    }

    fn id(&self) -> String {
        self.account_id.clone()
    }

    fn version(&self) -> i64 {
        self.version
    }
}
