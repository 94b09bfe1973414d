//! Keeps read models in step with domain events that Debezium streams from an outbox table into Kafka.
//!
//! The modules are rooms; a room imports only what stands to its left in this line (`tests/rooms.rs` checks it):
//!
//! `expr → event → projection → apply → sink → control → source → host → generation → query → verbs → ops → cli`
//!
//! ARCHITECTURE.md in the repository tells the story; the guarantees are in [`apply`].

pub mod apply;
pub mod cli;
pub mod control;
pub mod event;
pub mod expr;
pub mod generation;
pub mod host;
pub mod ops;
pub mod projection;
pub mod query;
pub mod sink;
pub mod source;
mod verbs;
