//! Given an account, when a command comes, then these events or this rule.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;
use crate::domain::replay;

const T: Time = Time::UNIX_EPOCH;

fn opened(id: &str) -> Account {
    replay([(&open(id.to_owned(), "c0".to_owned(), None, "USD".to_owned(), T), T)]).unwrap()
}

fn given(id: &str, balance_cents: i64) -> Account {
    let account = opened(id);
    if balance_cents == 0 { account } else { then(&account, account.deposit(&money(balance_cents), T)) }
}

fn then(account: &Account, event: Result<AccountEvent, Violation>) -> Account {
    Account::evolve(Some(account.clone()), &event.unwrap(), T).unwrap()
}

fn money(amount_cents: i64) -> Movement {
    let (command_id, currency) = ("c1".to_owned(), "USD".to_owned());
    Movement { command_id, amount_cents, currency, description: None, reference: Some("Payroll deposit".to_owned()) }
}

fn locked(account: &Account) -> Account {
    then(account, account.lock("c2".to_owned(), None, T))
}

#[test]
fn a_new_account_is_open_and_empty() {
    let account = opened("acc-1");
    assert_eq!((account.status, account.balance_cents, account.version), (Status::Open, 0, 1));
    let again = open("acc-1".to_owned(), "c9".to_owned(), None, "USD".to_owned(), T);
    assert_eq!(Account::evolve(Some(account), &again, T), None, "a stream begins once");
}

#[test]
fn money_comes_and_goes_with_the_balance_after_it() {
    let account = given("acc-1", 500);
    let AccountEvent::FundsWithdrawn { balance_after_cents, reference, transfer_id, .. } =
        account.withdraw(&money(500), T).unwrap()
    else {
        panic!()
    };
    assert_eq!((balance_after_cents, reference.as_deref(), transfer_id), (0, Some("Payroll deposit"), None));
    let overdrawn = Violation::InsufficientFunds { amount_cents: 501, balance_cents: 500 };
    assert_eq!(account.withdraw(&money(501), T), Err(overdrawn));
    assert_eq!(given("a", i64::MAX).deposit(&money(1), T), Err(Violation::AmountTooLarge));
}

#[test]
fn an_amount_is_above_zero_and_in_the_accounts_currency() {
    let account = given("acc-1", 500);
    for amount in [0, -1, i64::MIN] {
        assert_eq!(account.deposit(&money(amount), T), Err(Violation::AmountNotPositive(amount)));
        assert_eq!(account.withdraw(&money(amount), T), Err(Violation::AmountNotPositive(amount)));
    }
    let euros = Movement { currency: "EUR".to_owned(), ..money(1) };
    assert_eq!(account.deposit(&euros, T).unwrap_err().name(), "currency-mismatch");
    assert_eq!(account.withdraw(&euros, T).unwrap_err().name(), "currency-mismatch");
}

#[test]
fn nothing_moves_while_an_account_is_locked() {
    let account = locked(&given("acc-1", 500));
    let rule = Violation::AccountLocked("acc-1".to_owned());
    assert_eq!(account.deposit(&money(1), T), Err(rule.clone()));
    assert_eq!(account.withdraw(&money(1), T), Err(rule.clone()));
    assert_eq!(account.lock("c".to_owned(), None, T), Err(rule.clone()));
    assert_eq!(account.close("c".to_owned(), None, T), Err(rule.clone()));
    assert_eq!(transfer(&account, &given("acc-2", 1), Uuid::nil(), &money(1), T), Err(rule.clone()));
    assert_eq!(transfer(&given("acc-2", 1), &account, Uuid::nil(), &money(1), T), Err(rule));
    let account = then(&account, account.unlock("c".to_owned(), None, T));
    assert_eq!((account.status, account.balance_cents, account.version), (Status::Open, 500, 4));
    assert_eq!(account.unlock("c".to_owned(), None, T).unwrap_err().name(), "account-not-locked");
}

#[test]
fn only_an_empty_account_is_closed_and_for_good() {
    let account = given("acc-1", 500);
    assert_eq!(account.close("c".to_owned(), None, T), Err(Violation::BalanceNotZero { balance_cents: 500 }));
    let account = then(&account, account.withdraw(&money(500), T));
    let account = then(&account, account.close("c".to_owned(), None, T));
    assert_eq!((account.status, account.closed_at), (Status::Closed, Some(T)));
    let rule = Violation::AccountClosed("acc-1".to_owned());
    assert_eq!(account.deposit(&money(1), T), Err(rule.clone()));
    assert_eq!(account.lock("c".to_owned(), None, T), Err(rule.clone()));
    assert_eq!(account.unlock("c".to_owned(), None, T), Err(rule.clone()));
    assert_eq!(account.close("c".to_owned(), None, T), Err(rule));
}

#[test]
fn a_transfer_names_both_sides_and_is_completed_by_the_payer() {
    let (from, to) = (given("acc-1", 500), given("acc-2", 10));
    let id = Uuid::from_u128(7);
    let moved = transfer(&from, &to, id, &money(200), T).unwrap();
    let payer = then(&then(&from, Ok(moved.withdrawn.clone())), Ok(moved.completed.clone()));
    let payee = then(&to, Ok(moved.deposited.clone()));
    assert_eq!((payer.balance_cents, payer.version, payee.balance_cents, payee.version), (300, 4, 210, 3));
    let AccountEvent::FundsDeposited { transfer_id, counterparty_account_id, .. } = moved.deposited else { panic!() };
    assert_eq!((transfer_id, counterparty_account_id.as_deref()), (Some(id), Some("acc-1")));
    let AccountEvent::TransferCompleted { account_id, to_account_id, .. } = moved.completed else { panic!() };
    assert_eq!((account_id.as_str(), to_account_id.as_str()), ("acc-1", "acc-2"));
    assert_eq!(transfer(&from, &from, id, &money(1), T), Err(Violation::TransferToItself));
    let overdrawn = Violation::InsufficientFunds { amount_cents: 501, balance_cents: 500 };
    assert_eq!(transfer(&from, &to, id, &money(501), T), Err(overdrawn));
}

proptest! {
    /// Whatever is tried on whichever of three accounts.
    #[test]
    fn no_account_goes_below_zero_and_transfers_conserve_the_sum(
        steps in prop::collection::vec((0..6u8, 0..3usize, 0..3usize, -5..400i64), 0..60)
    ) {
        let mut accounts = [given("a", 300), given("b", 0), given("c", 20)];
        let mut sum = 320;
        for (what, one, other, amount) in steps {
            let account = accounts[one].clone();
            let event = match what {
                0 => account.deposit(&money(amount), T).inspect(|_| sum += amount),
                1 => account.withdraw(&money(amount), T).inspect(|_| sum -= amount),
                2 => account.lock(String::new(), None, T),
                3 => account.unlock(String::new(), None, T),
                4 => account.close(String::new(), None, T),
                _ => {
                    if let Ok(moved) = transfer(&account, &accounts[other], Uuid::nil(), &money(amount), T) {
                        accounts[other] = then(&accounts[other], Ok(moved.deposited));
                        accounts[one] = then(&then(&account, Ok(moved.withdrawn)), Ok(moved.completed));
                    }
                    Err(Violation::TransferToItself)
                }
            };
            if event.is_ok() { accounts[one] = then(&account, event); }
            prop_assert!(accounts.iter().all(|account| account.balance_cents >= 0));
            prop_assert_eq!(accounts.iter().map(|account| account.balance_cents).sum::<i64>(), sum);
            prop_assert!(accounts.iter().all(|account| account.status != Status::Closed || account.balance_cents == 0));
        }
    }
}
