//! The same for accounts: deposits, withdrawals, and transfers, whose tokens name two accounts.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::shop::text;
use uuid::Uuid;

use super::client::{Ask, Check, Client, Expectation, same};

/// One account as it must be.
#[derive(Clone, Debug)]
struct Account {
    id: String,
    balance: i64,
    movements: u64,
    came: i64,
    went: i64,
    /// What moved last.
    last: i64,
}

/// Two accounts of a client.
pub(crate) struct Wallet {
    accounts: [Account; 2],
}

impl Wallet {
    pub(crate) async fn open(client: &Client) -> Result<Self> {
        let account =
            || Account { id: format!("acc-{}", Uuid::new_v4()), balance: 0, movements: 0, came: 0, went: 0, last: 0 };
        let mut wallet = Self { accounts: [account(), account()] };
        for which in 0..2 {
            wallet.send(client, "open", "OPEN_ACCOUNT", which, json!({"currency": client.currency})).await?;
            wallet.deposit(client, which, 100_000).await?;
        }
        Ok(wallet)
    }

    /// Moves something, then reads both accounts by every endpoint; `turn` decides what.
    pub(crate) async fn round(&mut self, client: &Client, turn: u64) -> Result<()> {
        let (which, cents) = (usize::try_from(turn % 2)?, i64::try_from(1 + turn % 7)?);
        let is_transfer = turn.is_multiple_of(3);
        let answer = match turn % 3 {
            0 => {
                let payload = json!({"amount_cents": cents, "currency": client.currency, "to_account_id": self.accounts[1 - which].id});
                let answer = self.send(client, "transfer", "TRANSFER_FUNDS", which, payload).await?;
                self.accounts[which].moved(-cents);
                self.accounts[1 - which].moved(cents);
                answer
            }
            1 => self.deposit(client, which, cents).await?,
            _ => {
                let payload = json!({"amount_cents": cents, "currency": client.currency});
                let answer = self.send(client, "withdraw", "WITHDRAW_FUNDS", which, payload).await?;
                self.accounts[which].moved(-cents);
                answer
            }
        };
        let ask = if turn.is_multiple_of(11) { Ask::Strong } else { Ask::Token(text(&answer, "consistency_token")?) };
        let sequence = answer["sequence_number"].as_u64().context("no sequence_number")?;
        let mut reads = reads_of(&self.accounts[which]);
        if is_transfer && !matches!(ask, Ask::Strong) {
            // the other one's events came with the same token
            reads.extend(reads_of(&self.accounts[1 - which]));
        }
        client.read_all(&ask, reads).await?;
        // which of the two accounts the number is of, transfers don't tell
        if is_transfer {
            Ok(())
        } else {
            client.read_all(&Ask::MinSeq(sequence), reads_of(&self.accounts[which])).await
        }
    }

    async fn deposit(&mut self, client: &Client, which: usize, cents: i64) -> Result<Value> {
        let payload = json!({"amount_cents": cents, "currency": client.currency});
        let answer = self.send(client, "deposit", "DEPOSIT_FUNDS", which, payload).await?;
        self.accounts[which].moved(cents);
        Ok(answer)
    }

    async fn send(
        &self,
        client: &Client,
        verb: &str,
        command_type: &str,
        which: usize,
        payload: Value,
    ) -> Result<Value> {
        let body = json!({"command_id": Uuid::new_v4().to_string(), "command_type": command_type,
            "aggregate_id": self.accounts[which].id, "payload": payload, "created_at": "2026-05-23T10:00:00Z"});
        client.command(&format!("/v1/commands/accounts/{verb}"), &body).await
    }
}

impl Account {
    fn moved(&mut self, cents: i64) {
        self.balance += cents;
        self.movements += 1;
        self.last = cents;
        if cents > 0 { self.came += cents } else { self.went -= cents }
    }
}

fn reads_of(account: &Account) -> Vec<Expectation> {
    let of = |endpoint: &'static str, rest: &str, check: Check| Expectation {
        endpoint,
        path: format!("/v1/queries/accounts/{}/{rest}", account.id),
        check,
    };
    let Account { balance, movements, came, went, last, .. } = account.clone();
    vec![
        of(
            "account_balance",
            "balance",
            Box::new(move |a| same("balance", &a["current_balance_cents"], &json!(balance))),
        ),
        of(
            "account_summary",
            "summary",
            Box::new(move |a| {
                same("balance", &a["balance_cents"], &json!(balance))?;
                same("newest", &a["recent_transactions"][0]["amount_cents"], &json!(last))
            }),
        ),
        of(
            "account_transactions",
            "transactions?size=1",
            Box::new(move |a| same("total", &a["total"], &json!(movements))),
        ),
        of(
            "account_statement",
            "statement",
            Box::new(move |a| {
                let sum = |field: &str| -> i64 {
                    a["months"].as_array().into_iter().flatten().filter_map(|m| m[field].as_i64()).sum()
                };
                same("deposited", &json!(sum("deposited_cents")), &json!(came))?;
                same("withdrawn", &json!(sum("withdrawn_cents")), &json!(went))
            }),
        ),
    ]
}
