//! The write side: commands over HTTP, decided by pure domain code, kept as state, events and outbox in one transaction.
//!
//! - [`domain`]: the rules; no I/O.
//! - [`store`]: transactions, the event store and the outbox; why its rows carry what they carry.
//! - `tables`: the state tables.
//! - [`commands`]: one struct a command: load, decide, write.
//! - [`audit`]: any stream's history, and its state at any time.
//! - [`http`]: requests, answers, problems.
//! - [`outbox`]: what of the outbox is published, and may go.
//! - [`migrate`]: the database's schema, applied and checked.

pub mod audit;
pub mod commands;
pub mod domain;
pub mod http;
pub mod migrate;
pub mod outbox;
pub mod store;
mod tables;
