//! `command-api outbox`: what of the outbox is published, and an operator's word for what nobody can know.

use anyhow::Context;
use clap::Subcommand;
use command_api::outbox;
use sqlx::PgPool;

use super::{Database, Slot};

#[derive(Debug, Subcommand)]
pub(crate) enum OutboxVerb {
    /// Count the rows, those that are not known to be published, and those that stay because the slot jumped
    Status {
        #[command(flatten)]
        database: Database,
        #[command(flatten)]
        slot: Slot,
    },
    /// Say that the rows that stay have reached Kafka (such as by `projector republish`), so that they may go
    Accept {
        #[command(flatten)]
        database: Database,
        #[command(flatten)]
        slot: Slot,
    },
}

pub(crate) async fn run(verb: OutboxVerb) -> anyhow::Result<()> {
    match verb {
        OutboxVerb::Status { database, slot } => {
            let outbox::Status { rows, unstamped, kept } =
                outbox::status(&connect(&database).await?, &slot.slot).await?;
            println!(
                "{rows} rows; {unstamped} not known to be published yet, {kept} of these stay until they are accepted"
            );
        }
        OutboxVerb::Accept { database, slot } => {
            let accepted = outbox::accept(&connect(&database).await?, &slot.slot).await?;
            println!("{accepted} rows accepted");
        }
    }
    Ok(())
}

async fn connect(database: &Database) -> anyhow::Result<PgPool> {
    PgPool::connect(&database.database_url).await.context("connecting to the write database")
}
