//! The write side: commands over HTTP, decided by pure domain code, kept as state, events and outbox in one transaction.
//!
//! - [`domain`]: the rules; no I/O.
//! - [`store`]: transactions, the event store and the outbox; why its rows carry what they carry.
//! - `tables`: the state tables.
//! - [`commands`]: one struct a command: load, decide, write.
//! - [`http`]: requests, answers, problems.
//! - [`migrate`]: the database's schema, applied and checked.

pub mod commands;
pub mod domain;
pub mod http;
pub mod migrate;
pub mod store;
mod tables;
