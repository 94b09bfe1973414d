//! Commands on accounts.

use uuid::Uuid;

use crate::domain::account::{self, Account, AccountEvent, Movement};
use crate::domain::{Aggregate, Time, Violation};
use crate::store::streams::stream_id;
use crate::store::{Command, CommandError, UnitOfWork};

/// What may be asked of an account.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Action {
    Open { command_id: String, owner_name: Option<String>, currency: String },
    Deposit(Movement),
    Withdraw(Movement),
    Transfer { to_account_id: String, transfer_id: Uuid, movement: Movement },
    Lock { command_id: String, reason: Option<String> },
    Unlock { command_id: String, reason: Option<String> },
    Close { command_id: String, reason: Option<String> },
}

/// One of them, on one account.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct AccountCommand {
    pub account_id: String,
    pub action: Action,
}

impl Command for AccountCommand {
    /// The account that was named first.
    type Answer = Account;

    fn streams(&self) -> Vec<String> {
        let other = match &self.action {
            Action::Transfer { to_account_id, .. } => Some(to_account_id),
            _ => None,
        };
        [&self.account_id].into_iter().chain(other).map(|id| stream_id(Account::TYPE, id)).collect()
    }

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Account, CommandError> {
        let id = self.account_id.as_str();
        match &self.action {
            Action::Open { command_id, owner_name, currency } => {
                if unit.load::<Account>(&[id]).await?.pop().flatten().is_some() {
                    return Err(Violation::AccountExists(id.to_owned()).into());
                }
                let (command_id, owner_name) = (command_id.clone(), owner_name.clone());
                let opened = account::open(id.to_owned(), command_id, owner_name, currency.clone(), unit.now());
                unit.begin_stream(&opened)
            }
            Action::Transfer { to_account_id, transfer_id, movement } => {
                let mut loaded = unit.load::<Account>(&[id, to_account_id]).await?.into_iter();
                let (from, to) = (loaded.next().flatten(), loaded.next().flatten());
                let (from, to) = (existing(from, id)?, existing(to, to_account_id)?);
                unit.check_expected(&from)?;
                let moved = account::transfer(&from, &to, *transfer_id, movement, unit.now())?;
                // In the order in which it happens: out, in, done.
                let from = unit.record(from, &[moved.withdrawn])?;
                unit.record(to, &[moved.deposited])?;
                unit.record(from, &[moved.completed])
            }
            Action::Deposit(movement) => self.decide(unit, |account, now| account.deposit(movement, now)).await,
            Action::Withdraw(movement) => self.decide(unit, |account, now| account.withdraw(movement, now)).await,
            Action::Lock { command_id, reason } => {
                self.decide(unit, |account, now| account.lock(command_id.clone(), reason.clone(), now)).await
            }
            Action::Unlock { command_id, reason } => {
                self.decide(unit, |account, now| account.unlock(command_id.clone(), reason.clone(), now)).await
            }
            Action::Close { command_id, reason } => {
                self.decide(unit, |account, now| account.close(command_id.clone(), reason.clone(), now)).await
            }
        }
    }
}

impl AccountCommand {
    async fn decide(
        &self,
        unit: &mut UnitOfWork<'_>,
        decision: impl Fn(&Account, Time) -> Result<AccountEvent, Violation>,
    ) -> Result<Account, CommandError> {
        let id = self.account_id.as_str();
        let account = existing(unit.load(&[id]).await?.pop().flatten(), id)?;
        unit.check_expected(&account)?;
        let event = decision(&account, unit.now())?;
        unit.record(account, &[event])
    }
}

/// An account's id stands in the body, so an unknown one is a broken rule.
fn existing(account: Option<Account>, id: &str) -> Result<Account, Violation> {
    account.ok_or_else(|| Violation::UnknownAccount(id.to_owned()))
}
